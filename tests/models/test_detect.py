"""`detect`: original pixels, pasted masks, lists of unequal pictures, thresholds, no retracing."""

import threading

import keras
import numpy as np
import pytest

from keras_maskrcnn.ops.boxes import iou


@pytest.fixture(scope="module")
def model(tiny):
    """One model for the tests that only look at what it finds: its network is traced once for them all."""
    return tiny(detection={"score_threshold": 0.2, "max_detections": 10})


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3)).astype("uint8") for size in ((64, 64), (40, 90), (130, 50))]


def test_result_is_in_the_pixels_of_the_picture(model, pictures):
    for picture in pictures:
        found = model.detect(picture, score_threshold=0.2)
        count, (height, width) = len(found["scores"]), picture.shape[:2]
        assert count > 0
        assert found["boxes"].shape == (count, 4) and found["boxes"].dtype == np.float32
        assert found["labels"].dtype == np.int32 and set(found["labels"]) <= {1, 2, 3}
        assert found["masks"].shape == (count, height, width) and found["masks"].dtype == bool
        assert (found["boxes"][:, [0, 2]] <= width + 1e-3).all() and (found["boxes"][:, [1, 3]] <= height + 1e-3).all()
        assert (np.diff(found["scores"]) <= 0).all()


def test_boxes_come_back_through_the_scale_of_each_axis(model):
    # 33×128 pixels fit the 64×64 canvas as 16×64 (16.5 rounds to 16): x shrinks by 2, y by 33/16.
    picture = np.random.default_rng(1).integers(0, 255, (33, 128, 3)).astype("uint8")
    found = model.detect(picture, score_threshold=0.0)
    batch = model._predict_with(model.detection, model._canvas_batch([picture], 1))
    count = min(len(found["scores"]), int(batch["valid"][0].sum()))
    assert count > 0
    np.testing.assert_allclose(found["boxes"][:count], batch["boxes"][0][:count] * [2, 33 / 16, 2, 33 / 16], rtol=1e-4)


def test_a_list_gives_what_single_pictures_give(model, pictures):
    together = model.detect(pictures, score_threshold=0.2)
    for one, picture in zip(together, pictures, strict=True):
        alone = model.detect(picture, score_threshold=0.2)
        np.testing.assert_allclose(one["boxes"], alone["boxes"], atol=1e-3)
        np.testing.assert_array_equal(one["labels"], alone["labels"])


def test_thresholds_and_limits(model, pictures):
    everything = model.detect(pictures[0], score_threshold=0.0, max_detections=5)
    assert len(everything["scores"]) == 5
    assert len(model.detect(pictures[0], score_threshold=1.1)["scores"]) == 0
    assert model.detect(pictures[0], score_threshold=1.1)["masks"].shape == (0, 64, 64)
    # Untrained boxes crowd together: only a strict limit keeps them apart.
    strict, lenient = (model.detect(pictures[0], 0.0, nms_iou=iou) for iou in (0.05, 0.95))
    assert largest_overlap(strict) <= 0.05 < largest_overlap(lenient) <= 0.95


def eager(model):
    """The model, to be run without a trace."""
    model.compile("sgd", run_eagerly=True)
    return model


def largest_overlap(found):
    """Highest IoU between two detections of one class."""
    overlap = keras.ops.convert_to_numpy(iou(found["boxes"], found["boxes"]))
    same = found["labels"][:, None] == found["labels"]
    return (overlap * same - np.eye(len(same))).max()


def test_one_trace_serves_pictures_of_all_sizes(tiny):
    model = tiny()
    traces = counted(model)
    for height, width in [(40, 80), (80, 40), (64, 64), (10, 200), (333, 222)]:
        model.detect(np.zeros((height, width, 3), "uint8"))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8), "uint8"), np.zeros((8, 8, 4), "uint8"), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), "uint8")],
)
def test_what_is_no_picture_is_refused(model, picture):
    with pytest.raises(ValueError, match=r"an image must be uint8 \[H, W, 3\]"):
        model.detect(picture)


def test_empty_list_gives_an_empty_list(model):
    assert model.detect([]) == []


# Without a canvas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "rule", "canvas", "fitted"),
    [
        ((512, 680), {}, (800, 1088), (800, 1063)),  # 1062.5, half up as in detectron2
        ((480, 640), {}, (800, 1088), (800, 1067)),
        ((480, 640), {"rounding": "down"}, (800, 1088), (800, 1066)),
        ((640, 480), {"rounding": "down"}, (1088, 800), (1066, 800)),
        ((100, 700), {}, (192, 1344), (190, 1333)),  # the longer side decides
        ((512, 512), {"shorter": 64, "longer": 64}, (64, 64), (64, 64)),
        ((3, 4000), {"shorter": 64, "longer": 256}, (32, 256), (1, 256)),  # 0.19 pixels become one
    ],
)
def test_the_rule_of_the_papers(tiny, size, rule, canvas, fitted):
    assert tiny(image_size=None, resize=rule).place(size) == (canvas, fitted)


