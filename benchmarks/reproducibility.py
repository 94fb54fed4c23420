"""What changes the losses of a training with the same seed on one machine.

    python benchmarks/reproducibility.py --output benchmarks/results/reproducibility.json

Each variant is a process of its own, which trains the same tiny network from the same seed. `equal` says whether all
losses are those of the first process, bit for bit, `first` is the first step, from 1, whose loss differs, `largest` the
largest difference of the loss of a step, and `end` the difference of the mean loss of the last tenth of the steps.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import pairs
import reports

# Environment and options of each variant; the first one is what the others are compared with.
VARIANTS = {
    "as it is": ({}, {}),
    "again": ({}, {}),
    "1 reader thread": ({}, {"workers": 1}),
    "4 reader threads": ({}, {"workers": 4}),
    "2 reader processes (grain)": ({}, {"backend": "grain"}),
    "pipeline without TensorFlow": ({}, {"backend": "numpy"}),
    "1 thread per operation": ({"TF_NUM_INTRAOP_THREADS": "1"}, {}),
    "1 operation at a time": ({"TF_NUM_INTEROP_THREADS": "1"}, {}),
    "XLA": ({}, {"jit_compile": True}),
    "without oneDNN": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, {}),
    "oneDNN as on a processor with AVX2 only": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, {}),
    "bfloat16": ({}, {"dtype": "mixed_bfloat16"}),
}


def losses(steps, workers=2, backend="auto", jit_compile=False, dtype="float32"):
    """The loss of each step of a training."""
    import keras
    import scenes
    import soak

    from keras_maskrcnn import data, training

    keras.utils.set_random_seed(0)
    found, size = [], (64, 64)
    shapes = data.Shapes(100, seed=1, image_size=size, object_size=(12, 30))
    options = {"max_instances": 6, "mask_size": 28, "augment": "flip", "repeat": True}
    batches = data.batches(shapes, size, 2, workers=workers, backend=backend, **options)
    model = scenes.network(True, 3, image_size=size, seed=0, dtype=dtype, **soak.SMALL)
    model.compile(training.SGD(1e-2, momentum=0.9, global_clipnorm=1.0), jit_compile=jit_compile)

    class Noted(keras.callbacks.Callback):
        total = 0.0  # Keras' logs are means over the epoch

        def on_train_batch_end(self, batch, logs=None):
            total = float(logs["loss"]) * (batch + 1)
            found.append(total - self.total)
            self.total = total

    model.fit(batches, steps_per_epoch=steps, verbose=0, callbacks=[Noted()])
    return found


def compared(found, expected):
    """The figures of the losses of a variant against those of the first."""
    differences = [abs(one - other) for one, other in zip(found, expected, strict=True)]
    last = max(len(found) // 10, 1)
    first = next((step for step, difference in enumerate(differences, start=1) if difference), None)
    return {
        "equal": first is None,
        "first": first,
        "largest": float(f"{max(differences):.2g}"),
        "end": float(f"{abs(sum(found[-last:]) - sum(expected[-last:])) / last:.2g}"),
    }


def measure(name, steps):
    """The losses of a variant, from a process of its own."""
    environment = {**os.environ, **VARIANTS[name][0]}
    command = [sys.executable, __file__, "--variant", name, "--steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Starts a process for each variant and writes their figures; with --variant runs that one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=pairs.positive, default=100, help="of each training (default: %(default)s)")
    add("--variant", choices=VARIANTS, help="run this one here and print its losses last")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(losses(options.steps, **VARIANTS[options.variant][1])))
        return
    report, expected = {**reports.header("reproducibility.py"), "steps": options.steps, "variants": {}}, None
    for name in VARIANTS:
        found = measure(name, options.steps)
        expected = expected or found
        report["variants"][name] = compared(found, expected)
        print(f"{name}: {report['variants'][name]}", flush=True)
    reports.write(options.output, report)


if __name__ == "__main__":
    main()
