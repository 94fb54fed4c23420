"""The recipe of the ablations: its tables, the comparison by hand, a tiny run, and a run that was killed."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "train"))

from ablations_report import order
from ablations_report.paper import TABLES
from ablations_report.results import Results
from ablations_report.variants import FIGURES, SHAPES, VARIANTS, dataset
from keras_maskrcnn import MaskRCNN

SETTINGS = {"budget": 100}
TINY = ("--budget", 2, "--batch-size", 2, "--val-images", 2, "--image-size", 64, "--seeds", 1)


def table_of(results, rows, pairs=(("a", "b"),)):
    """A table with one figure of the rows' published points, and results from a dict of values by variant and seed."""
    from ablations_report.paper import Table

    rows = {name: (name.upper(), (points,)) for name, points in rows.items()}
    return Table("1: x", ("segm_AP",), rows, pairs, ("segm_AP",)), FakeResults(results)


class FakeResults:
    def __init__(self, values):
        self.numbers = values

    def values(self, variant, figure):
        return self.numbers.get(variant, {})


# The paper's tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", TABLES)
def test_tables_are_complete(key):
    table = TABLES[key]
    assert set(table.rows) <= set(VARIANTS) and set(table.judged) <= set(table.figures)
    for name, published in table.rows.values():
        assert name and len(published) == len(table.figures)
        assert all(value is None or 20 < value < 70 for value in published)
    for pair in table.pairs:
        assert set(pair) <= set(table.rows) and pair[0] != pair[1]
    for variant in table.rows:
        assert any(variant in pair for pair in table.pairs)


def test_every_variant_has_a_row_and_differs_from_all_others():
    assert set(VARIANTS) == {variant for table in TABLES.values() for variant in table.rows}
    for group in (SHAPES, FIGURES):
        texts = [json.dumps(arguments, sort_keys=True) for arguments in group.values()]
        assert len(set(texts)) == len(texts)


# Table 2(b) prints the differences of its rows, 2(d) too.
@pytest.mark.parametrize(
    ("key", "pair", "differences"),
    [
        ("loss", ("c4_softmax", "c4"), (5.5, 7.1, 6.4)),
        ("stride", ("c5_pool", "c5"), (7.3, 5.3, 10.5, 5.8, 2.6, 9.5)),
    ],
)
def test_differences_that_the_paper_prints(key, pair, differences):
    table = TABLES[key]
    for figure, difference in zip(table.figures, differences, strict=True):
        found = table.published(pair[1], figure) - table.published(pair[0], figure)
        assert found == pytest.approx(difference)


def test_the_same_variant_has_the_same_published_figures_in_all_tables():
    for figure in ("segm_AP", "segm_AP50", "segm_AP75"):
        for variant in ("c4", "fpn"):
            tables = [table for table in TABLES.values() if variant in table.rows and figure in table.figures]
            assert len({table.published(variant, figure) for table in tables}) == 1 and len(tables) > 1


def test_images_of_variants():
    shapes = dataset("c4", 3, (64, 96), 1)
    assert shapes[0]["image"].shape == (64, 96, 3) and shapes.num_classes == 4
    assert set(shapes.class_names) == {"bar", "elbow", "cross", "ring"}


# Order --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "published", "expected"),
    [
        ([3.0, 4.0, 5.0], 5.5, "agrees"),  # mean 4, standard deviation 1
        ([-3.0, -4.0, -5.0], 5.5, "reversed"),
        ([-3.0, -4.0, -5.0], -5.5, "agrees"),
        ([1.0, -1.0, 0.9], 5.5, "not decided"),  # mean 0.3, standard deviation 1.13
        ([-1.0, 1.0, -0.9], 5.5, "not decided"),
        ([0.1, -0.2, 0.2], 0.3, "equal"),
        ([3.0, 4.0, 5.0], 0.3, "differs, the paper's do not"),
        ([3.0], 5.5, "agrees, one seed"),
        ([-3.0], 5.5, "reversed, one seed"),
        ([0.2], 0.1, "equal, one seed"),
        ([2.0], 0.1, "differs, the paper's do not, one seed"),
    ],
)
def test_verdicts(differences, published, expected):
    assert order.verdict(differences, published) == expected


