"""Threads that share a model: every call has its own thresholds, and nothing accumulates."""

import concurrent.futures
import gc
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = [
    {"score_threshold": score, "nms_iou": iou, "max_detections": limit}
    for score, iou, limit in itertools.product((0.0, 0.24, 0.26), (0.1, 0.5, 0.9), (1, 3, 20))
]


def counted(model):
    """A list that grows by one each time the network is traced."""
    traces, call = [], model.call
    model.call = lambda *args, **kwargs: (traces.append(1), call(*args, **kwargs))[1]
    return traces


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in ("boxes", "labels", "scores", "masks"))


def resident():
    """Resident memory of this process in MB."""
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_eight_threads_give_the_same_as_one(make, images):
    """8 threads on a model that is not traced yet, with each image and setting, compared with the calls in sequence."""
    model = make(image_size=None, resize={"shorter": 64, "longer": 96})
    before = model.get_config()
    traces = counted(model)
    calls = [(images[i % len(images)], SETTINGS[(7 * i) % len(SETTINGS)]) for i in range(len(SETTINGS) * len(images))]
    rounds, memory = [], []
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            rounds.append(list(threads.map(lambda call: model.detect(call[0], **call[1]), calls)))
            memory.append(resident())
    together = rounds[0]  # the round in which the threads trace
    assert memory[2] - memory[1] < 30, memory  # MB
    assert len(traces) == 1
    alone = [model.detect(image, **settings) for image, settings in calls]
    wrong = [i for i, found in enumerate(alone) if not same(found, together[i])]
    assert wrong == []
    assert len({len(found["scores"]) for found in together}) > 3  # the thresholds have an effect
    assert len(traces) == 1 and model.get_config() == before


@pytest.fixture(scope="module")
def traced(make):
    """A model with a canvas, and the list of its traces."""
    model = make(image_size=(64, 96))
    return model, counted(model)


def test_thirty_thresholds_need_one_graph(traced, images):
    model, traces = traced
    counts = [len(model.detect(images[0], 0.0, max_detections=limit)["scores"]) for limit in range(1, 31)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] > 20
    assert len(traces) == 1


def test_compiled_functions_agree_with_the_dynamic_graph(traced, make, images):
    plain, model = traced[0], make(image_size=(64, 96), detection={"max_detections": 4})
    model.compile("sgd", jit_compile=True)
    traces = counted(model)
    for settings in ({"max_detections": 3}, {"nms_iou": 0.2}, {"score_threshold": 0.26}, {"max_detections": 9}):
        expected = plain.detect(images[0], **{"score_threshold": 0.0, "max_detections": 4, **settings})
        found = model.detect(images[0], **{"score_threshold": 0.0, **settings})
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
        np.testing.assert_array_equal(found["labels"], expected["labels"])
    assert len(traces) == 2  # one per capacity: 4 for 3 and 4, 16 for 9
    many = [len(model.detect(images[0], 0.0, max_detections=most)["scores"]) for most in (2000, 2**31 - 1)]
    assert many[0] == many[1] > 20
    assert len(traces) == 3  # the capacity ends at the number of candidates


def test_options_of_the_model_are_the_defaults_of_a_call(traced, make, images):
    plain, model = traced[0], make(image_size=(64, 96), detection={"score_threshold": 0.26, "max_detections": 2})
    model.compile("sgd", run_eagerly=True)
    everything = plain.detect(images[0], score_threshold=0.0, max_detections=50)
    found = model.detect(images[0])
    assert len(found["scores"]) == 2
    np.testing.assert_allclose(found["boxes"], everything["boxes"][everything["scores"] > 0.26][:2], atol=1e-3)
    assert len(plain.detect(images[0])["scores"]) == 0  # the default is 0.5, above the untrained model's scores


def test_options_cannot_be_changed(make):
    with pytest.raises(AttributeError):
        make(image_size=(64, 96)).detection = None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"score_threshold": 1.5}, "score_threshold=1.5 must be a number from 0 to 1"),
        ({"score_threshold": float("nan")}, "score_threshold=nan must be a number from 0 to 1"),
        ({"score_threshold": "0.5"}, "score_threshold='0.5' must be a number from 0 to 1"),
        ({"nms_iou": -0.1}, "nms_iou=-0.1 must be a number from 0 to 1"),
        ({"max_detections": 0}, "max_detections=0 must be a whole number of at least 1"),
        ({"max_detections": -1}, "max_detections=-1 must be a whole number of at least 1"),
        ({"max_detections": 2**31}, "max_detections=2147483648 must be a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number of at least 1"),
        ({"batch_size": "8"}, "batch_size='8' must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments_are_rejected_before_anything_runs(make, images, arguments, reason):
    model = make(image_size=(64, 96))
    for detect in (model.detect, model.detect_each):
        with pytest.raises(ValueError, match=reason):
            detect(images[:1], **arguments)


def test_detections_before_an_error_arrive_first(traced, images):
    found = []
    with pytest.raises(ValueError, match="an image must be uint8"):
        found.extend(traced[0].detect_each([*images[:3], images[0].astype("float32")], batch_size=8))
    assert len(found) == 3


def test_later_changes_of_weights_take_effect(traced, images):
    model, bias = traced[0], traced[0].box_head.classes.bias
    before = model.detect(images[0], score_threshold=0.0)
    bias.assign(np.float32([0, 5, 0, 0]))
    after = model.detect(images[0], score_threshold=0.0)
    bias.assign(np.zeros(4))
    assert after["scores"][0] > before["scores"][0] + 0.3 and (after["labels"][:5] == 1).all()


def test_inference_imports_neither_pycocotools_nor_the_training_pipeline():
    program = """
import sys, numpy as np, keras
from keras_maskrcnn import MaskRCNN
model = MaskRCNN(2, {"name": "resnet10", "width": 8}, fpn_channels=16, box_stage={"width": 16}, image_size=(64, 64),
                 mask_stage={"width": 8, "depth": 1})
model.compile("sgd", run_eagerly=True)
model.detect(np.zeros((8, 8, 3), "uint8"))
import keras_maskrcnn.inference.export, keras_maskrcnn.inference.saved_model
heavy = ("pycocotools", "keras_maskrcnn.data.pipeline", "keras_maskrcnn.data.augment", "keras_maskrcnn.training.",
         "keras_maskrcnn.evaluation", "keras_maskrcnn.visualize")
allowed = {f"keras_maskrcnn.training.{name}" for name in ("schedules", "sgd", "adamw", "rates")}
print([m for m in sys.modules if m.startswith(heavy) and m not in allowed])
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.splitlines()[-1] == "[]"
