"""Comparison with results of torch in files, without torch and its weights.

`make parity` compares with torch itself, for whole photos at full size.
"""

import cases
import generated
import golden
import measure
import numpy as np
import ours
import pytest


def assert_good(title, rows):
    """Fails with the whole table if any row misses its bar."""
    assert all(row.good for row in rows), "\n" + measure.table(title, rows)


QUICK = ("v1", "yolact_resnet50")
RUNS = {"v1": "training", "keypoint": "training_keypoint", "yolact_resnet50": "training_yolact"}


@pytest.mark.parametrize(
    "version", [*QUICK, *(pytest.param(v, marks=pytest.mark.slow) for v in generated.VERSIONS if v not in QUICK)]
)
def test_image(version):
    arrays = golden.read()
    wanted, size = golden.part(arrays, version), arrays["picture"].shape[:2]
    model = ours.build(version, size if version in generated.YOLACT else cases.SMALL)
    found = ours.answers(model, arrays["picture"], wanted)
    assert len(wanted["scores"]) >= 20 and len(np.unique(wanted["labels"])) > (0 if version == "keypoint" else 5)
    sampled = {**found, **{name: golden.excerpt(found)[name] for name in measure.DENSE if name in found}}
    assert_good(version, measure.picture_rows(sampled, wanted))


@pytest.mark.parametrize(
    ("version", "steps", "eagerly"),
    [
        ("v1", 3, True),
        pytest.param("v1", cases.STEPS, False, marks=pytest.mark.slow),
        pytest.param("keypoint", 3, True, marks=pytest.mark.slow),
        pytest.param("yolact_resnet50", 3, True, marks=pytest.mark.slow),
    ],
)
def test_training(version, steps, eagerly):
    arrays = golden.read()
    wanted = golden.part(arrays, RUNS[version])
    wanted["losses"] = wanted["losses"][:steps]
    scene = int(wanted.get("scene", 0))
    batch = cases.training_cases(golden.training_pictures(arrays["picture"]), scene)[version]
    found = golden.training_excerpt(ours.training(batch, steps, version, run_eagerly=eagerly))
    norms = [name for name in wanted if name.startswith("norm/") and measure.ZERO_GRADIENT not in name]
    worst = max(measure.relative(found[name], wanted[name]) for name in norms)
    losses = measure.loss_rows(found, wanted, ours.LOSSES[version])
    rows = [*losses, *measure.gradient_rows(found, wanted)]
    assert_good("training", [*rows, measure.at_most("norms of gradients", worst, 1e-3)])
