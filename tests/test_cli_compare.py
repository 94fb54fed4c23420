"""The verb `compare`: the table, the files, and runs that cannot be compared."""

import csv
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn.cli import compare, main
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.training.event_log import EventLog, read_scalars
from keras_maskrcnn.training.run_record import RunRecord

NAN = math.nan
SCORES = {"bbox_AP": 0.5, "bbox_AP50": 0.75, "segm_AP": 0.25, "segm_AP50": 0.5}
HISTORY = {
    "epoch": [0, 1, 2],
    "loss": [3.0, 2.0, 1.0],
    "val_loss": [3.5, 2.5, 2.0],
    "val_bbox_AP": [0.125, 0.5, 0.25],
    "val_segm_AP": [0.25, 0.5, 0.625],
}


def write(folder, history=HISTORY, scores=SCORES, arguments=None, **changes):
    """The folder of a run with these figures."""
    folder.mkdir(parents=True)
    summary = {
        "command": f"python train/shapes.py --output {folder}",
        "arguments": {"steps": 60, "backbone": "resnet18", "image_size": [128, 128], "seed": 0, **(arguments or {})},
        "steps": 60,
        "parameters": 3_984_839,
        "model": "MaskRCNN",
        "per_class": {"circle": {"bbox_AP": 0.5}},
        "fit_seconds": 90.0,
        "images_per_second": 41.26,
        **scores,
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    if history:
        rows = [list(history), *zip(*history.values(), strict=True)]
        text = "\r\n".join(",".join("" if value is None else str(value) for value in row) for row in rows)
        (folder / "history.csv").write_text(text + "\r\n", newline="")
    return folder


def cells(line):
    return re.split(r"\s{2,}", line)


def test_a_table_of_two_runs_and_their_differences(tmp_path, capsys):
    more = {"learning_rate": 0.01, "seed": 3, "image_size": [128, 160]}
    scores = {**SCORES, "segm_AP": None, "keypoints_AP": 0.125}
    paths = [write(tmp_path / "a", arguments={"learning_rate": 0.002}), write(tmp_path / "b", None, scores, more)]
    write(tmp_path / "b" / "logs" / "other")  # is no part of the run
    log = EventLog(tmp_path / "b" / "logs")
    log.scalar("loss", 2.0, 1)
    log.close()
    assert main(["compare", *map(str, paths)]) == 0
    printed = capsys.readouterr()
    table, differences = printed.out.split("\n\n")
    head, *rows = [cells(line) for line in table.splitlines()]
    a, b = (dict(zip(head, row, strict=True)) for row in rows)
    assert a == {
        "run": "a", "recipe": "shapes", "model": "MaskRCNN", "backbone": "resnet18", "steps": "60", "minutes": "1.5",
        "images per second": "41.3", "parameters": "3,984,839", "bbox AP": "0.5", "bbox AP50": "0.75",
        "segm AP": "0.25", "segm AP50": "0.5", "keypoints AP": "-", "best epoch": "2", "epochs": "3", "seed": "0",
    }  # fmt: skip
    assert (b["segm AP"], b["keypoints AP"], b["best epoch"], b["epochs"], b["seed"]) == ("-", "0.125", "-", "1", "3")
    assert [cells(line) for line in differences.splitlines()] == [
        ["arguments that differ", "a", "b"],
        ["--image-size", "[128, 128]", "[128, 160]"],
        ["--seed", "0", "3"],
        ["--learning-rate", "0.002", "0.01"],
    ]
    assert printed.err == ""


def test_arguments_of_one_recipe_only_are_no_difference(tmp_path):
    command = "python train/coco.py"
    records = {
        "a": RunRecord.read(write(tmp_path / "a", arguments={"val_images": 20})),
        "b": RunRecord.read(write(tmp_path / "b", command=command, arguments={"norm": "batch", "anchors": "data"})),
        "c": RunRecord.read(write(tmp_path / "c", command=command, arguments={"norm": "group"})),
    }
    # `norm` differs between the runs of coco.py, one of which was made before it had `anchors`.
    assert compare.differing(records) == {"norm": {"b": "batch", "c": "group"}, "anchors": {"b": "data"}}


def test_files_for_people_and_programs(tmp_path, capsys):
    paths = [write(tmp_path / "one" / "run"), write(tmp_path / "two" / "run", arguments={"seed": 1})]
    output, numbers = tmp_path / "out" / "compared", tmp_path / "json" / "runs.json"
    assert main(["compare", *map(str, paths), "--output", str(output), "--json", str(numbers), "--by", "minutes"]) == 0
    found = json.loads(numbers.read_text())
    assert [row["run"] for row in found["runs"]] == [row["path"] for row in found["runs"]] == list(map(str, paths))
    assert found["runs"][0]["bbox_AP"] == 0.5 and found["runs"][0]["best_epoch"] == 2
    assert found["arguments_that_differ"] == {"seed": {str(paths[0]): 0, str(paths[1]): 1}}
    with open(output / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["parameters"], row["segm_AP"], row["seed"]) for row in rows] == [
        ("3984839", "0.25", "0"),
        ("3984839", "0.25", "1"),
    ]
    page = (output / "compare.html").read_text(encoding="utf-8")
    assert "data:image/svg" in page and str(paths[1]) in page and "--seed" in page and "<script" not in page
    pixels = np.asarray(Image.open(output / "curves.png").convert("RGB"))
    assert pixels.std() > 8 and pixels.shape[0] > 600, "two rows of panels"
    assert str(output / "curves.png") in capsys.readouterr().out


