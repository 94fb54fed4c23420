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
    {"score_threshold": score, "nms_iou": iou, "max_detections": most}
    for score, iou, most in itertools.product((0.0, 0.24, 0.26), (0.1, 0.5, 0.9), (1, 3, 20))
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


def test_eight_threads_give_what_one_gives(make, images):
    """400 calls by 8 threads on a model that has traced nothing, against the same calls one after the other."""
    model = make(image_size=None, resize={"shorter": 64, "longer": 96})
    before = model.get_config()
    traces = counted(model)
    calls = [(images[i % len(images)], SETTINGS[(7 * i) % len(SETTINGS)]) for i in range(400)]
    memory = []
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            together = list(threads.map(lambda call: model.detect(call[0], **call[1]), calls))
            memory.append(resident())
    assert memory[3] - memory[1] < 30, memory  # MB; a graph per setting takes 35 MB each
    assert len(traces) == 1
    alone = [model.detect(image, **settings) for image, settings in calls[: len(SETTINGS) * len(images)]]
    wrong = [i for i, found in enumerate(alone) if not same(found, together[i])]
    assert wrong == []
    assert len({len(found["scores"]) for found in together}) > 3  # the thresholds do differ in what they let through
    assert len(traces) == 1 and model.get_config() == before


@pytest.fixture(scope="module")
def traced(make):
    """A model with a canvas, and the list of its traces."""
    model = make(image_size=(64, 96))
    return model, counted(model)


def test_thirty_thresholds_need_one_graph(traced, images):
    model, traces = traced
    counts = [len(model.detect(images[0], 0.0, max_detections=most)["scores"]) for most in range(1, 31)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] > 20
    assert len(traces) == 1


def test_compiled_functions_agree_with_the_dynamic_graph(traced, make, images):
    plain, model = traced[0], make(image_size=(64, 96), detection={"max_detections": 4})
    model.compile("sgd", jit_compile=True)
    traces = counted(model)
    for settings in ({"max_detections": 3}, {"nms_iou": 0.2}, {"score_threshold": 0.26}, {"max_detections": 9}):
        wanted = plain.detect(images[0], **{"score_threshold": 0.0, "max_detections": 4, **settings})
        found = model.detect(images[0], **{"score_threshold": 0.0, **settings})
        np.testing.assert_allclose(found["boxes"], wanted["boxes"], atol=1e-2)
        np.testing.assert_array_equal(found["labels"], wanted["labels"])
    assert len(traces) == 2  # one per capacity: 4 serves 3 and 4, 16 serves 9


def test_options_of_the_model_apply_where_the_call_has_none(traced, make, images):
    plain, model = traced[0], make(image_size=(64, 96), detection={"score_threshold": 0.26, "max_detections": 2})
    model.compile("sgd", run_eagerly=True)
    everything = plain.detect(images[0], score_threshold=0.0, max_detections=50)
    found = model.detect(images[0])
    assert len(found["scores"]) == 2
    np.testing.assert_allclose(found["boxes"], everything["boxes"][everything["scores"] > 0.26][:2], atol=1e-3)
    assert len(plain.detect(images[0])["scores"]) == 0  # 0.5, and the untrained model is below


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
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(make, images, arguments, reason):
    model = make(image_size=(64, 96))
    for detect in (model.detect, model.detect_each):
        with pytest.raises(ValueError, match=reason):
            detect(images[:1], **arguments)


def test_weights_that_change_later_count(traced, images):
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
allowed = {"keras_maskrcnn.training.schedules"}
print([m for m in sys.modules if m.startswith(heavy) and m not in allowed])
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.splitlines()[-1] == "[]"
