"""Recipes that start from a whole model: a preset or an earlier run; frozen layers; heads first, then all layers."""

from keras_maskrcnn.quiet import keras  # isort: skip, before TensorFlow

import pathlib

from keras_maskrcnn.backend import is_tensorflow
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.freezing import freeze, frozen_names, matching
from keras_maskrcnn.models.image_model import ImageModel
from keras_maskrcnn.training import recipe
from keras_maskrcnn.weights import keras_file, transfer

LEARNING_RATE = 1e-4  # default of recipes that start from the weights of a whole model
# Values of `--weights` for which the network of a preset starts without weights of its heads; None for random ones.
FEATURES = {recipe.IMAGENET: recipe.IMAGENET, "none": None}
STAGES = ("backbone/stem", "backbone/stage1")  # frozen by torchvision and detectron2 when they fine-tune


def add_arguments(parser):
    """Adds `--preset`, `--freeze` and `--heads-first`."""
    add = parser.add_argument
    add("--preset", metavar="NAME", help="start from a preset: a published network, a folder of save_preset, nuclei, …")
    add(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PART",
        help="frozen for the whole run: backbone, stages (stem and first stage), or starts of names such as "
        "backbone/stage2",
    )
    add(
        "--heads-first",
        type=recipe.share,
        default=0.0,
        metavar="SHARE",
        help="share of the training in which the backbone is frozen, before all layers train (default: %(default)s)",
    )


def from_whole_model(arguments):
    """Whether the arguments name a preset, or a `.keras` file."""
    return arguments.preset is not None or str(arguments.weights).endswith(".keras")


def build(arguments, train):
    """The preset or the model of an earlier run, for the classes and the canvas of this one.

    Layers whose width depends on the number of classes are new where that differs, see `weights.transfer`. The class,
    the network, its anchors and its norms are those of the preset; `--model`, `--backbone`, `--width`, `--norm` and
    `--anchors` have no effect. With a value of `FEATURES` as `--weights` the network of a published preset starts with
    features of its backbone only, or with random weights, where `--norm` applies and no layer is frozen.

    Args:
        arguments: parsed arguments with `preset`, `weights` and those of `recipe.parser`; and `channels` and
            `image_dtype`, of which None takes that of the network.
        train: reader of the training samples.

    Raises:
        DataError: a file or folder that cannot be used.
        ValueError: an unknown preset, or both a preset and a `.keras` file.
    """
    images = {"channels": arguments.channels, "image_dtype": arguments.image_dtype}
    options = {
        **{name: value for name, value in images.items() if value is not None},
        "class_names": list(train.class_names),
        "image_size": recipe.canvas(arguments),
        "resize": {"scale": None, "tiles": None},  # the canvas of the training also at inference
        "seed": arguments.seed,
        "dtype": recipe.policy(arguments),
    }
    if str(arguments.weights).endswith(".keras"):
        if arguments.preset:
            raise ValueError("give either --preset or a .keras file as --weights: that file holds its network")
        return _from_keras_file(pathlib.Path(arguments.weights), train.num_classes, options)
    if arguments.weights in FEATURES:
        return _without_heads(arguments, train.num_classes, options)
    if arguments.preset in presets.published() and not arguments.weights:
        raise ValueError(f"--preset {arguments.preset} holds no weights: give their file as --weights, or imagenet")
    return presets.make(presets.Presets, arguments.preset, train.num_classes, arguments.weights, options)


def _without_heads(arguments, num_classes, options):
    if arguments.preset not in presets.published():
        raise ValueError(f"--weights {arguments.weights}: --preset {arguments.preset} holds its own weights")
    options["weights"] = FEATURES[arguments.weights]
    if options["weights"] is None:
        options["backbone"] = {"norm": arguments.norm, "freeze_at": 0}
    return presets.make(presets.Presets, arguments.preset, num_classes, None, options)


def _from_keras_file(path, num_classes, options):
    if not path.is_file():
        raise DataError(path, "no such file")
    source = keras_file.load(path)
    if not isinstance(source, ImageModel):
        raise DataError(path, f"holds a {type(source).__name__}, not a model of this package")
    config = presets.overridden(source.get_config(), {"num_classes": num_classes, **options})
    model = type(source).from_config(config)
    transfer.copy(source, model, path)
    return model


def freeze_parts(model, words):
    """Freezes layers beside those that are frozen already; `words` are those of `--freeze`.

    Raises:
        ValueError: a word is the start of no layer's name.
    """
    starts = [start for word in words for start in (STAGES if word == "stages" else (word,))]
    freeze(model, [*frozen_names(model), *matching(model, starts)])


class HeadsFirst(keras.callbacks.Callback):
    """Freezes the backbone for the first share of the training; then all layers train that did before.

    The optimizer must be built while all of them are trainable, as `compile` does, so that it has slots for all.

    Args:
        share: 0 to below 1.
        progress: function without arguments that returns the share of the training that is done.
        part: the part that is frozen.
        retraced: function without arguments that is called before a step that is traced again; or None.

    Raises:
        ValueError: on another backend than TensorFlow, whose optimizers can update some of their weights.
    """

    def __init__(self, share, progress, part="backbone", retraced=None):
        super().__init__()
        if share and not is_tensorflow():
            raise ValueError("--heads-first needs TensorFlow; on other backends train twice, first with --freeze")
        self.share, self.progress, self.part, self.retraced = share, progress, part, retraced
        self._before = None  # the names of the layers that stay frozen, while the part is frozen too

    def on_train_batch_begin(self, batch, logs=None):
        """Freezes and releases the part; the step is traced again then."""
        frozen = self.progress() < self.share
        if frozen and self._before is None:
            self._before = frozen_names(self.model)
            self._freeze([*self._before, self.part])
            print(f"\nthe {self.part} is frozen for the first {self.share:.0%} of the training")
        elif not frozen:
            self.on_train_end()

    def on_train_end(self, logs=None):
        """Releases the part."""
        if self._before is not None:
            self._freeze(self._before)
            self._before = None

    def _freeze(self, names):
        freeze(self.model, names)
        self.model.make_train_function(force=True)
        if self.retraced:
            self.retraced()