def test_curves_lie_where_the_epochs_ended(tmp_path):
    clock = {**HISTORY, "minutes": [0.5, 0.75, 1.5], "val_segm_AP": [NAN, 0.5, 0.5]}
    records = {
        "steps": RunRecord.read(write(tmp_path / "a")),
        "clock": RunRecord.read(write(tmp_path / "b", clock)),
    }
    by_minutes, by_steps = (compare.panels(records, by) for by in ("minutes", "steps"))
    assert list(by_steps) == ["loss", "validation loss", "bbox AP", "segm AP"]
    assert by_minutes["loss"]["steps"] == ([0.5, 1.0, 1.5], [3.0, 2.0, 1.0])
    assert by_minutes["loss"]["clock"][0] == [0.5, 0.75, 1.5]
    assert by_steps["loss"]["clock"][0] == [20, 40, 60]

    from keras_maskrcnn import plots

    axes = plots.compared(by_minutes, "minutes").axes
    first, second = axes[3].lines
    assert list(second.get_xdata()) == [0.75, 1.5], "the epoch without a score is left out"
    assert first.get_color() == axes[0].lines[0].get_color() != second.get_color()


@pytest.mark.parametrize(
    ("columns", "best"),
    [
        ({"val_bbox_AP": [0.5, 0.25], "val_segm_AP": [0.0, 0.5]}, 2),  # means 0.25, 0.375
        ({"val_bbox_AP": [0.5, 0.5]}, 1),
        ({"val_segm_AP": [NAN, 0.0]}, 2),
        ({"val_mean_IoU": [0.5, 0.75]}, 2),
        ({"val_bbox_AP": [NAN, NAN]}, None),
        ({}, None),
    ],
)
def test_the_best_epoch(tmp_path, columns, best):
    folder = write(tmp_path / "run", {"epoch": [0, 1], "loss": [2.0, 1.0], **columns})
    assert RunRecord.read(folder).best_epoch == best


def test_runs_that_cannot_be_compared_are_named_and_the_others_go_on(tmp_path, capsys):
    good = write(tmp_path / "good")
    unfinished = tmp_path / "unfinished" / "backup"
    unfinished.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "scoreless", scores={"bbox_AP": None})
    write(tmp_path / "damaged")
    (tmp_path / "damaged" / "summary.json").write_text('{"steps": 6')
    write(tmp_path / "foreign", fit_seconds=None)
    write(tmp_path / "historyless", history=None)
    write(tmp_path / "ragged")
    (tmp_path / "ragged" / "history.csv").write_text("epoch,loss\n0,1.0,7\n")
    (tmp_path / "ragged" / "logs").mkdir()
    (tmp_path / "file.txt").write_text("")
    reasons = {
        "missing": "missing: no such folder",
        "file.txt": "file.txt: is a file, not the folder of a run",
        "unfinished": "unfinished/summary.json: is missing: the run is not finished",
        "empty": "empty/summary.json: is missing: no recipe ran here",
        "scoreless": "scoreless/summary.json: holds no scores",
        "damaged": "damaged/summary.json: cannot be read as JSON",
        "foreign": "foreign/summary.json: is not the summary of a training: it has no numbers steps and fit_seconds",
        "historyless": "historyless/history.csv: cannot be read (No such file or directory)",
        "ragged": "ragged/history.csv: is no table of numbers",
    }
    assert main(["compare", *(str(tmp_path / name) for name in reasons), str(good)]) == 2
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len(errors) == len(reasons)
    for line, reason in zip(errors, reasons.values(), strict=True):
        assert line.startswith("error: ") and reason in line
    assert len(printed.out.splitlines()) == 2 and printed.out.splitlines()[1].startswith("good ")
    assert main(["compare", str(tmp_path / "missing")]) == 2 and capsys.readouterr().out == ""