def test_pictures_of_unequal_sizes_have_a_canvas_each(tiny, pictures):
    model = tiny(image_size=None, resize={"shorter": 64, "longer": 100}, detection={"score_threshold": 0.2})
    together = model.detect([*pictures, pictures[1]], score_threshold=0.2)
    assert [found["masks"].shape[1:] for found in together] == [(64, 64), (40, 90), (130, 50), (40, 90)]
    np.testing.assert_array_equal(together[1]["boxes"], together[3]["boxes"])
    alone = model.detect(pictures[2], score_threshold=0.2)
    np.testing.assert_allclose(together[2]["boxes"], alone["boxes"], atol=1e-4)


def counted(model):
    """A list that grows by one each time the network is traced."""
    traces, call = [], model.call
    model.call = lambda *args, **kwargs: (traces.append(1), call(*args, **kwargs))[1]
    return traces


def test_one_trace_serves_twenty_sizes_and_both_orientations(tiny):
    model = tiny(image_size=None, resize={"shorter": 48, "longer": 192})
    traces = counted(model)
    sizes = [(40, 40 + 14 * i) for i in range(10)]
    canvases = {model.place(size)[0] for size in sizes + [size[::-1] for size in sizes]}
    assert len(canvases) > 3
    for size in sizes + [size[::-1] for size in sizes]:
        model.detect(np.zeros((*size, 3), "uint8"))
    assert len(traces) == 1


def test_where_shapes_are_compiled_in_a_multiple_bounds_the_canvases(tiny):
    sizes = [(40 + 7 * i, 60 + 3 * i) for i in range(20)]
    rule = {"shorter": 96, "longer": 192}
    fine, coarse = (tiny(image_size=None, resize={**rule, "multiple": multiple}) for multiple in (None, 96))
    assert len({fine.place(size)[0] for size in sizes}) > len({coarse.place(size)[0] for size in sizes})
    for size in sizes:
        canvas, fitted = coarse.place(size)
        assert fitted == fine.place(size)[1] and canvas[0] % 96 == canvas[1] % 96 == 0
    assert tiny(image_size=None, resize={"multiple": 48}).canvas_multiple() == 96  # the stride of P5 counts too


def test_xla_traces_once_a_canvas(tiny, pictures):
    model = tiny(image_size=None, resize={"shorter": 32, "longer": 64, "multiple": 64})
    model.compile("sgd", jit_compile=True)
    traces = counted(model)
    for picture in (pictures[0], pictures[1][:30], pictures[0][:50]):
        model.detect(np.ascontiguousarray(picture))
    assert len(traces) <= 2  # Keras traces a function twice where it makes variables


def test_a_generator_is_read_while_the_network_runs(model, pictures):
    read = []

    def reading():
        for picture in pictures * 2:
            read.append(picture)
            yield picture

    answers = model.detect_each(reading(), 0.2, batch_size=2)
    first = next(answers)
    assert 2 <= len(read) <= 6
    rest = list(answers)
    wanted = model.detect(pictures * 2, score_threshold=0.2)
    for found, one in zip([first, *rest], wanted, strict=True):
        np.testing.assert_allclose(found["boxes"], one["boxes"], atol=1e-3)
        np.testing.assert_array_equal(found["masks"], one["masks"])


def test_what_a_reader_raises_arrives(model, pictures):
    def reading():
        yield pictures[0]
        raise OSError("the disk is gone")

    arrived = []
    with pytest.raises(OSError, match="the disk is gone"):
        arrived.extend(model.detect_each(reading(), batch_size=1))
    assert len(arrived) == 1  # extend keeps what came before the error


def test_a_generator_closed_early_ends_its_threads(model, pictures):
    before = set(threading.enumerate())
    answers = model.detect_each(pictures * 4, batch_size=1)
    next(answers)
    answers.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("multiple", [0, 64.0, "64"])
def test_a_multiple_is_a_whole_number(tiny, multiple):
    with pytest.raises(ValueError, match="must be a whole number of pixels"):
        tiny(resize={"multiple": multiple})


def test_pasting_follows_the_convention(tiny, pictures):
    exact, whole = (
        eager(tiny(detection={"score_threshold": 0.2, "paste": paste})).detect(pictures[1], score_threshold=0.2)
        for paste in ("continuous", "whole_pixels")
    )
    np.testing.assert_array_equal(exact["boxes"], whole["boxes"])
    assert (exact["masks"] != whole["masks"]).any()
