"""The folder that `export --version` writes, and the client of examples/, against TensorFlow Serving.

The server is `tensorflow_model_server` if it is on the PATH, and otherwise `StandIn`, which reads the same requests by
the rules of TensorFlow Serving's REST API and runs the SavedModel's signature in this process.
"""

import base64
import contextlib
import functools
import http.server
import importlib.util
import json
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.cli import main
from keras_maskrcnn.cli.common import load

ROOT = pathlib.Path(__file__).parents[2]
SERVER = shutil.which("tensorflow_model_server")
NAMES = ["circle", "square", "triangle"]


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


client = module(ROOT / "examples" / "tf_serving_client.py")


@functools.cache
def saved_model(folder):
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


class StandIn(http.server.BaseHTTPRequestHandler):
    """`POST /v1/models/NAME[/versions/N]:predict` in row format: `instances` in, `predictions` out."""

    folder = None  # of the models, of a subclass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self._answer(200, {"predictions": self._predictions(body)})
        except ValueError as error:
            self._answer(400, {"error": str(error)})

    def _predictions(self, body):
        function = self._loaded().signatures[body["signature_name"]]
        (name, spec), *others = function.structured_input_signature[1].items()
        assert not others, "an instance that is not an object names no input"
        values = [self._value(instance) for instance in body["instances"]]
        import tensorflow as tf

        outputs = {key: value.numpy() for key, value in function(**{name: tf.constant(values, spec.dtype)}).items()}
        assert {len(output) for output in outputs.values()} == {len(values)}, "outputs of other batch sizes are refused"
        return [{key: output[row].tolist() for key, output in outputs.items()} for row in range(len(values))]

    def _loaded(self):
        name, _, version = self.path.removeprefix("/v1/models/").partition(":")[0].partition("/versions/")
        versions = [path.name for path in (self.folder / name).glob("*") if path.name.isdecimal()]
        chosen = version or max(versions, key=int, default="")
        if chosen not in versions:
            raise ValueError(f"Servable not found for request: {name} {version}")
        return saved_model(self.folder / name / chosen)

    @staticmethod
    def _value(instance):
        assert set(instance) == {"b64"}
        return base64.b64decode(instance["b64"], validate=True)

    def _answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Requests are not printed."""


@contextlib.contextmanager
def stand_in(folder):
    handler = type("Handler", (StandIn,), {"folder": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def tensorflow_serving(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--rest_api_port={port}", "--port=0", "--model_name=tiny", f"--model_base_path={folder / 'tiny'}"]
    process = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/v1/models/tiny") as answer:
                if "AVAILABLE" in answer.read().decode():
                    break
            assert process.poll() is None, "tensorflow_model_server has stopped"
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def models(model_file, tmp_path_factory):
    """A folder of models, with version 3 of one."""
    folder = tmp_path_factory.mktemp("models")
    assert export(model_file, folder / "tiny", 3) == 0
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def address(models):
    print("tensorflow_model_server" if SERVER else "stand-in: tensorflow_model_server is not on the PATH")
    with (tensorflow_serving if SERVER else stand_in)(models) as address:
        yield address


def export(model, folder, version):
    return main(["export", "--model", str(model), "--output", str(folder), "--version", str(version)])


def test_a_version_is_a_saved_model_in_a_numbered_folder(models):
    assert [path.name for path in (models / "tiny").iterdir()] == ["3"]
    assert (models / "tiny" / "3" / "assets" / "class_names.txt").read_text().split() == NAMES
    assert load(models / "tiny" / "3").class_names == NAMES


@pytest.mark.parametrize(
    ("version", "reason"),
    [(3, "{folder}/3 exists already; give a higher version"), (0, "must be 1 or more"), (-1, "must be 1 or more")],
)
def test_other_versions_are_refused_in_one_line(version, reason, models, capsys):
    folder = models / "tiny"
    before = (folder / "3" / "saved_model.pb").stat().st_mtime_ns
    assert export("none.keras", folder, version) == 2  # before the model is read
    assert capsys.readouterr().err == f"error: --version {version}: {reason.format(folder=folder)}\n"
    assert (folder / "3" / "saved_model.pb").stat().st_mtime_ns == before


def test_a_failed_export_leaves_no_version(model_file, tmp_path, monkeypatch):
    def fails(self, folder, *_, **__):
        pathlib.Path(folder).mkdir(parents=True)
        assert not pathlib.Path(folder).name.isdecimal(), "a server would load it"
        raise OSError("no space left")

    monkeypatch.setattr(MaskRCNN, "export", fails)
    assert export(model_file, tmp_path / "tiny", 1) == 2
    assert list((tmp_path / "tiny").iterdir()) == []


def test_an_answer_has_the_detections_of_the_model(address, models, photo):
    expected = load(models / "tiny" / "3").detect(np.asarray(Image.open(photo)))
    rows = client.predict(f"{address}/v1/models/tiny", [photo.read_bytes(), b"not an image"])
    found = client.detections(rows[0], 0.0, NAMES)
    assert [one["class"] for one in found] == [NAMES[label - 1] for label in expected["labels"]]
    np.testing.assert_allclose([one["score"] for one in found], expected["scores"], atol=1e-4)
    boxes = np.array([one["box"] for one in found]) * [70, 50, 70, 50]
    np.testing.assert_allclose(boxes, expected["boxes"], atol=0.05)
    assert np.shape(rows[0]["detection_masks"]) == (8, 28, 28)
    assert len(found) == 8 and client.detections(rows[1], 0.0) == []


def test_the_client_prints_names_and_relative_boxes(address, models, photo, capsys):
    words = ["--server", address, "--model", "tiny", "--version", "3", "--score", "0", str(photo)]
    assert client.main([*words, "--classes", str(models / "tiny" / "3" / "assets" / "class_names.txt")]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert total == f"{photo}: 8 objects" and len(lines) == 8
    name, score, at, *box = lines[0].removeprefix(f"{photo}: ").split()
    assert name in NAMES and at == "at" and 0 <= float(score) <= 1 and all(-1 < float(side) < 2 for side in box)


def test_the_client_reports_errors_in_one_line_and_goes_on(address, photo, capsys):
    words = ["--server", address, "--model", "tiny", "--score", "1", "none.jpg", str(photo)]
    assert client.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: none.jpg: [Errno 2] No such file or directory: 'none.jpg'\n"
    assert printed.out == f"{photo}: 0 objects\n"
    assert client.main(["--server", address, "--model", "other", str(photo)]) == 2
    error = capsys.readouterr().err
    assert "v1/models/other: Servable not found for request" in error and error.count("\n") == 1
    assert client.main(["--server", "http://127.0.0.1:9", "--model", "tiny", str(photo)]) == 2
    assert "refused" in capsys.readouterr().err
    assert client.main(["--model", "tiny", "--classes", "none.txt", str(photo)]) == 2
    assert capsys.readouterr().err == "error: none.txt: No such file or directory\n"


def test_a_model_without_objects_is_named_by_its_outputs():
    with pytest.raises(ValueError, match="finds no objects; its outputs are semantic_classes"):
        client.detections({"semantic_classes": [[1]]}, 0.5)


def test_classes_beyond_the_names_are_numbers():
    row = {"num_detections": 1, "detection_classes": [2], "detection_scores": [0.5], "detection_boxes": [[0, 1, 2, 3]]}
    assert client.detections(row, 0.5, ["one"]) == [{"class": "class 2", "score": 0.5, "box": [1, 0, 3, 2]}]
    assert client.detections(row, 0.6) == []
