r"""One training step of two pictures: this package against torchvision or TF Model Garden, ResNet-50-FPN, 91 outputs.

    python benchmarks/training.py --peer torchvision --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION \
        --output benchmarks/results/training.json

A call is forward pass, gradients and the update by SGD with momentum, 0.9, of a batch that lies in memory. Batch norms
are frozen, stem and first stage fixed, on all sides; 512 regions a picture train the box head. Ours and torchvision
start from the same generated weights (`scenes.py`), and the same objects, so that equally many positive regions reach
the mask head: the two may differ by a tenth. The rate is so low that the weights stay what they are.

The batch is what each library's input pipeline hands on: to ours, pixels in uint8 and masks of 112x112 cells in their
boxes; to torchvision, float pixels and whole masks; to TF Model Garden, float pixels and labelled anchors.
"""

import pairs
import peers
import scenes

TOLERANCE = 0.1


def check(ours, peer):
    """None, or why the two did not do the same work."""
    mine, other = ours["mask_rois"], peer["mask_rois"]
    same = min(mine, other) > 0 and abs(mine - other) <= TOLERANCE * max(mine, other)
    return None if same else f"{mine} regions went through our mask head, {other} through the peer's"


def network(precision, x, tiny=False):
    """Ours, compiled, for the pictures of a batch."""
    import keras

    model = scenes.network(tiny, dtype=precision, image_size=tuple(x["images"].shape[1:3]), seed=0)
    model.compile(keras.optimizers.SGD(peers.RATE, momentum=peers.MOMENTUM))
    return model


def ours(precision, x, y, tiny=False):
    """Call of one case on this package: the step that `fit` takes."""
    model, pictures = network(precision, x, tiny), len(x["images"])

    def call():
        logs = model.train_on_batch(x, y, return_dict=True)
        # Keras' logs are means over all steps so far, which here are all alike.
        facts = {"mask_rois": pictures * logs["foreground"], "loss": logs["loss"], "skipped": logs["skipped_steps"]}
        return {name: round(float(value), 4) for name, value in facts.items()}

    return call, 1


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 7)
    peers.add_arguments(parser)
    return with_batch(parser)


def with_batch(parser):
    """What a parser reads from the command line, with the arguments that say what a batch is."""
    add = parser.add_argument
    size = "side of the pictures, a multiple of 64 (default: %(default)s)"
    add("--size", type=pairs.positive, default=512, help=size)
    add("--batch", type=pairs.positive, default=2, help="pictures (default: %(default)s)")
    add("--tiny", action="store_true", help="ours with some ten thousand weights, to try this script out")
    options = parser.parse_args()
    if options.size % 64:
        parser.error(f"--size {options.size} is not a multiple of 64")
    return options


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.worker:
        pairs.serve(lambda name: case(name, options))
        return
    sizes = ["--size", options.size, "--batch", options.batch]
    pairs.compare(
        __file__,
        peers.cases(peers.precisions(options), options.peer if options.peer_python else None),
        options.peer_python,
        options.rounds,
        output=options.output,
        check=check,
        options=["--peer", options.peer, *sizes, *(["--tiny"] * options.tiny)],
        peer_name=options.peer,
        fresh=True,
    )


def case(name, options):
    """What a worker serves for a case's name."""
    mine, kind = peers.parts(name)
    size = (options.size, options.size)
    x, y = scenes.training_batch(options.batch, size, size, peers.TRAINING_OBJECTS, 90)
    if options.worker == "peer":
        return peers.load(options.peer).training(kind, x, y)
    return ours(mine, x, y, options.tiny)


if __name__ == "__main__":
    main()
