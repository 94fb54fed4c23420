r"""One training step of two images: this package against torchvision or TF Model Garden, ResNet-50-FPN, 91 outputs.

    python benchmarks/training.py --peer torchvision --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION \
        --output benchmarks/results/training.json

A call is the forward pass, the gradients and the update by SGD with momentum 0.9 for a batch in memory. On all sides
batch norms, the stem and the first stage are frozen, and 512 regions per image train the box head. This package and
torchvision have the same generated weights (`scenes.py`) and objects, so that the numbers of positive regions in the
mask head are about equal: they may differ by 10 %. The learning rate is so low that the weights hardly change.

The batch has the format of each library's input pipeline: for this package, uint8 pixels and masks of 112x112 cells
inside their boxes; for torchvision, float pixels and whole masks; for TF Model Garden, float pixels and labelled
anchors.
"""

import pairs
import peers
import scenes

TOLERANCE = 0.1


def check(ours, peer):
    """None, or a line about a difference between the work of both sides."""
    mine, other = ours["mask_rois"], peer["mask_rois"]
    same = min(mine, other) > 0 and abs(mine - other) <= TOLERANCE * max(mine, other)
    return None if same else f"{mine} regions went through our mask head, {other} through the peer's"


def network(precision, x, tiny=False):
    """Our network, compiled, for the images of a batch."""
    import keras

    model = scenes.network(tiny, dtype=precision, image_size=tuple(x["images"].shape[1:3]), seed=0)
    model.compile(keras.optimizers.SGD(peers.RATE, momentum=peers.MOMENTUM))
    return model


def ours(precision, x, y, tiny=False):
    """The call of one case on this package: the step of `fit`."""
    model, images = network(precision, x, tiny), len(x["images"])

    def call():
        logs = model.train_on_batch(x, y, return_dict=True)
        # Keras' logs are means over all steps so far, which are equal here.
        facts = {"mask_rois": images * logs["foreground"], "loss": logs["loss"], "skipped": logs["skipped_steps"]}
        return {name: round(float(value), 4) for name, value in facts.items()}

    return call, 1


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 7)
    peers.add_arguments(parser)
    return with_batch(parser)


def with_batch(parser):
    """The options of a parser with the additional arguments that describe a batch."""
    add = parser.add_argument
    size = "side of the images, a multiple of 64 (default: %(default)s)"
    add("--size", type=pairs.positive, default=512, help=size)
    add("--batch", type=pairs.positive, default=2, help="images per batch (default: %(default)s)")
    add(
        "--tiny",
        action="store_true",
        help="replace our network by one of about ten thousand weights, to test the script",
    )
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
        options,
        peers.cases(peers.precisions(options), options.peer if options.peer_python else None),
        check=check,
        words=["--peer", options.peer, *sizes, *(["--tiny"] * options.tiny)],
        peer_name=options.peer,
        fresh=True,
    )


def case(name, options):
    """The case of a name, for a worker."""
    mine, kind = peers.parts(name)
    size = (options.size, options.size)
    x, y = scenes.training_batch(options.batch, size, size, peers.TRAINING_OBJECTS, 90)
    if options.worker == "peer":
        return peers.load(options.peer).training(kind, x, y)
    return ours(mine, x, y, options.tiny)


if __name__ == "__main__":
    main()
