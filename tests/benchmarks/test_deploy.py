"""`benchmarks/deploy.py`: its files, a worker's answers, the table, and a tiny run."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys

import deploy
import machine
import pairs
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.cli.common import load
from keras_maskrcnn.heads.detection import ALL
from keras_maskrcnn.inference import export


def options(*words):
    return deploy.parse([str(word) for word in words])


def test_each_variant_has_a_precision_and_a_file_of_its_format():
    assert len({str(variant) for variant in deploy.VARIANTS}) == len(deploy.VARIANTS)
    suffixes = {"keras": ".keras", "saved_model": "", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}
    for variant in deploy.VARIANTS:
        assert variant.precision in deploy.POLICIES
        assert pathlib.Path(variant.file).suffix == suffixes[variant.format]


def test_files_are_written_and_what_cannot_be_is_left_out_with_the_reason(model_file, tmp_path, monkeypatch, capsys):
    keras_file, saved_model = (deploy.Variant("x", format, file, "float32") for format, file in (
        ("keras", "model.keras"), ("saved_model", "model")
    ))  # fmt: skip
    lacking = deploy.Variant("Engine", "keras", "model.keras", "int8", ("no_such_engine",))
    refused = deploy.Variant("Other", "no_such_format", "model.x", "float32")
    no_units = deploy.Variant("Keras", "keras", "model.keras", "bfloat16")
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    variants = [keras_file, saved_model, lacking, refused, no_units]
    files, skipped = deploy.written("shapes", variants, options("--shapes", model_file), tmp_path)
    assert list(files) == [keras_file, saved_model]
    for path in files.values():
        detection = load(path).predictor.detection
        assert (detection.score_threshold, detection.max_detections) == (ALL, 8)
        everything = [file for file in tmp_path.rglob("*") if file.is_file() and path.parent in file.parents]
        assert deploy.megabytes(path) == pytest.approx(sum(file.stat().st_size for file in everything) / 1e6, abs=1e-3)
    reasons = {entry["variant"]: entry["reason"] for entry in skipped}
    assert reasons["Engine, int8"] == "no_such_engine is not installed"
    assert "no_such_format" in reasons["Other, float32"]
    assert reasons["Keras, bfloat16"] == "the processor has no bfloat16 instructions"
    assert "shapes: Engine, int8 is left out: no_such_engine is not installed\n" in capsys.readouterr().out


def test_litert_files_have_a_canvas_and_their_weights(model_file, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(MaskRCNN, "export", lambda self, path, **words: given.append(words))
    monkeypatch.setattr(deploy, "why_not", lambda variant: None)
    variants = [variant for variant in deploy.VARIANTS if variant.format == "litert"]
    deploy.written("shapes", variants, options("--shapes", model_file), tmp_path)
    canvas = {"format": "litert", "image_size": (256, 256)}
    assert given == [canvas, {**canvas, "weights": "float16"}, {**canvas, "weights": "int8"}]


def test_a_converter_that_fails_leaves_its_variant_out(model_file, tmp_path, monkeypatch):
    class ConversionError(Exception):
        pass

    def fail(*_, **__):
        raise ConversionError("no such\noperation")

    monkeypatch.setattr(MaskRCNN, "export", fail)
    other, kept = (deploy.Variant(*words, "float32") for words in (("a", "onnx", "m.onnx"), ("b", "keras", "m.keras")))
    files, skipped = deploy.written("shapes", [other, kept], options("--shapes", model_file), tmp_path)
    assert list(files) == [kept]
    assert [entry["reason"] for entry in skipped] == ["ConversionError: no such operation"]


def test_arguments_of_a_reader_are_given_to_it(monkeypatch):
    monkeypatch.setattr(export, "opened", lambda path, **options: (path, options), raising=False)
    assert deploy.opened("model.xml", {"precision": "bfloat16"}) == ("model.xml", {"precision": "bfloat16"})


def test_a_worker_loads_scores_and_times_a_file(model_file, run_here, monkeypatch, eager_functions):
    question = json.dumps({"data": "shapes", "file": str(model_file), "reading": {}})
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{question}\n{question}\n"))
    lines = run_here("deploy", "--worker", "ours", "--images", 3, "--limit", 2).stdout.splitlines()
    made, timed = (json.loads(line.removeprefix(pairs.ANSWER)) for line in lines if line.startswith(pairs.ANSWER))
    assert made["exists"] and timed["seconds"] > 0
    facts = timed["facts"]
    assert facts["images"] == 3 and facts["detections"] <= 3 * 8
    assert all(0 <= facts["AP"][kind] <= 1 for kind in ("bbox", "segm"))


@pytest.fixture
def workers(monkeypatch):
    """Workers that answer 0.25 s for two images; the list of (variant, question) in order."""
    asked = []

    class Worker(contextlib.nullcontext):
        def __init__(self, side, command):
            super().__init__(self)
            assert command[1].endswith("deploy.py") and command[2:4] == ["--worker", "ours"]
            self.side = side

        def ask(self, question):
            asked.append((self.side, json.loads(question)))
            facts = {"images": 2, "detections": 5, "AP": {"bbox": 0.5, "segm": None}}
            return {"seconds": 0.25, "facts": facts}

    monkeypatch.setattr(pairs, "Worker", Worker)
    return asked


def check_run(run, model_file, folder):
    """Runs two formats, and draws the table again from the results; returns the rows."""
    (folder / "docs").mkdir()
    page, output = folder / "docs" / "deploy.md", folder / "out" / "deploy.json"
    page.write_text("before\n<!-- deploy: begin -->\nold\n<!-- deploy: end -->\nafter\n")
    words = ["--shapes", model_file, "--formats", "keras", "saved_model", "--rounds", 2, "--images", 2, "--limit", 2]
    done = run(*words, "--output", output, "--docs", folder / "docs")
    assert done.returncode == 0, done.stderr[-2000:]
    report, text = json.loads(output.read_text()), page.read_text()
    assert report["script"] == "benchmarks/deploy.py" and "tensorflow" in report["versions"]
    assert {one["format"] for one in report["rows"]} == {"keras", "saved_model"}
    assert all(one["mb"] > 0.01 and one["ms"]["median"] > 0 for one in report["rows"])
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "\n| shapes | Keras | " in text and "\n| shapes | SavedModel | " in text
    done = run("--redraw", output, "--docs", folder / "docs")
    assert done.returncode == 0 and page.read_text() == text
    return report["rows"]


def test_variants_are_timed_in_turn_and_tabled(workers, model_file, tmp_path, run_here, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(MaskRCNN, "export", lambda self, path, format: path.write_bytes(bytes(100_000)))
    rows = check_run(lambda *words: run_here("deploy", *words), model_file, tmp_path)
    order = [side for side, _ in workers]
    names = list(dict.fromkeys(order))
    assert len(names) == len(rows) and order == [*names, *names, *names]  # built, then two rounds
    assert all(one["ms"]["median"] == 125.0 and one["device"] == "CPU" for one in rows)
    assert "| – |" in deploy.table({"machine": "m", "date": "d", "versions": {}, "skipped": [], "rows": rows})


def test_the_table_lists_what_is_left_out():
    report = {"machine": "m", "date": "d", "versions": {"keras": "3"}, "rows": []}
    skipped = [{"data": "shapes", "variant": "LiteRT, int8", "reason": "ai_edge_litert is not installed"}]
    assert deploy.table({**report, "skipped": skipped}).endswith(
        "- shapes, LiteRT, int8: ai_edge_litert is not installed"
    )


def test_bad_arguments_are_one_line(run_here):
    for wrong, said in (
        ((), "give --nuclei FOLDER, --shapes FILE, or both"),
        (("--shapes", "none.keras"), "--shapes none.keras: no such file or folder"),
        (("--redraw", "none.json"), "--redraw none.json: no such file"),
        (("--shapes", ".", "--formats", "gguf"), "invalid choice: 'gguf'"),
    ):
        answer = run_here("deploy", *wrong)
        assert answer.returncode == 2 and said in answer.stderr.splitlines()[-1]


@pytest.mark.slow
def test_whole_run_in_processes_of_its_own(model_file, tmp_path):
    def run(*words):
        command = [sys.executable, deploy.__file__, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    rows = check_run(run, model_file, tmp_path)
    scores = {tuple(one["AP"].values()) for one in rows if one["precision"] == "float32"}
    assert len(scores) == 1, "a SavedModel scores as its model"