def test_the_history_comes_from_tensorboard_where_the_file_is_damaged(tmp_path):
    folder = write(tmp_path / "run", history=None)
    log = EventLog(folder / "logs")
    for step, loss in enumerate((3.0, 2.0, 1.5), start=1):
        log.scalar("loss", loss, step)
    log.scalar("val_bbox_AP", 0.5, 2)
    log.image("photo", np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8), 2)
    log.close()
    log.scalar("loss", 1.75, 3)  # the third epoch is trained again
    log.close()
    record = RunRecord.read(folder)
    assert record.history["loss"] == [3.0, 2.0, 1.75] and record.best_epoch == 2
    np.testing.assert_array_equal(record.history["val_bbox_AP"], [NAN, 0.5, NAN])
    file = max((folder / "logs").iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:-9])  # as a killed process leaves it: the third epoch, which began again, has no value
    assert read_scalars(folder / "logs")["loss"] == [3.0, 2.0]
    file.write_bytes(content[:-9] + b"\xff" * 9)
    with pytest.raises(DataError, match=rf"{file.name}: is damaged"):
        read_scalars(folder / "logs")
    assert read_scalars(tmp_path / "nowhere") == {}


def test_neither_keras_nor_its_backend_is_imported(tmp_path):
    folder = write(tmp_path / "run")
    program = (
        "import sys; from keras_maskrcnn.cli import main; "
        f"code = main(['compare', {str(folder)!r}, '--output', {str(tmp_path / 'out')!r}]); "
        "sys.exit(code or 10 * bool({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "curves.png").is_file()


def test_a_clock_that_was_set_back_does_not_change_the_order_of_the_event_files(tmp_path, monkeypatch):
    for now, steps in ((2_000_000_000, (1, 2, 3)), (1_000_000_000, (3, 4)), (1_000_000_000, (5,))):
        monkeypatch.setattr("time.time", lambda now=now: now)
        log = EventLog(tmp_path)
        for step in steps:
            log.scalar("loss", now / 1e9 + step, step)
        log.close()
    assert read_scalars(tmp_path) == {"loss": [3.0, 4.0, 4.0, 5.0, 6.0]}
    stamps = sorted(path.name.split(".")[3] for path in tmp_path.iterdir())
    assert stamps == ["2000000000", "2000000001", "2000000002"]


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ["a"]},
        {"command": 3},
        {"arguments": [1]},
        {"arguments": 0.5},
        {"steps": 10**400},
        {"fit_seconds": 10**400},
    ],
)
def test_a_hostile_summary_is_one_line(tmp_path, changes, capsys):
    write(tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text()) | changes
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary))
    assert main(["compare", str(tmp_path / "a")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and "summary.json: is " in line and line.count("\n") == 1


def test_a_command_with_half_a_quotation_has_no_recipe(tmp_path):
    assert RunRecord.read(write(tmp_path / "a", command='train/shapes.py --output "a')).recipe is None


def test_a_pipe_as_history_is_not_waited_for(tmp_path):
    write(tmp_path / "a", history=None)
    os.mkfifo(tmp_path / "a" / "history.csv")
    (tmp_path / "a" / "logs").mkdir()
    os.mkfifo(tmp_path / "a" / "logs" / "events.out.tfevents.1")
    with pytest.raises(DataError, match=r"history\.csv: is not a regular file"):
        RunRecord.read(tmp_path / "a")