def test_pairs_are_compared_by_seed():
    """Seeds that only one of both has do not count; a spread that both share does not hide the difference."""
    values = {"a": {0: 10.0, 1: 30.0, 2: 50.0, 3: 99.0}, "b": {0: 12.0, 1: 33.0, 2: 52.5}}
    table, results = table_of(values, {"a": 20.0, "b": 21.5})
    (found,) = order.comparisons(table, results)
    assert found["differences"] == [2.0, 3.0, 2.5] and found["published"] == 1.5 and found["verdict"] == "agrees"


def test_markdown_by_hand():
    values = {"a": {0: 10.0, 1: 12.0}, "b": {0: 13.0, 1: 16.0}}
    table, results = table_of(values, {"a": 20.0, "b": 21.5, "c": None}, (("a", "b"), ("a", "c")))
    assert order.markdown(table, results) == (
        "## 1: x\n\n"
        "|  | mask AP | paper: mask AP |\n"
        "| --- | --- | --- |\n"
        "| A (`a`) | 11.0 ± 1.4 | 20.0 |\n"
        "| B (`b`) | 14.5 ± 2.1 | 21.5 |\n"
        "| C (`c`) | – | – |\n\n"
        "| difference | figure | here | by seed | paper | order |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| A → B | mask AP | +3.5 ± 0.7 | +3.0, +4.0 | +1.5 | agrees |\n"
    )
    assert order.markdown(table, FakeResults({})) == ""


# Results ------------------------------------------------------------------------------------------------------------


def test_results_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "results.jsonl"
    results = Results(path, SETTINGS)
    for seed, value in enumerate((0.5, 0.25)):
        results.add("a", seed, {"sizes": (1, 2)}, {"segm_AP": value, "bbox_AP": None})
    assert Results(path, SETTINGS).values("a", "segm_AP") == {0: 50.0, 1: 25.0}
    assert Results(path, SETTINGS).values("a", "bbox_AP") == {}
    text = path.read_bytes()
    for cut in range(1, len(text.splitlines()[1])):
        path.write_bytes(text[:-cut])
        found = Results(path, SETTINGS)
        assert ("a", 0) in found and (("a", 1) in found) == (cut == 1), cut  # the first cut is the end of the line
    found.check({"a": {"sizes": (1, 2)}})
    found.add("a", 1, {"sizes": (1, 2)}, {"segm_AP": 0.75})
    assert [json.loads(line)["segm_AP"] for line in path.read_text().splitlines()] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("settings", "arguments", "reason"),
    [
        ({"budget": 200}, {"neck": "c4"}, "budget 100 (not 200)"),
        (SETTINGS, {"neck": "fpn"}, "arguments {'neck': 'c4'} (not {'neck': 'fpn'})"),
    ],
)
def test_results_of_other_settings_are_refused(settings, arguments, reason, tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path, SETTINGS).add("a", 0, {"neck": "c4"}, {"segm_AP": 0.5})
    with pytest.raises(ValueError) as error:
        Results(path, settings).check({"a": arguments})
    assert reason in str(error.value) and "\n" not in str(error.value)


# The recipe ---------------------------------------------------------------------------------------------------------


