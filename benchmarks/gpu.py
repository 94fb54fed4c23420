r"""Mask R-CNN on a GPU: this package under JAX and XLA against torchvision, eager and with torch.compile.

    python benchmarks/gpu.py --output benchmarks/results/gpu.json
    python benchmarks/gpu.py --modes train --batches 8 --sides ours,eager --peer-python PATH --peak-tflops 989

ResNet-50-FPN, 800×1333 pixels (canvas 800×1344), bfloat16 on both sides (torch: autocast, channels-last), the same
weights, drawn by `tests/parity/generated.py`. Three works:

- `train`: one optimizer step on a batch that lies on the GPU;
- `network`: from a batch on the GPU to boxes and 28×28 masks on the GPU;
- `detect`: from uint8 pictures in the host's memory to boxes and pasted masks in the host's memory.

A worker process a side and work, alive together and asked in turn; both take their share of the card's memory as they
go, batches rise, and memory is the peak of each side's own allocator. A batch for which memory is not enough is a row
that says so. FLOPs are those of JAX's compiled program and of torch's FLOP counter; their share of the card's bfloat16
peak needs a known card or `--peak-tflops`. torch.compile compiles the network's parts one by one, for their glue
depends on the data. Rows of a former run on the same machine with the same versions stay in `--output` where this one
has none.

Without a GPU everything runs on the CPU, which is of use with `--tiny` alone: a tiny network at 64×96.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import statistics
import sys
import time

import machine
import pairs
import reports
import scenes

MODES = ("train", "network", "detect")
SIDES = ("ours", "eager", "compiled")
OBJECTS = 20
CLASSES = 90
SECONDS = 2.0  # how long one timing takes, roughly

# Dense bfloat16 TFLOP/s by the makers' data sheets, looked up by a part of the card's name, the first that fits.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}


def known_peak(description):
    """Dense bfloat16 FLOP/s of the card that a machine's description names, or None."""
    return next((tflops * 1e12 for name, tflops in PEAKS.items() if name in description), None)


def sizes(tiny):
    """(height, width) of the pictures, and of the canvas."""
    return ((64, 90), (64, 96)) if tiny else ((800, 1333), (800, 1344))


# Workers ----------------------------------------------------------------------------------------------------------


def out_of_memory(error):
    """Whether an exception says that memory is full; JAX and torch have a class of their own each."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


class Timer:
    """Turns a side into the cases of `pairs.serve`: facts about a batch size, or that memory was not enough for it.

    Args:
        side: object with `prepare(mode, batch)`, which returns a function that runs the work once, waits for its end
            and returns facts; and `memory()`, peak bytes.
    """

    def __init__(self, side):
        self.side, self.full = side, False

    def case(self, name):
        """Call of the case "mode; batch"."""
        mode, batch = name.split("; ")
        made = []

        def call():
            if self.full:  # batches rise: what did not fit once does not fit later
                return {"out_of_memory": True}
            try:
                if not made:
                    made.append(self.side.prepare(mode, int(batch)))
                return self._timed(made[0], int(batch))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self.full = True
                return {"out_of_memory": True}

        return call, 1

    def _timed(self, run, batch):
        """Facts with the images a second over as many runs as take `SECONDS`."""
        facts, once = _seconds(run, 1)
        repeats = min(max(round(SECONDS / once), 1), 100)
        _, total = _seconds(run, repeats)
        return {**facts, "images_per_s": batch * repeats / total, "memory_gb": self.side.memory() / 1e9}


def _seconds(run, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        facts = run()
    return facts, time.perf_counter() - start


class Ours:
    """This package under JAX.

    Args:
        tiny: whether the network and the pictures are tiny.
    """

    def __init__(self, tiny):
        os.environ["KERAS_BACKEND"] = "jax"
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other sides need memory too
        import jax

        from keras_maskrcnn.training import SGD

        random.seed(0)  # Keras draws its seeds from here; its own set_random_seed would import TensorFlow
        self.jax, self.size, self.canvas = jax, *sizes(tiny)
        self.model = scenes.network(tiny, CLASSES, image_size=self.canvas, dtype="mixed_bfloat16", **_settings(tiny))
        self.model.compile(SGD(1e-6, momentum=0.9, weight_decay=1e-4))
        self.state = None
        if "tensorflow" in sys.modules:
            raise SystemExit("the JAX worker imported TensorFlow")

    def prepare(self, mode, batch):
        """Function that runs a work once, see `Timer`."""
        return getattr(self, f"_{mode}")(batch)

    def memory(self):
        """Peak bytes of the GPU's allocator; on a CPU of the process."""
        found = self.jax.local_devices()[0].memory_stats() or {}
        return found.get("peak_bytes_in_use") or machine.peak_memory() * 1e6

    def _train(self, batch):
        model = self.model
        data = self.jax.device_put(scenes.training_batch(batch, self.size, self.canvas, OBJECTS, CLASSES))
        if self.state is None:
            groups = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            # Copies: the step takes over the memory of what it is given, and the model keeps its own values.
            self.state = tuple([self.jax.numpy.array(v.value) for v in group] for group in groups)
        step = self.jax.jit(model.train_step, donate_argnums=0).lower(self.state, data).compile()
        flops = _flops(step)
        slots = model.box_head.sampling.size * model.box_head.sampling.positive_fraction

        def run():
            logs, self.state = step(self.state, data)
            self.jax.block_until_ready(self.state)
            return {"flops": flops, "mask_rois": slots, "positives": float(logs["foreground"])}

        return run

    def _network(self, batch):
        model = self.model
        state = tuple([v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables))
        x, _ = scenes.training_batch(batch, self.size, self.canvas, OBJECTS, CLASSES)
        data = self.jax.device_put(({name: x[name] for name in ("images", "sizes")},))
        step = self.jax.jit(model.predict_step).lower(state, data).compile()
        flops = _flops(step)

        def run():
            found, _ = self.jax.block_until_ready(step(state, data))
            return {"flops": flops, "detections": int(found["valid"].sum())}

        return run

    def _detect(self, batch):
        pictures = [scenes.scene(*self.size, OBJECTS, seed)[0] for seed in range(batch)]
        threshold = self.model.detection.limits().score_threshold

        def run():
            found = self.model.detect(pictures, score_threshold=threshold, batch_size=batch)
            return {"detections": sum(len(one["scores"]) for one in found)}

        return run


