"""Models of 1 to 8 channels and of 16 bits: training, detection, export, saving, and stored weights."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.data.sample import Wrapper
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.weights import channels as first_convolution

each_type = pytest.mark.parametrize("channels,dtype", [(1, "uint8"), (3, "uint16"), (8, "uint8")])


class Bands(Wrapper):
    """The images of a data set in other types: grey in every channel, each darker than the one before."""

    def __init__(self, dataset, channels, dtype):
        super().__init__(dataset)
        self._type = data.ImageType(channels, dtype)

    image_type = property(lambda self: self._type)

    def __len__(self):
        return len(self.dataset)

    def read(self, position):
        sample = self.dataset[position]
        grey = data.ImageType(1, self._type.dtype).convert(sample["image"])
        bands = [grey // (1 + channel) for channel in range(self._type.channels)]
        return {**sample, "image": np.concatenate(bands, axis=-1)}


def images_of(channels, dtype, sizes=((64, 64), (50, 90))):
    rng = np.random.default_rng(0)
    return [rng.integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype) for size in sizes]


# Training and detection -----------------------------------------------------------------------------------------------


@pytest.mark.slow  # `test_tasks` has compiled steps, `test_fit_under_both_pipelines` the channels
@pytest.mark.parametrize("channels,dtype", [(4, "uint16"), (1, "uint8"), (8, "uint8")])
def test_a_compiled_step_lowers_the_loss(tiny, shapes, channels, dtype):
    """Under XLA, a few steps on one batch."""
    batches = data.batches(Bands(shapes, channels, dtype), (64, 64), 2, max_instances=6, mask_size=28, seed=1)
    x, y = next(iter(batches))
    model = tiny(channels=channels, image_dtype=dtype)
    model.compile(keras.optimizers.Adam(2e-3), jit_compile=True)
    losses = [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for _ in range(12)]
    assert np.isfinite(losses).all() and model.skipped_steps.result() == 0
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_fit_under_both_pipelines(tiny, shapes, backend, eager_functions):
    dataset = Bands(shapes, 4, "uint16")
    batches = data.batches(dataset, (64, 64), 2, augment="standard", max_instances=6, backend=backend)
    model = tiny(channels=4, image_dtype="uint16")
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    history = model.fit(batches, steps_per_epoch=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_fit_refuses_images_of_another_type(tiny, shapes):
    model = tiny(channels=4, image_dtype="uint16")
    model.compile("sgd")
    message = (
        r"^the data has images uint8 \[H, W, 3\], the model takes uint16 \[H, W, 4\]: "
        r"dataset\.decoded\(channels=4, dtype='uint16'\) reads them so$"
    )
    for backend in ("tf", "numpy"):
        with pytest.raises(ValueError, match=message):
            model.fit(data.batches(shapes, (64, 64), 2, backend=backend))


@each_type
def test_detect_takes_this_type_only(tiny, channels, dtype):
    model = tiny(channels=channels, image_dtype=dtype, image_size=None, resize={"scale": 1.0}, stretch=(1, 99.8))
    model.compile(run_eagerly=True)
    images = images_of(channels, dtype)
    for found, image in zip(model.detect(images, score_threshold=0.0), images, strict=True):
        assert len(found["labels"]) and found["masks"].shape[1:] == image.shape[:2]
    assert FirstStage(model).detect(images[0], score_threshold=0.0)["boxes"].shape[1] == 4
    assert "masks" in model.detect(images_of(channels, dtype, [(80, 80)])[0], tiles=(64, 64), overlap=16)
    other = images_of(channels, {"uint8": "uint16", "uint16": "uint8"}[dtype])[0]
    for wrong in (other, images[0][..., :0], np.concatenate([images[0]] * 2, axis=-1)):
        with pytest.raises(ValueError, match=rf"an image must be {dtype} \[H, W, {channels}\], not "):
            model.detect(wrong)


def test_grey_images_need_no_axis_of_channels(tiny):
    model = tiny(channels=1)
    model.compile(run_eagerly=True)
    image = images_of(1, "uint8")[0]
    ours, theirs = (model.detect(each, score_threshold=0.0) for each in (image, image[..., 0]))
    np.testing.assert_array_equal(ours["scores"], theirs["scores"])


def test_sixteen_bits_of_eight_bit_images_give_the_same(tiny):
    """The default statistics of uint16 are those of uint8 times 257."""
    image = images_of(3, "uint8")[0]
    narrow, wide = tiny(), tiny(image_dtype="uint16")
    for model in (narrow, wide):
        model.compile(run_eagerly=True)
    np.testing.assert_allclose(wide.pixel_std, np.multiply(narrow.pixel_std, 257))
    ours, theirs = (
        model.detect(model.image_type.convert(image), score_threshold=0.0)["scores"] for model in (narrow, wide)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_statistics_are_those_of_the_channels():
    assert MaskRCNN(1, {"name": "resnet10", "width": 8}, channels=2).pixel_mean == pytest.approx([114.495] * 2)
    own = MaskRCNN(1, {"name": "resnet10", "width": 8}, channels=2, pixel_mean=(1, 2), image_dtype="uint16")
    assert own.pixel_mean == (1, 2)
    with pytest.raises(ValueError, match=r"^pixel_std=\(1, 2, 3\) has 3 numbers for 2 channels$"):
        MaskRCNN(1, "resnet10", channels=2, pixel_std=(1, 2, 3))
    with pytest.raises(ValueError, match="must be a whole number from 1 to 8"):
        MaskRCNN(1, "resnet10", channels=9)
    with pytest.raises(ValueError, match="uint8 or uint16, not 'float32'"):
        MaskRCNN(1, "resnet10", image_dtype="float32")


def test_a_backbone_of_another_number_of_channels():
    backbone = MaskRCNN(1, {"name": "resnet10", "width": 8}, channels=2).backbone
    with pytest.raises(ValueError, match=r"^resnet10 takes images of 2 channels, the model has channels=3$"):
        MaskRCNN(1, backbone)
    assert MaskRCNN(1, backbone, channels=2).image_type == data.ImageType(2)


JAX = """
import numpy as np
from keras_maskrcnn import MaskRCNN, data

