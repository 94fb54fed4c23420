"""SavedModels of images of other channels and of 16 bits give the same as `detect`."""

import io

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data.colour import stretch
from keras_maskrcnn.inference import saved_model
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.saved_model import SavedModel

RNG = np.random.default_rng(0)
DETECTION = {"score_threshold": 0.2, "max_detections": 10}
SIZE = {"image_size": (64, 64), "resize": None}


def noise(*shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def encoded(pixels):
    return imagecodecs.png_encode(np.squeeze(pixels))


def check(found, row, expected, size):
    """Compares a row of a signature's outputs with what `detect` found."""
    count = int(found["num_detections"][row])
    assert count == len(expected["scores"]) > 0
    boxes = found["detection_boxes"][row, :count].numpy()[:, [1, 0, 3, 2]] * np.tile(size[::-1], 2)
    np.testing.assert_allclose(boxes, expected["boxes"], atol=0.05)
    np.testing.assert_allclose(found["detection_scores"][row, :count], expected["scores"], atol=1e-4)


def test_four_channels_of_sixteen_bits(make, tmp_path):
    model = make(channels=4, image_dtype="uint16", detection=DETECTION, stretch=(1, 99.8), **SIZE)
    model.export(tmp_path / "model")
    served, client = tf.saved_model.load(str(tmp_path / "model")), SavedModel(tmp_path / "model")
    assert client.image_type == model.image_type == data.ImageType(4, "uint16")
    images = [noise(50, 90, 4) // 16, noise(64, 64, 4)]
    expected = [model.detect(image, score_threshold=0.2) for image in images]
    for image, ours in zip(images, expected, strict=True):
        check(served.signatures["serving_default"](images=tf.constant(image[None])), 0, ours, image.shape[:2])
        theirs = client.detect(image, score_threshold=0.2)
        np.testing.assert_allclose(theirs["scores"], ours["scores"], atol=1e-4)
    files = tf.constant([encoded(images[0]), b"no image", encoded(images[1])])
    found = served.signatures["serve_bytes"](image_bytes=files)
    check(found, 0, expected[0], (50, 90))
    check(found, 2, expected[1], (64, 64))
    assert found["num_detections"].numpy()[1] == 0
    with pytest.raises(ValueError, match=r"an image must be uint16 \[H, W, 4\], not uint8"):
        client.detect(noise(8, 8, 4, dtype="uint8"))


def test_five_channels_have_no_signature_for_files(brightness, tmp_path, capsys):
    model = brightness(1, channels=5, detection=DETECTION, **SIZE)
    model.export(tmp_path / "model")
    assert "no signature serve_bytes, TensorFlow decodes no files of 5 channels" in capsys.readouterr().out
    served = tf.saved_model.load(str(tmp_path / "model"))
    assert set(served.signatures) == {"serving_default", "detect_on_canvas"}
    image = noise(50, 90, 5, dtype="uint8")
    found = served.signatures["serving_default"](images=tf.constant(image[None]))
    check(found, 0, model.detect(image, score_threshold=0.2), (50, 90))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", saved_model.DECODED)
def test_files_are_decoded_to_the_type(channels, dtype):
    image_type = data.ImageType(channels, dtype)
    for given in ("uint8", "uint16"):
        pixels = noise(5, 6, channels, dtype=given)
        image, read = saved_model._decode(tf.constant(encoded(pixels)), image_type)
        assert read and image.dtype == dtype
        if given == dtype:
            np.testing.assert_array_equal(image[0], pixels)
        elif given == "uint8":
            np.testing.assert_array_equal(image[0], image_type.convert(pixels))
        else:  # TensorFlow takes the upper eight bits
            assert np.abs(image[0].numpy().astype(int) - image_type.convert(pixels)).max() <= 1
    image, read = saved_model._decode(tf.constant(b"no image"), image_type)
    assert not read and image.shape == (1, 1, 1, channels) and image.dtype == dtype


def test_a_jpeg_file_of_sixteen_bits():
    stream = io.BytesIO()
    Image.new("L", (4, 3), 200).save(stream, "JPEG")
    image, read = saved_model._decode(tf.constant(stream.getvalue()), data.ImageType(1, "uint16"))
    assert read and image.shape == (1, 3, 4, 1) and abs(int(image[0, 0, 0, 0]) - 200 * 257) <= 257


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_stretch_in_the_graph_is_that_of_numpy(channels, dtype):
    image_type = data.ImageType(channels, dtype)
    image = (noise(40, 50, channels, dtype=dtype) // 4 + 20).astype(dtype)
    placement = Placement((40, 50), Resize(), 1, (1, 99.8), image_type)
    placed, size = placement.graph(tf.constant(image[None]))
    assert size.numpy().tolist() == [40, 50]
    np.testing.assert_array_equal(placed[0], stretch(image, (1, 99.8)))
    batch = placement.batch([placement.pixels(image)], 1)
    np.testing.assert_array_equal(batch["images"], placed)
