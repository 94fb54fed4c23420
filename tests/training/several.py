"""Processes that train one small model together, on the CPU of this machine; see `test_distribution`.

    python tests/training/several.py KIND OUTPUT [JSON of options]

KIND is that of `--distribute`, or "alone". The files of a process are OUTPUT/INDEX.json and OUTPUT/INDEX.npz.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 10
IMAGES = 10  # a batch of 4 begins in one epoch and ends in the next


def ports(count):
    """Free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return numbers


def environments(kind, count):
    """What tells each of `count` processes which one it is."""
    common = {k: v for k, v in os.environ.items() if not k.startswith(("TF_CONFIG", "JAX_", "KERAS_BACKEND"))}
    common |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    free = ports(count)
    for index in range(count):
        if kind == "jax":
            own = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
            if count > 1:
                own |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free[0]}", "JAX_NUM_PROCESSES": str(count)}
                own |= {"JAX_PROCESS_ID": str(index)}
        else:
            cluster = {"worker": [f"127.0.0.1:{port}" for port in free]}
            own = {"KERAS_BACKEND": "tensorflow"}
            if count > 1:
                own["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        yield {**common, **own}


def start(command, environment):
    """A process whose output is collected."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(processes, timeout=900):
    """(exit code, output, errors) of each process."""
    results = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=timeout)
            results.append((process.returncode, output, errors))
    finally:
        for process in processes:
            process.kill()
    return results


def wait_for(path, processes, timeout=900):
    """Waits for a file of the processes; ends them if one of them has ended before it is there."""
    end = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            for process in processes:
                process.kill()
            raise AssertionError(f"{path} is missing: {[process.communicate()[1][-1500:] for process in processes]}")
        time.sleep(0.01)


def make(norm, batch_size):
    """A model whose losses sample their candidates at random."""
    import keras

    from keras_maskrcnn import MaskRCNN, training

    keras.utils.set_random_seed(3)
    model = MaskRCNN(
        3,
        {"name": "resnet10", "width": 8, "norm": norm},
        fpn_channels=16,
        anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))},
        proposals={"pre_nms": 50, "post_nms": 20},
        rpn_sampling={"size": 16},
        box_sampling={"size": 8},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        image_size=(64, 64),
        seed=7,
    )
    model.compile(training.SGD(1e-2, momentum=0.9, weight_decay=1e-3, global_clipnorm=1.0))
    return model


def main(kind, output, norm="group", steps=STEPS):
    """Trains, evaluates and scores; writes what this process found."""
    import keras
    import numpy as np

    from keras_maskrcnn import data, evaluation
    from keras_maskrcnn.backend import processes
    from keras_maskrcnn.training import distribution

    distribute = None if kind == "alone" else kind
    distribution.begin(argparse.Namespace(distribute=distribute, batch_size=4, wait=200.0))
    group = processes.group()
    model = make(norm, 4)
    processes.leave_scope()

    logged, seen = [], []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            logged.append({name: float(value) for name, value in logs.items()})

    class Noted(data.Shapes):
        def read(self, position):
            seen.append(position)
            return super().read(position)

    shapes = Noted(IMAGES, image_size=(64, 64), seed=5, object_size=(12, 30))
    common = {"max_instances": 6, "mask_size": 28, "shard": group.shard, "workers": 1}
    batches = data.batches(shapes, (64, 64), 4, shuffle=True, repeat=True, **common)
    seen.clear()
    model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[Record()])
    seen_in_training = list(seen)
    val = data.batches(data.Subset(shapes, range(8)), (64, 64), 4, **common)
    evaluated = model.evaluate(val, verbose=0, return_dict=True)
    # One image more than the processes divide; a random network has scores of 0 for both kinds.
    scores = evaluation.scores(model, data.Subset(shapes, range(7)), group=group)
    found = {
        "steps": logged,
        "evaluated": evaluated,
        "scores": evaluation.for_json(scores),
        "seen": seen_in_training,
    }
    output = pathlib.Path(output)
    (output / f"{group.index}.json").write_text(json.dumps(found))
    variables = [*model.weights, *model.optimizer.variables]
    np.savez(output / f"{group.index}.npz", *(keras.ops.convert_to_numpy(v) for v in variables))
    group.wait()


if __name__ == "__main__":
    main(*sys.argv[1:3], **json.loads(sys.argv[3] if len(sys.argv) > 3 else "{}"))