def _settings(tiny):
    """Constructor arguments: few boxes for the tiny network, whose random scores reach no threshold."""
    if not tiny:
        return {}
    return {
        "proposals": {"pre_nms": 50, "post_nms": 20},
        "box_sampling": {"size": 16},
        "rpn_sampling": {"size": 16},
        "detection": {"score_threshold": 0.0, "max_detections": 5},
        "seed": 0,
    }


def _flops(compiled):
    """FLOPs that XLA counts in a compiled program; the body of a loop counts once."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get("flops", 0.0))


# Parent -----------------------------------------------------------------------------------------------------------


def measure(mode, options):
    """Yields the row of each batch size of a work, in rising order, and the versions of each side."""
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(_worker(side, options)) for side in options.sides}
        for batch in sorted(options.batches):
            name, answers = f"{mode}; {batch}", {side: [] for side in options.sides}
            for side, worker in workers.items():
                print(f"{name}: {side} makes and warms up", flush=True)
                worker.ask(name)
            for _ in range(options.rounds):
                for side, worker in workers.items():
                    answers[side].append(worker.ask(name))
            versions = {side: rows[-1]["versions"] for side, rows in answers.items()}
            yield row(mode, batch, answers, options.peak), versions


def _worker(side, options):
    python = sys.executable if side == "ours" else options.peer_python
    tiny = ["--tiny"] if options.tiny else []
    return pairs.Worker(side, [python, __file__, "--worker", side, *tiny])


def row(mode, batch, answers, peak):
    """What the JSON file says of a case.

    Args:
        mode: of `MODES`.
        batch: pictures.
        answers: dict from a side to what its worker said, one answer a round.
        peak: FLOP/s of the card, or None.
    """
    sides, rates = {}, {}
    for side, given in answers.items():
        facts = given[-1]["facts"]
        if any(answer["facts"].get("out_of_memory") for answer in given):
            sides[side] = {"out_of_memory": True}
            continue
        rates[side] = [answer["facts"]["images_per_s"] for answer in given]
        sides[side] = {
            "images_per_s": reports.spread(rates[side]),
            "memory_gb": round(facts["memory_gb"], 3),
            "first_call_s": given[-1]["first_call_s"],
            "fraction_of_peak": fraction(flops_of(side, answers), statistics.median(rates[side]) / batch, peak),
            "facts": {name: value for name, value in facts.items() if name not in ("images_per_s", "memory_gb")},
        }
    ratios = {
        side: reports.spread([ours / theirs for ours, theirs in zip(rates["ours"], values, strict=True)])
        for side, values in rates.items()
        if side != "ours" and "ours" in rates
    }
    found = {"case": f"{mode}; {batch}", "mode": mode, "batch": batch, "sides": sides, "ratio": ratios}
    return {**found, "unequal": unequal({side: value.get("facts", {}) for side, value in sides.items()})}


def flops_of(side, answers):
    """FLOPs of a side's run; torch counts those of its eager form alone, and compiled the arithmetic is the same."""
    facts = {name: given[-1]["facts"] for name, given in answers.items()}
    return facts[side].get("flops") or (facts.get("eager", {}).get("flops") if side == "compiled" else None)


