"""`benchmarks/one_stage.py`: its commands, results, table and plot, and a tiny run."""

import json
import pathlib
import subprocess
import sys

import one_stage
import pairs
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def options(tmp_path, *words):
    return one_stage.parse(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out.json"), *words])


@pytest.fixture
def folders(tmp_path):
    """A folder with the folders of the data sets."""
    for name in ("PennFudanPed", "nuclei"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def without_work(monkeypatch):
    """Trainings whose figures follow from the seed, times of 40 ms and 10 ms an image; the list of commands."""
    commands = []

    def train(words, **kwargs):
        commands.append(words)
        given = dict(zip(words[2::2], words[3::2], strict=False))
        seed, folder = int(given["--seed"]), pathlib.Path(given["--output"])
        folder.mkdir(parents=True, exist_ok=True)
        half = 0.5 if given["--model"] == "yolact" else 1.0
        figures = {name: half * (0.5 + 0.25 * seed) for name in one_stage.FIGURES}
        summary = {
            "arguments": {"image_size": [128, 160]}, "steps": 100, "batch_size": 8, "backbone": "resnet18",
            "parameters": 7, "precision": "float32", "images_per_second": 2.5, **figures,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        return subprocess.CompletedProcess(words, 0, stderr="")

    def compare(script, options, names, **kwargs):
        assert pathlib.Path(script).name == "one_stage.py" and kwargs["fresh"]
        time = {"median": 200.0, "lowest": 180.0, "highest": 240.0}
        facts = {"images": 5, "detections": 9, "first_call_s": 1.0}
        quarter = {key: value / 4 for key, value in time.items()}
        ratio = {"median": 0.25, "lowest": 0.25, "highest": 0.25}
        return [{"ours": time, "peer": quarter, "ratio": ratio, "facts": {"ours": facts, "peer": facts}}]

    monkeypatch.setattr(subprocess, "run", train)
    monkeypatch.setattr(pairs, "compare", compare)
    return commands


def test_both_models_are_trained_with_the_same_options(tmp_path, folders):
    given = options(tmp_path, "--data", str(folders), "--minutes", "3")
    for name in one_stage.SETS:
        two, one = (one_stage.command(given, name, model, 1) for model in one_stage.MODELS)
        assert [word for word, other in zip(two, one, strict=True) if word != other] == [
            str(tmp_path / "runs" / f"{name}_mask_rcnn_1"),
            "mask_rcnn",
        ]
        assert two[-2:] == ["--minutes", "3.0"] and ("--data" in two) == (name != "shapes")


def test_results_are_means_over_seeds_and_times_are_an_image_s(tmp_path, folders, without_work, capsys):
    report = one_stage.run(options(tmp_path, "--data", str(folders), "--only", "nuclei", "--seeds", "0", "1"))
    assert len(without_work) == 4 and [words[5] for words in without_work[:2]] == ["mask_rcnn", "yolact"]
    means = one_stage.means(report)
    two, one = (means["nuclei", model] for model in one_stage.MODELS)
    assert (two["segm_AP"], one["segm_AP"], two["ms"], one["ms"]) == ([0.5, 0.75], [0.25, 0.375], 40.0, 10.0)
    *_, two, one = one_stage.table(report).splitlines()
    both = "0.625 ± 0.125 / 0.625 ± 0.125"
    assert two == f"| nuclei | Mask R-CNN | resnet18, 128×160 | {both} | {both} | 40.0 | 800 |"
    assert one.startswith("| nuclei | YOLACT | ") and one.endswith("| 10.0 | 800 |")
    assert "seeds 0, 1." in capsys.readouterr().out


def test_results_of_other_data_sets_are_kept_and_the_page_is_filled(tmp_path, folders, without_work):
    words = ("--data", str(folders), "--minutes", "2")
    one_stage.run(options(tmp_path, *words, "--only", "nuclei"))
    report = one_stage.run(options(tmp_path, *words, "--only", "shapes"))
    assert report == json.loads((tmp_path / "out.json").read_text())
    assert [entry["data"] for entry in report["times"]] == ["shapes", "nuclei"]
    page = tmp_path / "which_model.md"
    page.write_text("before\n<!-- one_stage: begin -->\nold\n<!-- one_stage: end -->\nafter\n")
    one_stage.document(report, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert one_stage.table(report) in text and "](one_stage.svg)" in text
    assert "<svg" in (tmp_path / "one_stage.svg").read_text()
    longer = one_stage.run(options(tmp_path, *words[:2], "--minutes", "5", "--only", "shapes"))
    assert [entry["data"] for entry in longer["times"]] == ["shapes"], "other minutes are no part of the comparison"


def test_a_recipe_that_fails_is_one_line(tmp_path, folders, monkeypatch):
    failed = subprocess.CompletedProcess([], 2, stderr="a warning\nerror: nuclei: no such folder\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(SystemExit, match=r"^nuclei, mask_rcnn, seed 0: error: nuclei: no such folder$"):
        one_stage.run(options(tmp_path, "--data", str(folders), "--only", "nuclei"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --runs FOLDER"),
        (("--runs", "r"), "--data None: holds no folder PennFudanPed"),
        (("--redraw", "nowhere.json"), "--redraw nowhere.json: no such file"),
    ],
)
def test_bad_arguments_are_one_line(words, said, capsys):
    with pytest.raises(SystemExit):
        one_stage.parse(list(words))
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_table_of_the_page_is_that_of_the_results():
    results, page = ROOT / "benchmarks" / "results" / "one_stage.json", ROOT / "docs" / "which_model.md"
    between = page.read_text().split("<!-- one_stage: begin -->\n")[1].split("\n<!-- one_stage: end -->")[0]
    if results.is_file():
        assert one_stage.table(json.loads(results.read_text())) in between
    else:
        assert between.startswith("Not measured yet") and not any(character.isdigit() for character in between)


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    words = ["--runs", tmp_path / "runs", "--output", tmp_path / "out.json", "--only", "shapes", "--rounds", 1]
    command = [sys.executable, one_stage.__file__, *map(str, words), "--tiny"]
    for _ in range(2):  # the second run trains nothing
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("holds a finished run") == 2
    report = json.loads((tmp_path / "out.json").read_text())
    assert [row["model"] for row in report["rows"]] == ["mask_rcnn", "yolact"]
    (times,) = report["times"]
    assert all(one["median"] > 0 and one["images"] == 20 for one in times["ms"].values())
