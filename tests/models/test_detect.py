"""`detect`: original pixels, pasted masks, lists of unequal images, thresholds, no retracing."""

import os
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from keras_maskrcnn.ops.boxes import iou


@pytest.fixture(scope="module")
def model(tiny):
    """One model for the tests that only read detections: its network is traced once for all of them."""
    return tiny(detection={"score_threshold": 0.2, "max_detections": 10})


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3)).astype("uint8") for size in ((64, 64), (40, 90), (130, 50))]


def test_result_is_in_the_pixels_of_the_image(model, images):
    for image in images:
        found = model.detect(image, score_threshold=0.2)
        count, (height, width) = len(found["scores"]), image.shape[:2]
        assert count > 0
        assert found["boxes"].shape == (count, 4) and found["boxes"].dtype == np.float32
        assert found["labels"].dtype == np.int32 and set(found["labels"]) <= {1, 2, 3}
        assert found["masks"].shape == (count, height, width) and found["masks"].dtype == bool
        assert (found["boxes"][:, [0, 2]] <= width + 1e-3).all() and (found["boxes"][:, [1, 3]] <= height + 1e-3).all()
        assert (np.diff(found["scores"]) <= 0).all()


def test_boxes_come_back_through_the_scale_of_each_axis(model):
    # 33×128 pixels fit the 64×64 canvas as 16×64 (16.5 rounds to 16): x shrinks by 2, y by 33/16.
    image = np.random.default_rng(1).integers(0, 255, (33, 128, 3)).astype("uint8")
    found = model.detect(image, score_threshold=0.0)
    batch = model.predictor.network(model.placement.batch([image], 1), model.detection.limits(score_threshold=0.0))
    count = len(found["scores"])
    assert 0 < count == batch["valid"][0].sum()
    np.testing.assert_allclose(found["boxes"], batch["boxes"][0][:count] * [2, 33 / 16, 2, 33 / 16], rtol=1e-4)


def test_a_list_gives_the_same_as_single_images(model, images):
    together = model.detect(images, score_threshold=0.2)
    for one, image in zip(together, images, strict=True):
        alone = model.detect(image, score_threshold=0.2)
        np.testing.assert_allclose(one["boxes"], alone["boxes"], atol=1e-3)
        np.testing.assert_array_equal(one["labels"], alone["labels"])


def test_thresholds_and_limits(model, images):
    everything = model.detect(images[0], score_threshold=0.0, max_detections=5)
    assert len(everything["scores"]) == 5
    assert len(model.detect(images[0], score_threshold=1.0)["scores"]) == 0
    assert model.detect(images[0], score_threshold=1.0)["masks"].shape == (0, 64, 64)
    # Boxes of an untrained model overlap much unless the limit is strict.
    strict, lenient = (model.detect(images[0], 0.0, nms_iou=iou) for iou in (0.05, 0.95))
    assert largest_overlap(strict) <= 0.05 < largest_overlap(lenient) <= 0.95


def eager(model):
    """The model, set to run eagerly."""
    model.compile("sgd", run_eagerly=True)
    return model


def largest_overlap(found):
    """Highest IoU between two detections of one class."""
    overlap = keras.ops.convert_to_numpy(iou(found["boxes"], found["boxes"]))
    same = found["labels"][:, None] == found["labels"]
    return (overlap * same - np.eye(len(same))).max()


def test_one_trace_serves_images_of_all_sizes(tiny):
    model = tiny()
    traces = counted(model)
    for height, width in [(40, 80), (80, 40), (64, 64), (10, 200), (333, 222)]:
        model.detect(np.zeros((height, width, 3), "uint8"))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), "uint8"), np.zeros((8, 8, 4), "uint8"), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), "uint8")],
)
def test_arrays_that_are_not_images_are_rejected(model, image):
    with pytest.raises(ValueError, match=r"an image must be uint8 \[H, W, 3\]"):
        model.detect(image)


def test_empty_list_gives_an_empty_list(model):
    assert model.detect([]) == []


# Without a canvas ---------------------------------------------------------------------------------------------------


