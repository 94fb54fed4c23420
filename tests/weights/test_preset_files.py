"""Preset folders as files: damage, hostile content, replacing, names, addresses; with a model that builds quickly."""

import json
import pathlib
import shutil
import sys
import types

import h5py
import keras
import numpy as np
import pytest

from keras_maskrcnn.cli import main
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.weights import preset_folder

NAMES = ["apple", "pear", "quince"]
CARD = {
    "description": "three fruits",
    "licence": "CC0-1.0",
    "source": "drawn by the test",
    "metrics": {"segm_AP": 0.5, "of": "nothing"},
}


@keras.saving.register_keras_serializable(package="test_preset_files")
class Whole(InstanceModel):
    """One detection of class 1, the whole image; `given` is a layer from elsewhere."""

    OUTPUTS = OUTPUTS

    def __init__(self, num_classes, width=4, given=None, **common):
        super().__init__(num_classes, **common)
        self.width, self.given = width, given
        self.first, self.score = keras.layers.Dense(width), keras.layers.Dense(1)
        self.first.build((None, 3))
        self.score.build((None, width))
        self.built = True

    def canvas_stride(self):
        return 1

    def call(self, inputs, training=False):
        scores = keras.ops.sigmoid(self.score(self.first(keras.ops.mean(inputs["images"], axis=(1, 2)))))
        corner = keras.ops.flip(inputs["sizes"], axis=1)
        boxes = keras.ops.concatenate([keras.ops.zeros_like(corner), corner], axis=1)[:, None]
        labels = keras.ops.ones_like(scores, dtype="int32")
        return {"boxes": boxes, "scores": scores, "labels": labels, "valid": labels > 0}

    def get_config(self):
        given = self.given and keras.saving.serialize_keras_object(self.given)
        return {**super().get_config(), "width": self.width, "given": given}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        given = config.get("given") and keras.saving.deserialize_keras_object(config["given"])
        return cls(**{**config, "given": given})


@pytest.fixture(scope="module")
def model():
    model = Whole(3, class_names=NAMES, image_size=(64, 64))
    model.compile(keras.optimizers.AdamW(1e-3))
    return model