def test_help_and_list(run_here):
    answer = run_here("ablations", "--help")
    assert answer.returncode == 0
    assert "python train/ablations.py --output runs/ablations --variant c4_pool" in answer.stdout
    answer = run_here("ablations", "--list")
    assert answer.returncode == 0
    assert all(f"--only {key}" in answer.stdout for key in TABLES) and all(name in answer.stdout for name in VARIANTS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--variant", "c6"), "--variant c6 is not one of c4, "),
        (("--image-size", 100, "--variant", "c5"), "c5: image_size=(100, 100) must be multiples of 32"),
        (("--seeds", 0), "argument --seeds"),
        (("--only", "colours"), "argument --only"),
    ],
)
def test_bad_input_is_one_line(arguments, reason, tmp_path, run_here):
    answer = run_here("ablations", "--output", tmp_path, *arguments)
    assert answer.returncode == 2 and reason in answer.stderr and "Traceback" not in answer.stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_output_is_needed(run_here):
    answer = run_here("ablations")
    assert answer.returncode == 2 and answer.stderr == "error: give --output FOLDER\n"


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
def test_a_killed_run_continues(tmp_path, run_here, eager_functions, monkeypatch):
    made = []
    build = MaskRCNN.__init__

    def note(model, *arguments, **options):
        made.append(options["neck"])
        build(model, *arguments, **options)

    monkeypatch.setattr(MaskRCNN, "__init__", note)
    monkeypatch.setitem(VARIANTS, "c5", {**VARIANTS["c5"], "backbone": {"name": "resnet10", "width": 8}})
    results = tmp_path / "results.jsonl"
    command = ("ablations", "--output", tmp_path, *TINY, "--variant", "c5")
    answer = run_here(*command)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert made == [None] and "1/1 c5, seed 0: bbox AP 0" in answer.stdout
    record = json.loads(results.read_text())
    assert (record["variant"], record["seed"]) == ("c5", 0)
    assert {"segm_AP75", "bbox_AP", "parameters", "images_per_second", "seconds"} <= set(record)

    # As if "fpn" had been trained before, and the process killed while it wrote the result of "c5".
    other = json.dumps({**record, "variant": "fpn", "arguments": VARIANTS["fpn"]})
    results.write_text(other + "\n" + json.dumps(record)[:-20])
    made.clear()
    command = (*command, "fpn")
    answer = run_here(*command)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert made == [None] and "1/1 c5" in answer.stdout
    records = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(one["variant"], one["seed"]) for one in records] == [("fpn", 0), ("c5", 0)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["budget"] == 2 and summary["settings"]["precision"]
    assert "| RoIAlign (`c5`) |" in (tmp_path / "ablations.md").read_text()
    assert np.asarray(Image.open(tmp_path / "ablations.png")).std() > 8
    assert run_here(*command).returncode == 0 and made == [None]  # nothing is left to do
    answer = run_here(*command, "--budget", 4)
    assert answer.returncode == 2 and "with budget 2 (not 4): use another --output" in answer.stderr


@pytest.mark.slow
def test_two_trainings_at_a_time_are_the_trainings_of_one_after_another(tmp_path):
    command = [sys.executable, str(ROOT / "train" / "ablations.py"), *map(str, TINY), "--variant", "c5", "c5_pool"]
    variables = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    found = {}
    for jobs in (1, 2):
        command += ["--jobs", str(jobs), "--output", str(tmp_path / str(jobs))]
        answer = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600, check=False)
        assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr[-2000:]
        lines = (tmp_path / str(jobs) / "results.jsonl").read_text().splitlines()
        records = sorted(map(json.loads, lines), key=lambda record: record["variant"])
        # Sums of several threads differ in their last bits, and scores after two images by more.
        found[jobs] = [(one["variant"], one["parameters"], one["arguments"], {*one}) for one in records]
    assert [one[0] for one in found[1]] == ["c5", "c5_pool"]
    assert found[2] == found[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
def test_every_variant_trains_and_is_scored(tmp_path, run_here, eager_functions):
    answer = run_here("ablations", "--output", tmp_path, *TINY)
    assert answer.returncode == 0, answer.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["variant"] for record in records] == [*VARIANTS]
    for record in records:
        assert ("segm_AP" in record) == (record["arguments"]["mask_stage"] is not None)
        assert ("keypoints_AP" in record) == ("heads" in record["arguments"])
    assert len(json.loads((tmp_path / "summary.json").read_text())["comparisons"]) == len(TABLES)