model = MaskRCNN(
    1, {"name": "resnet10", "width": 8, "norm": "group"}, channels=2, image_dtype="uint16", image_size=(64, 64),
    fpn_channels=8, proposals={"pre_nms": 16, "post_nms": 8}, box_stage={"width": 8}, mask_stage={"width": 8},
)
image = np.random.default_rng(0).integers(0, 65536, (50, 60, 2), np.uint16)
assert len(model.detect(image, score_threshold=0.0)["scores"])
arrays = data.Arrays([image] * 2, [np.eye(50, 60, dtype=int)] * 2)
x, _ = data.batches(arrays, (64, 64), 2, augment="standard", max_instances=3, mask_size=14)[0]
assert x["images"].dtype == np.uint16
"""


@pytest.mark.slow
def test_on_jax():
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", JAX], env=environment, check=True, timeout=600)


# Saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", [{"name": "resnet10", "width": 8}, "efficientnet_lite0", "simple_cnn"])
def test_configuration_and_file(tiny, tmp_path, backbone):
    neck = None if backbone == "simple_cnn" else "fpn"
    anchors = {"sizes": ((12, 24),)} if neck is None else {"sizes": ((12,), (24,), (48,), (64,), (96,))}
    model = tiny(backbone=backbone, neck=neck, anchors=anchors, channels=5, image_dtype="uint16")
    config = model.get_config()
    assert (config["channels"], config["image_dtype"]) == (5, "uint16")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.image_type == data.ImageType(5, "uint16") and loaded.get_config() == config
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# Stored weights -----------------------------------------------------------------------------------------------------


def features(model, image):
    sizes = np.array([image.shape[:2]], "float32")
    return {name: np.asarray(v) for name, v in model.features(image[None].astype("float32"), sizes).items()}


@pytest.fixture(scope="module")
def preset(tiny, tmp_path_factory):
    """The folder of a preset for R, G, B whose mean and standard deviation are the same for all channels."""
    folder = tmp_path_factory.mktemp("preset") / "rgb"
    model = tiny(pixel_mean=(120.0,) * 3, pixel_std=(60.0,) * 3)
    model.save_preset(folder)
    return model, folder


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
def test_grey_has_the_same_features_in_any_number_of_channels(preset, capsys, channels, dtype):
    rgb, folder = preset
    grey = images_of(1, "uint8")[0]
    expected = features(rgb, np.repeat(grey, 3, axis=2))
    capsys.readouterr()
    model = MaskRCNN.from_preset(folder, channels=channels, image_dtype=dtype)
    printed = capsys.readouterr().out
    assert ("first convolution adapted from 3 to" in printed) == (channels != 3)
    assert model.pixel_mean == pytest.approx([120.0 * model.image_type.scale] * channels)
    assert model.backbone.input_channels == channels
    image = data.ImageType(1, dtype).convert(grey)
    for level, values in features(model, np.repeat(image, channels, axis=2)).items():
        np.testing.assert_allclose(values, expected[level], atol=1e-4 * np.abs(expected[level]).max())


def test_kernels_are_summed_by_hand():
    kernel = np.arange(6, dtype="float32").reshape(1, 1, 3, 2)  # channels [0, 1], [2, 3], [4, 5]; sums 6 and 9
    assert first_convolution.fitting(kernel, (1, 1, 1, 2)).tolist() == [[[[6, 9]]]]
    assert first_convolution.fitting(kernel, (1, 1, 2, 2)).tolist() == [[[[3, 4.5]] * 2]]
    assert first_convolution.fitting(kernel, (1, 1, 3, 2)) is kernel
    assert first_convolution.fitting(kernel, (3, 3, 1, 2)) is kernel  # does not fit, which the caller reports


@pytest.mark.slow
def test_a_preset_of_many_channels_for_colour_and_back(preset, tmp_path):
    """All but the first kernel is unchanged; classes can differ at the same time."""
    rgb, folder = preset
    many = MaskRCNN.from_preset(folder, channels=5)
    many.save_preset(tmp_path / "many")
    again = MaskRCNN.from_preset(tmp_path / "many")
    assert again.image_type == data.ImageType(5)
    back = MaskRCNN.from_preset(tmp_path / "many", num_classes=7, channels=3)
    first = first_convolution.first_kernel(rgb.backbone)
    for one, other in zip(rgb.backbone.weights, back.backbone.weights, strict=True):
        if one is not first:
            np.testing.assert_array_equal(one, other)
    average = np.asarray(first).mean(axis=2, keepdims=True)
    np.testing.assert_allclose(first_convolution.first_kernel(back.backbone), np.repeat(average, 3, axis=2), rtol=1e-5)


def test_a_preset_with_a_foreign_backbone_is_refused_in_one_line(tiny, tmp_path):
    x = inputs = keras.Input((None, None, 3))
    outputs = {}
    for level in range(1, 6):
        x = outputs[f"C{level}"] = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
    backbone = keras.Model(inputs, {name: outputs[name] for name in ("C2", "C3", "C4", "C5")}, name="own")
    tiny(backbone=backbone).save_preset(tmp_path / "own")
    with pytest.raises(data.DataError, match="own takes images of 3 channels, the model has channels=1") as caught:
        MaskRCNN.from_preset(tmp_path / "own", channels=1)
    assert "\n" not in str(caught.value)
