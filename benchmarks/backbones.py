r"""One training step on small crops: EfficientNet-Lite against a ResNet-18 of half width, as in `penn_fudan.py`.

    python benchmarks/backbones.py --output benchmarks/results/backbones.json
    python benchmarks/backbones.py --backbone efficientnet_lite2 --norms frozen_batch --rounds 3

A call is the forward pass, the gradients and the update by AdamW for a batch of crops in memory; everything but the
backbone is equal. Both sides are this package: "ours" is the EfficientNet, "peer" the ResNet. Memory and times are with
the pool that recipes use; `TF_CPU_ALLOCATOR_USE_BFC=false python benchmarks/backbones.py` measures without it.
"""

import sys

import pairs
import scenes

NORMS = ("batch", "frozen_batch")
OBJECTS = 4


def network(backbone, norm, size, precision="auto"):
    """The network of `train/penn_fudan.py` with a backbone, compiled; "auto" is the precision of the recipes."""
    from keras_maskrcnn.quiet import keras  # isort: skip  # before TensorFlow
    from keras_maskrcnn import MaskRCNN
    from keras_maskrcnn.backend.precision import fastest_policy
    from keras_maskrcnn.training import recipe

    options = {"name": backbone, "norm": norm, **({"width": 32} if backbone.startswith("resnet") else {})}
    model = MaskRCNN(
        1,
        backbone=options,
        image_size=(size, size),
        fpn_channels=96,
        anchors={"sizes": ((32,), (64,), (112,), (160,), (224,)), "ratios": (1.0, 2.0, 3.0)},
        mask_stage={"width": 96, "depth": 3},
        seed=0,
        dtype=fastest_policy() if precision == "auto" else precision,
        **recipe.SMALL,
    )
    model.compile(keras.optimizers.AdamW(1e-6))
    return model


def case(name, options):
    """The training step of a case on the side of this worker."""
    backbone = options.backbone if options.worker == "ours" else "resnet18"
    model = network(backbone, name, options.size, options.precision)
    size = (options.size, options.size)
    x, y = scenes.training_batch(options.batch, size, size, OBJECTS, 1)

    def call():
        logs = model.train_on_batch(x, y, return_dict=True)
        return {"parameters": model.backbone.count_params(), "loss": round(float(logs["loss"]), 4)}

    return call, 1


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 7, sys.executable)
    add = parser.add_argument
    add("--backbone", default="efficientnet_lite0", help="side with the name ours (default: %(default)s)")
    add("--norms", nargs="+", choices=NORMS, default=list(NORMS), help="(default: both)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), default="auto", help="(default: as recipes)")
    add("--size", type=pairs.positive, default=320, help="side of the crops (default: %(default)s)")
    add("--batch", type=pairs.positive, default=8, help="crops per step (default: %(default)s)")
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
    pairs.compare(
        __file__,
        options,
        options.norms,
        words=[f"--{name}={getattr(options, name)}" for name in ("backbone", "size", "batch", "precision")],
        peer_name="resnet18 of half width",
        fresh=True,
    )


if __name__ == "__main__":
    main()
