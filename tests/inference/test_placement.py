"""Image checks, resizing, and the place of an image on its canvas: as numbers and as a graph."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import data
from keras_maskrcnn.inference import portable
from keras_maskrcnn.inference.placement import Placement, Resize, check_image, resized


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), "float32"), "float32"),
        (np.zeros((4, 4), "uint8"), r"\[4, 4\]"),
        (np.zeros((4, 4, 4), "uint8"), r"\[4, 4, 4\]"),
        (np.zeros((0, 4, 3), "uint8"), r"\[0, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), "uint8"), r"\[1, 4, 4, 3\]"),
        ("photo.jpg", "^detect takes arrays; read files with `data.read_image`$"),
        (pathlib.Path("photo.jpg"), "^detect takes arrays; read files with `data.read_image`$"),
    ],
)
def test_invalid_images_are_rejected(image, reason):
    with pytest.raises(ValueError, match=reason):
        check_image(image)


def test_a_batch_that_no_memory_holds_is_refused():
    placement = Placement(None, Resize(scale=30_000.0), 32)
    with pytest.raises(ValueError, match=r"2 images on canvases of .* take more than the 4294967296 bytes"):
        placement.batch([np.zeros((20, 30, 3), np.uint8)], 2)


def test_valid_images_are_accepted():
    image = np.zeros((4, 5, 3), "uint8")
    assert check_image(image) is image
    assert check_image([[[np.uint8(1)] * 3]]).shape == (1, 1, 3)


def test_fit_keeps_an_image_of_the_requested_size():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype("uint8")
    fitted = resized(image, (8, 6))
    np.testing.assert_array_equal(fitted, image)


def test_downsampling_averages():
    image = np.zeros((64, 64, 3), "uint8")
    image[:, ::8] = 240  # one column in eight: bilinear sampling without antialiasing would give 240 or 0
    fitted = resized(image, (8, 8))
    assert fitted.shape == (8, 8, 3)
    np.testing.assert_allclose(fitted[:, 1:-1], 30, atol=1)


def test_upsampling_by_two_aligns_pixel_centres():
    image = np.array([[[0] * 3, [100] * 3]] * 2, "uint8")
    fitted = resized(image, (4, 4))
    # The centres of the four columns are at -¼, ¼, ¾, 1¼ of the two.
    np.testing.assert_allclose(fitted[..., 0], [[0, 25, 75, 100]] * 4, atol=1e-4)


RULES = {
    "filled": Placement((96, 64), Resize(keep_aspect=False, antialias=False), 1),
    "papers": Placement(None, Resize(), 32),
    "torchvision": Placement(None, Resize(rounding="down", antialias=False), 32),
    "multiple": Placement(None, Resize(shorter=96, longer=192, multiple=48), 32),
    "scale": Placement(None, Resize(scale=1.7, multiple=48), 32),
    "stretch": Placement(None, Resize(scale=0.5), 32, (1, 99.8)),
    "canvas": Placement((64, 96), Resize(), 32, (2, 98)),
    "canvas without smoothing": Placement((128, 64), Resize(antialias=False), 32),
}
SIZES = [(48, 64), (64, 48), (100, 700), (3, 400), (33, 128), (64, 96), (17, 17), (512, 680)]


@pytest.mark.parametrize("engines", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_graph_and_numbers_give_the_same_canvas_and_pixels(name, engines):
    rule = RULES[name]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)], autograph=False)
    def graph(images):
        return rule.graph(images, portable=engines)

    for size in SIZES:
        image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3)).astype("uint8")
        batch = rule.batch([rule.pixels(image)], rows=1)
        placed, fitted = graph(image[None])
        assert tuple(placed.shape[1:3]) == rule.place(size)[0]
        assert tuple(fitted.numpy().astype(int)) == rule.place(size)[1]
        np.testing.assert_array_equal(fitted, batch["sizes"][0])
        # TensorFlow's two kernels for images that grow differ by the rounding errors of positions.
        atol = (0.05 if name == "scale" else 1e-3) if engines else 0
        np.testing.assert_allclose(placed[0], batch["images"][0], rtol=0, atol=atol, err_msg=str(size))


@pytest.mark.parametrize("name", RULES)
def test_graph_and_numbers_agree_for_many_sizes(name):
    """The rounding rule of the sides, for sizes that include halves."""
    rule = RULES[name]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)], autograph=False)
    def fitted(images):
        return rule.graph(images)[1]

    rng = np.random.default_rng(0)
    for size in rng.integers(1, 40, (60, 2)) * rng.integers(1, 9, (60, 1)):
        assert tuple(fitted(np.zeros((1, *size, 3), "uint8")).numpy()) == rule.place(size)[1], size


@pytest.mark.parametrize(("name", "size"), [("papers", (48, 64)), ("canvas", (100, 70)), ("stretch", (33, 40))])
def test_graph_of_images_of_a_known_size(name, size):
    rule = RULES[name]
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype("uint8")
    batch = rule.batch([rule.pixels(one) for one in image], rows=2)
    placed, fitted = tf.function(lambda images: rule.graph(images, portable=True), autograph=False)(image)
    np.testing.assert_array_equal(fitted, batch["sizes"][0])
    np.testing.assert_allclose(placed, batch["images"], rtol=0, atol=0.05)


def test_portable_resize_is_that_of_tensorflow():
    rng = np.random.default_rng(0)
    for case in range(24):
        channels, top = case % 8 + 1, (256, 65536)[case % 2]
        size, fitted = (rng.integers(1, limit, 2) for limit in ((150, 150), (40, 200))[case // 4 % 2])
        canvas = fitted + rng.integers(0, 40, 2)
        image = rng.integers(0, top, (2, *size, channels)).astype("float32")
        placed = portable.antialiased(image, tf.constant(fitted, "int32"), tf.constant(canvas, "int32")).numpy()
        expected = np.zeros((2, *canvas, channels), "float32")
        expected[:, : fitted[0], : fitted[1]] = tf.image.resize(image, fitted, antialias=True)
        np.testing.assert_allclose(placed, expected, rtol=0, atol=1e-3 * top / 256, err_msg=f"{size} {fitted}")


def test_portable_stretch_is_that_of_numpy():
    rng = np.random.default_rng(0)
    for case in range(12):
        image_type = data.ImageType(case % 8 + 1, ("uint8", "uint16")[case % 3 == 2])
        top = 255 * image_type.scale
        low, high = np.sort(rng.integers(0, top + 1, 2))
        shape = (2, *rng.integers(1, 60, 2), image_type.channels)
        images = rng.integers(low, high + 1, shape).astype(image_type.dtype)
        percentiles = [(1, 99.8), (0, 100), (0.001, 99.999), (12.3457, 50)][case % 4]
        found = portable.stretched(tf.constant(images), percentiles, image_type)
        for image, result in zip(images, found.numpy(), strict=True):
            np.testing.assert_array_equal(result, data.stretch(image, percentiles), err_msg=f"{case}")


@pytest.mark.parametrize(
    ("size", "rule", "canvas", "fitted"),
    [
        ((512, 680), {}, (800, 1088), (800, 1063)),  # 1062.5, half up as in detectron2
        ((480, 640), {}, (800, 1088), (800, 1067)),
        ((480, 640), {"rounding": "down"}, (800, 1088), (800, 1066)),
        ((640, 480), {"rounding": "down"}, (1088, 800), (1066, 800)),
        ((100, 700), {}, (192, 1344), (190, 1333)),  # limited by the longer side
        ((512, 512), {"shorter": 64, "longer": 64}, (64, 64), (64, 64)),
        ((3, 4000), {"shorter": 64, "longer": 256}, (32, 256), (1, 256)),  # 0.19 pixels are rounded up to one
    ],
)
def test_rule_of_the_papers(size, rule, canvas, fitted):
    assert Placement(None, Resize(**rule), 32).place(size) == (canvas, fitted)


def test_sizes_are_those_of_torchvision():
    """`torchvision.models.detection.transform`: the factor is a float64, and 800 of 3 % of the sizes become 799."""
    placement = Placement(None, Resize(rounding="down", antialias=False), 32)
    sizes = np.random.default_rng(0).integers(50, 3000, (2000, 2)).tolist()
    factors = [min(800 / min(size), 1333 / max(size)) for size in sizes]
    expected = [tuple(math.floor(side * factor) for side in size) for size, factor in zip(sizes, factors, strict=True)]
    assert [placement.place(size)[1] for size in sizes] == expected
    assert 0.01 < np.mean([799 in size for size in expected]) < 0.1
    odd = [size for size, fitted in zip(sizes, expected, strict=True) if 799 in fitted and max(size) < 900][:3]
    for height, width in odd:
        _, fitted = tf.function(placement.graph, [tf.TensorSpec([None] * 3 + [3], tf.uint8)], autograph=False)(
            np.zeros((1, height, width, 3), "uint8")
        )
        assert tuple(fitted.numpy()) == placement.place((height, width))[1]


def test_engines_divide_exactly_where_torchvision_rounds():
    """Engines may have no float64: where torchvision makes 799 pixels of 800, or 1332 of 1333, their files do not."""
    placement = Placement(None, Resize(rounding="down", antialias=False), 32)

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [3], tf.uint8)], autograph=False)
    def fitted(images):
        return placement.graph(images, portable=True)[1]

    sizes = np.random.default_rng(0).integers(50, 900, (2000, 2)).tolist()
    exact = [tuple(min(side * 800 // min(size), side * 1333 // max(size)) for side in size) for size in sizes]
    odd = [row for row, size in enumerate(sizes) if placement.place(size)[1] != exact[row]]
    assert 0.01 < len(odd) / len(sizes) < 0.1
    for row in [*odd[:3], 0, 1]:
        assert tuple(fitted(np.zeros((1, *sizes[row], 3), "uint8")).numpy()) == exact[row], sizes[row]


def test_a_multiple_bounds_the_number_of_canvases():
    sizes = [(40 + 7 * i, 60 + 3 * i) for i in range(20)]
    fine, coarse = (Placement(None, Resize(shorter=96, longer=192, multiple=multiple), 32) for multiple in (None, 96))
    assert len({fine.place(size)[0] for size in sizes}) > len({coarse.place(size)[0] for size in sizes})
    for size in sizes:
        canvas, fitted = coarse.place(size)
        assert fitted == fine.place(size)[1] and canvas[0] % 96 == canvas[1] % 96 == 0
    assert Placement(None, Resize(multiple=48), 32).multiple == 96  # a multiple of the stride too


def test_empty_images_fill_a_batch_up():
    batch = Placement((8, 8), Resize(), 4).batch([np.full((4, 4, 3), 9, "uint8")], rows=3)
    assert batch["images"].shape == (3, 8, 8, 3) and not batch["images"][1:].any()
    np.testing.assert_array_equal(batch["sizes"], [[8, 8], [1, 1], [1, 1]])


def test_scale_keeps_the_size_of_objects():
    rule = Placement(None, Resize(scale=1.5, multiple=64), 32)
    assert rule.place((256, 320)) == ((384, 512), (384, 480))
    assert rule.place((1024, 100)) == ((1536, 192), (1536, 150))
    assert Placement(None, Resize(scale=1.0), 32).place((33, 64)) == ((64, 64), (33, 64))
    with pytest.raises(ValueError, match="scale=0 must be a positive number, or None"):
        Resize(scale=0)


def test_pixels_are_those_of_the_stretched_image():
    image = np.random.default_rng(0).integers(40, 90, (20, 30, 3)).astype("uint8")
    np.testing.assert_array_equal(Placement(None, Resize(), 32, (1, 99)).pixels(image), data.stretch(image, (1, 99)))
    assert Placement(None, Resize(), 32).pixels(image) is image
    with pytest.raises(ValueError, match="an image must be uint8"):
        Placement(None, Resize(), 32, (1, 99)).pixels(image.astype(float))


def test_graph_stretches_each_image_of_a_batch():
    rng = np.random.default_rng(0)
    rule = Placement(None, Resize(scale=1.0), 4, (1, 99.8))
    images = [rng.integers(*levels, (16, 24, 3)).astype("uint8") for levels in ((3, 30), (0, 256), (7, 9), (255, 256))]
    placed, _ = rule.graph(np.stack(images))
    for image, found in zip(images, placed.numpy(), strict=True):
        np.testing.assert_array_equal(found, data.stretch(image, (1, 99.8)))