def numbers(model):
    return [np.asarray(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def same_weights(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Its preset."""
    path = tmp_path_factory.mktemp("presets") / "fruits"
    model.save_preset(path, **CARD)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def change(path, **values):
    """Changes entries of a JSON file; those of `weights` are merged."""
    content = json.loads(path.read_text())
    weights = {**content.get("weights", {}), **values.pop("weights", {})}
    path.write_text(json.dumps({**content, **values, **({"weights": weights} if weights else {})}))


def rejection(path, **arguments):
    with pytest.raises(ValueError) as caught:
        InstanceModel.from_preset(path, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Bad files ----------------------------------------------------------------------------------------------------------


def test_a_weight_file_that_changed_was_cut_or_is_missing(copy):
    path = copy / "model.weights.h5"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    reason = rejection(copy)
    assert reason.startswith(f"{path}: has the sha256 ") and reason.endswith("as in metadata.json")
    path.write_bytes(content[:-9])
    assert rejection(copy) == f"{path}: has {len(content) - 9} bytes, not {len(content)} as in metadata.json"
    path.unlink()
    assert rejection(copy) == f"{path}: no such file"


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_a_json_file_that_is_damaged_or_missing(copy, name):
    for content in ("", '{"a": ', "[1]", "\x00", "[" * 10**5):
        (copy / name).write_text(content)
        assert rejection(copy).startswith(f"{copy / name}: is damaged, not ")
    (copy / name).write_text("{}")
    assert rejection(copy).startswith(f"{copy / name}: has no ")
    (copy / name).unlink()
    assert rejection(copy) == f"{copy}: is no preset: there is no config.json and metadata.json"


@pytest.mark.skipif(not pathlib.Path("/proc/self/mem").exists(), reason="a file that cannot be read is needed")
@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_a_json_file_that_the_system_cannot_read(copy, name):
    (copy / name).unlink()
    (copy / name).symlink_to("/proc/self/mem")  # a regular file, whose first bytes are no memory
    assert rejection(copy).startswith(f"{copy / name}: cannot be read (")


@pytest.mark.parametrize("name", ["../fruits/model.weights.h5", "/etc/passwd", "config.json", None, 3, ["x"]])
def test_only_the_two_names_of_weight_files_are_read(copy, name):
    change(copy / "metadata.json", weights={"file": name})
    assert rejection(copy).startswith(f"{copy / 'metadata.json'}: names the weights ")


def test_metadata_without_a_checksum(copy):
    change(copy / "metadata.json", weights={"sha256": "0"})
    assert rejection(copy) == f"{copy / 'metadata.json'}: has no sha256 of the weights"


def test_a_class_that_is_not_registered_or_no_model(copy):
    for name in ("nobody>Model", "keras_maskrcnn>FPN", "os>system"):
        change(copy / "config.json", registered_name=name, module="os", class_name="system")
        assert rejection(copy).startswith(f"{copy}: holds a {name}, which is no model that is registered with Keras")


@pytest.mark.parametrize(
    "stored",
    [
        {"module": "os", "class_name": "system", "config": {"command": "x"}, "registered_name": None},
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}},
        {"class_name": "__lambda__", "config": {"value": "x"}},
    ],
)
def test_configurations_that_name_code_are_refused(copy, stored):
    config = json.loads((copy / "config.json").read_text())["config"]
    change(copy / "config.json", config={**config, "backbone": stored})
    assert rejection(copy).startswith(f"{copy}: cannot be built (")


def test_options_that_do_not_fit_the_weights(folder):
    reason = rejection(folder, width=8)
    assert reason.startswith(f"{folder / 'model.weights.h5'}: ") and reason.endswith("of the model with these options")
    assert "cannot be built (ValueError: num_classes=0 must be" in rejection(folder, num_classes=0)
    assert "cannot be built (TypeError" in rejection(folder, unheard_of=1)


def test_weights_of_another_configuration(copy, model):
    config = json.loads((copy / "config.json").read_text())["config"]
    change(copy / "config.json", config={**config, "width": 8})
    assert rejection(copy).startswith(f"{copy / 'model.weights.h5'}: does not fit the model (ValueError: ")


def restated(folder):
    """Writes size and checksum of the weights that are there."""
    path = folder / "model.weights.h5"
    stated = {"bytes": path.stat().st_size, "sha256": preset_folder.sha256(path)}
    change(folder / "metadata.json", weights=stated)
    return path


def test_weight_files_with_links_and_arrays_elsewhere(copy, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4000))
    with h5py.File(copy / "model.weights.h5") as file:
        names = []
        file.visit(lambda name: names.append(name) if isinstance(file[name], h5py.Dataset) else None)
        name, shape = next((name, file[name].shape) for name in names if file[name].ndim == 2)
    whole = (copy / "model.weights.h5").read_bytes()
    for replace, reason in [
        (lambda file: file.__setitem__(name, h5py.SoftLink("/vars/0")), "is a link to another place"),
        (lambda file: file.__setitem__(name, h5py.ExternalLink("other.h5", "/x")), "is a link to another place"),
        (
            lambda file: file.create_dataset(name, shape, "f4", external=[(str(tmp_path / "secret"), 0, 10**6)]),
            "is stored in another file",
        ),
        (lambda file: file.create_dataset(name, (2**30, 2**20), "f4", chunks=(1, 1)), "of which 0 are stored"),
        (lambda file: file.create_dataset(name, data=np.full(shape, np.nan, "f4")), "not finite"),
    ]:
        (copy / "model.weights.h5").write_bytes(whole)
        with h5py.File(copy / "model.weights.h5", "a") as file:
            del file[name]
            replace(file)
        path = restated(copy)
        reason_found = rejection(copy)
        assert reason_found.startswith(f"{path}: ") and reason in reason_found


def test_other_paths(tmp_path):
    assert rejection(tmp_path).startswith(f"{tmp_path}: is no preset")
    (tmp_path / "model.keras").touch()
    assert "is a file, not a preset" in rejection(tmp_path / "model.keras")
    assert rejection("nowhere").startswith("there is no preset 'nowhere'; the presets are ")
    assert rejection(tmp_path / "nowhere").startswith("there is no preset ")


# Writing ------------------------------------------------------------------------------------------------------------


def test_a_preset_is_replaced_as_a_whole_and_other_files_stay(model, copy):
    (copy / "README.md").write_text("card")
    (copy / ".git").mkdir()
    (copy / ".git" / "HEAD").write_text("main")
    model.save_preset(copy, format="safetensors")
    names = {"config.json", "metadata.json", "model.safetensors", "README.md", ".git"}
    assert {path.name for path in copy.iterdir()} == names and (copy / ".git" / "HEAD").read_text() == "main"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]  # no temporary folder is left
    same_weights(model, InstanceModel.from_preset(copy))


@pytest.mark.parametrize("step", ["write", "sha256", "load", "verify"])
def test_a_failure_leaves_the_earlier_preset(model, copy, monkeypatch, step):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(preset_folder, step, full)
    with pytest.raises(OSError, match="no space left"):
        model.save_preset(copy, description="another")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_model_that_does_not_come_back_is_not_saved(tmp_path, monkeypatch):
    model = Whole(3)
    model.score.bias.assign([5.0])  # no initial value
    monkeypatch.setattr(preset_folder, "load", lambda model, path: None)
    with pytest.raises(ValueError, match="is not restored from the preset: the model is not saved"):
        model.save_preset(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_folders_and_arguments_that_are_refused(model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    for path in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(ValueError, match="holds no preset, so it is not replaced"):
            model.save_preset(path)
    for wrong in ({"dtype": "int8"}, {"format": "pickle"}, {"metrics": {"AP": float("nan")}}, {"source": object()}):
        with pytest.raises(ValueError, match=r"dtype is float32 or float16|cannot be stored as JSON"):
            model.save_preset(tmp_path / "new", **wrong)
    broken = Whole(3)
    weight = broken.score.bias
    weight.assign(np.full(weight.shape, np.inf))
    with pytest.raises(ValueError, match="not finite: the model is not saved"):
        broken.save_preset(tmp_path / "new")

    class Unregistered(Whole):
        """Keras cannot find this class by name."""

    with pytest.raises(ValueError, match="Unregistered is not registered with Keras"):
        Unregistered.from_config(model.get_config()).save_preset(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


# Names and addresses ------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(folder, tmp_path, monkeypatch):
    """A package that ships the model as "fruits"."""
    inside = tmp_path / "package"
    shutil.copytree(folder, inside / "fruits")
    published = presets._folder() / "mask_rcnn_resnet50_fpn.json"
    (inside / "mask_rcnn_resnet50_fpn.json").write_bytes(published.read_bytes())
    monkeypatch.setattr(presets, "_folder", lambda: inside)


def test_a_shipped_preset_is_found_by_its_name(shipped, model):
    assert presets.names() == ["fruits", "mask_rcnn_resnet50_fpn"] and presets.shipped() == ["fruits"]
    same_weights(model, InstanceModel.from_preset("fruits"))
    assert presets.read("fruits")["weights"]["licence"] == "CC0-1.0"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The hub's cache with the preset as user/fruits, and `huggingface_hub` or a stand-in that reads the cache."""
    root = tmp_path / "hub" / "models--user--fruits"
    shutil.copytree(folder, root / "snapshots" / "0123abcd")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123abcd")
    (root / "refs" / "v1").write_text("0123abcd")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calls = []

    def snapshot_download(repo_id, revision=None, allow_patterns=None):
        calls.append((repo_id, revision, allow_patterns))
        place = tmp_path / "hub" / f"models--{repo_id.replace('/', '--')}"
        if not (place / "refs" / (revision or "main")).is_file():
            raise FileNotFoundError("not in the cache,\nand there is no network")
        return str(place / "snapshots" / (place / "refs" / (revision or "main")).read_text())

    module = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_repositories_of_the_hub(hub, model):
    for address, revision in (("hf://user/fruits", None), ("hf://user/fruits@v1", "v1")):
        same_weights(model, InstanceModel.from_preset(address))
        assert hub[-1] == ("user/fruits", revision, ["config.json", "metadata.json", *preset_folder.FILES.values()])
    reason = rejection("hf://user/other")
    assert reason == "hf://user/other: cannot be fetched (FileNotFoundError: not in the cache, and there is no network)"
    for address in ("hf://user", "hf://user/name/more", "hf://user/..@x y", "hf://"):
        assert rejection(address) == f"{address}: write hf://user/name or hf://user/name@revision"


def test_the_package_of_the_hub_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    wanted = "hf://user/fruits: requires the package huggingface_hub: pip install huggingface_hub"
    assert rejection("hf://user/fruits") == wanted


def test_the_real_package_reads_its_cache(hub, model, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    same_weights(model, InstanceModel.from_preset("hf://user/fruits"))
    assert rejection("hf://user/fruits@none").startswith("hf://user/fruits@none: cannot be fetched (")
    assert rejection("hf://user/none").startswith("hf://user/none: cannot be fetched (LocalEntryNotFoundError")


# Command line -------------------------------------------------------------------------------------------------------


def described(capsys, *arguments):
    assert main(["info", *map(str, arguments)]) == 0
    rows = [line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip()]
    return {label: value.strip() for label, value in rows}


def test_the_command_line_takes_folders_and_names(shipped, folder, tmp_path, capsys):
    digest = presets.read(folder)["weights"]["sha256"]
    for arguments in (["--model", folder], ["--model", "fruits"], ["--preset", "fruits"]):
        shown = described(capsys, *arguments)
        assert shown["licence"] == "CC0-1.0" and shown["sha256"] == digest and shown["source"] == CARD["source"]
        assert shown["metrics"] == "segm_AP 0.5, of nothing" and shown["parameters"] == "21"
    assert shown["pixels"].startswith("R, G, B")
    photo, found = tmp_path / "photo.png", tmp_path / "found.json"
    keras.utils.save_img(photo, np.random.default_rng(0).integers(0, 255, (40, 50, 3)), scale=False)
    run = ["predict", "--model", "fruits", str(photo), "--output", str(tmp_path / "out"), "--json", str(found)]
    assert main([*run, "--score-threshold", "0"]) == 0
    assert {result["category_name"] for result in json.loads(found.read_text())} <= {*NAMES}
    scores = ["--dataset", "shapes", "--count", "1", "--image-size", "64"]
    capsys.readouterr()
    assert main(["evaluate", "--model", "fruits", *scores]) == 2
    assert "its classes are apple, pear, quince" in capsys.readouterr().err


def test_errors_of_the_command_line(shipped, copy, capsys):
    (copy / "model.weights.h5").write_bytes(b"")
    for model, reason in [
        (copy, f"error: {copy / 'model.weights.h5'}: has 0 bytes, not "),
        ("mask_rcnn_resnet50_fpn", "error: mask_rcnn_resnet50_fpn: is a preset without weights; "),
        ("none.keras", "error: none.keras: no such model: give a .keras file, the folder of a SavedModel or preset, "),
        ("hf://user", "error: hf://user: write hf://user/name"),
    ]:
        assert main(["predict", "--model", str(model), "photo.png", "--output", "out"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(reason) and error.count("\n") == 1
    assert main(["export", "--model", "none.keras", "--output", "out"]) == 2
    assert "hf://user/name, or the name of a preset with weights (fruits)" in capsys.readouterr().err


def test_a_published_name_comes_before_a_folder(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "mask_rcnn_resnet50_fpn")
    monkeypatch.chdir(tmp_path)
    assert presets.holds_weights("./mask_rcnn_resnet50_fpn") and not presets.holds_weights("mask_rcnn_resnet50_fpn")
    assert main(["predict", "--model", "mask_rcnn_resnet50_fpn", "photo.png", "--output", "out"]) == 2
    assert "is a preset without weights" in capsys.readouterr().err


def test_weights_of_other_projects_do_not_fill_a_folder(folder, tmp_path):
    assert "x.pth: is no .weights.h5 file" in rejection(folder, weights=tmp_path / "x.pth")