def fraction(flops, rate, peak):
    """Share of the peak that so many runs a second of so many FLOPs are; None where one of them is not known."""
    return round(flops * rate / peak, 4) if flops and peak else None


def unequal(facts):
    """One line that says how the sides' work differs by more than a fifth, or None. bfloat16 moves some scores."""
    for name in ("detections", "positives"):
        counts = {side: given[name] for side, given in facts.items() if name in given}
        if counts and max(counts.values()) > 1.2 * min(counts.values()):
            return f"{name}: " + ", ".join(f"{side} {count:g}" for side, count in counts.items())
    return None


def table(report):
    """Markdown lines: images a second, memory in GB and share of the peak of each side, and ours over the others."""
    sides = [side for side in SIDES if any(side in row["sides"] for row in report["rows"])]
    titles = {"ours": "ours", "eager": "torchvision eager", "compiled": "torchvision torch.compile"}
    head = ["work", "batch", *(titles[side] for side in sides), *(f"ours / {side}" for side in sides if side != "ours")]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in report["rows"]:
        ratios = [_ratio(row["ratio"].get(side)) for side in sides if side != "ours"]
        cells = [row["mode"], str(row["batch"]), *(_cell(row["sides"].get(side)) for side in sides), *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"{row['case']}: unequal work, {row['unequal']}" for row in report["rows"] if row["unequal"]]
    return lines


def _ratio(value):
    return f"{value['median']:.2f}× ({value['lowest']:.2f} … {value['highest']:.2f})" if value else ""


def _cell(side):
    if not side:
        return ""
    if side.get("out_of_memory"):
        return "out of memory"
    share = f", {side['fraction_of_peak']:.0%} of peak" if side["fraction_of_peak"] is not None else ""
    return f"{side['images_per_s']['median']:.1f}/s, {side['memory_gb']:.1f} GB{share}"


def kept(options, report):
    """Rows of the file at `--output` that this run does not measure, if machine and versions are the same."""
    if not options.output or not options.output.is_file():
        return []
    former = json.loads(options.output.read_text())
    if any(former.get(key) != report[key] for key in ("machine", "tiny", "versions")):
        return []
    measured = {(mode, batch) for mode in options.modes for batch in options.batches}
    return [row for row in former["rows"] if (row["mode"], row["batch"]) not in measured]


def run(options):
    """Measures all cases; the file is written after each, so that a killed run has left something."""
    report = {
        **reports.header("gpu.py"),
        "tiny": options.tiny,
        "peak_tflops": options.peak and options.peak / 1e12,
        "versions": {},
        "rows": [],
    }
    print(report["machine"], flush=True)
    for mode in options.modes:
        for found, report["versions"] in measure(mode, options):
            report["rows"] = [*(report["rows"] or kept(options, report)), found]
            report["rows"].sort(key=lambda row: (MODES.index(row["mode"]), row["batch"]))
            cells = "; ".join(f"{side} {_cell(value)}" for side, value in found["sides"].items())
            print(f"{found['case']}: {cells}", flush=True)
            reports.write(options.output, report)
    return report


def names(known):
    """Type of an argument that lists names, separated by commas."""

    def parse(text):
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is not one of {', '.join(known)}")
        return text.split(",")

    return parse


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--modes", type=names(MODES), default=list(MODES), help=f"of {', '.join(MODES)} (default: all)")
    add("--sides", type=names(SIDES), default=list(SIDES), help=f"of {', '.join(SIDES)} (default: all)")
    add("--batches", type=numbers, default=[1, 4, 8, 16], help="pictures in a batch (default: 1,4,8,16)")
    add("--rounds", type=pairs.positive, default=5, help="timings of each side and case (default: %(default)s)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="Python with torchvision (default: this one)")
    add("--peak-tflops", type=float, help="the card's dense bfloat16 peak, if it is not one that the script knows")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the result as JSON")
    add("--tiny", action="store_true", help="a tiny network at 64×96, to try the script out on a CPU")
    add("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_tflops is not None and options.peak_tflops <= 0:
        parser.error("--peak-tflops must be above 0")
    options.peak = options.peak_tflops * 1e12 if options.peak_tflops else known_peak(machine.description())
    return options


def numbers(text):
    """Type of an argument that lists whole numbers, separated by commas."""
    return [pairs.positive(word) for word in text.split(",")]


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.worker == "ours":
        pairs.serve(Timer(Ours(options.tiny)).case)
    elif options.worker:
        from peers.torchvision_gpu import Theirs

        compiled = options.worker == "compiled"
        pairs.serve(Timer(Theirs(options.tiny, compiled, CLASSES, OBJECTS, *sizes(options.tiny))).case)
    else:
        print("\n".join(["", *table(run(options))]))


if __name__ == "__main__":
    main()