def test_images_of_unequal_sizes_have_a_canvas_each(tiny, images):
    model = tiny(image_size=None, resize={"shorter": 64, "longer": 100}, detection={"score_threshold": 0.2})
    together = model.detect([*images, images[1]], score_threshold=0.2)
    assert [found["masks"].shape[1:] for found in together] == [(64, 64), (40, 90), (130, 50), (40, 90)]
    np.testing.assert_array_equal(together[1]["boxes"], together[3]["boxes"])
    alone = model.detect(images[2], score_threshold=0.2)
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
    canvases = {model.placement.place(size)[0] for size in sizes + [size[::-1] for size in sizes]}
    assert len(canvases) > 3
    for size in sizes + [size[::-1] for size in sizes]:
        model.detect(np.zeros((*size, 3), "uint8"))
    assert len(traces) == 1


def test_xla_traces_once_per_canvas(tiny, one_level, images):
    model = tiny(**one_level, image_size=None, resize={"shorter": 32, "longer": 64, "multiple": 64})
    model.compile("sgd", jit_compile=True)
    traces = counted(model)
    for image in (images[0], images[1][:30], images[0][:50]):
        model.detect(np.ascontiguousarray(image))
    assert len(traces) <= 2  # Keras traces a function twice if it creates variables


def test_a_generator_is_read_while_the_network_runs(model, images):
    read = []

    def reading():
        for image in images * 2:
            read.append(image)
            yield image

    results = model.detect_each(reading(), 0.2, batch_size=2)
    first = next(results)
    assert 2 <= len(read) <= 6
    rest = list(results)
    expected = model.detect(images * 2, score_threshold=0.2)
    for found, one in zip([first, *rest], expected, strict=True):
        np.testing.assert_allclose(found["boxes"], one["boxes"], atol=1e-3)
        np.testing.assert_array_equal(found["masks"], one["masks"])


def test_exceptions_of_a_reader_are_raised(model, images):
    def reading():
        yield images[0]
        raise OSError("the disk is gone")

    results = []
    with pytest.raises(OSError, match="the disk is gone"):
        results.extend(model.detect_each(reading(), batch_size=1))
    assert len(results) == 1  # `extend` keeps the items before the error


def test_a_generator_closed_early_ends_its_threads(model, images):
    before = set(threading.enumerate())
    results = model.detect_each(images * 4, batch_size=1)
    next(results)
    results.close()
    assert set(threading.enumerate()) <= before


def test_calls_one_after_another_use_the_same_threads(model, images):
    model.detect(images[0])
    before = set(threading.enumerate())
    list(model.detect_each(images, batch_size=1))
    assert set(threading.enumerate()) <= before


def test_results_of_one_generator_are_images_of_another(model, images):
    """Each has threads of its own: one that waits for the other does not wait for itself."""
    given = (image for image, _ in zip(images, model.detect_each(images, batch_size=1), strict=True))
    assert len(list(model.detect_each(given, batch_size=1))) == len(images)


FORKED = """
import os
from keras_maskrcnn.inference.ahead import kept_thread
with kept_thread() as thread:
    thread.submit(int).result()
if not os.fork():
    with kept_thread() as thread:
        os._exit(thread.submit(int, 7).result(timeout=20))
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_has_threads_of_its_own():
    answer = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == "7\n"


@pytest.mark.parametrize("multiple", [0, 64.0, "64"])
def test_a_multiple_is_a_whole_number(tiny, multiple):
    with pytest.raises(ValueError, match="must be a whole number of pixels"):
        tiny(resize={"multiple": multiple})


def test_pasting_follows_the_convention(tiny, images):
    exact, whole = (
        eager(tiny(detection={"score_threshold": 0.2, "paste": paste})).detect(images[1], score_threshold=0.2)
        for paste in ("continuous", "whole_pixels")
    )
    np.testing.assert_array_equal(exact["boxes"], whole["boxes"])
    assert (exact["masks"] != whole["masks"]).any()


def test_other_methods_name_detect(model, images):
    with pytest.raises(ValueError, match=r"predict takes batches .* model\.detect\(image\)"):
        model.predict(images[0])
