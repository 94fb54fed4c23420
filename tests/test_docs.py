"""README and docs: Python blocks run at a small scale, commands have the options that are shown, links resolve.

The classes of docs/extending.md are those of tests/models/test_extension.py, which runs them.
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import cli
from keras_maskrcnn.cli import preset_table
from keras_maskrcnn.data import Shapes
from keras_maskrcnn.evaluation import encode_mask

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PUBLISHED = "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"  # made here, with the names and a quarter of the widths

# Blocks that are compiled but do not run, by their first words.
NOT_RUN = {
    "docs/extending.md": {"": "tests/models/test_extension.py runs them"},
    "docs/fine_tuning.md": {"import mlflow": "needs mlflow", "import wandb": "needs wandb"},
    "docs/predict.md": {"import json": "needs the extra ray; tests/test_bulk.py runs it"},
    "docs/pretrained_weights.md": {
        'backbone = {"name": "resnet50"}  # everything else': "needs detectron2's model_final_f10217.pkl",
        'backbone = {"name": "resnet50", "norm"': "needs torchvision's resnet50-0676ba61.pth",
        "model = MaskRCNN(3, backbone=": "needs the extra pretrained; tests/weights/test_imagenet.py",
    },
}
# Sizes that are documented, and those of the test.
TINY = 'backbone={"name": "resnet10", "norm": "group", "width": 8}, fpn_channels=16, box_stage={"width": 16}'
CANVAS = {"(512, 512)": "(64, 64)"}
SPLIT = {"photos[10:], photos[:10]": "photos[2:], photos[:2]"}
SMALL = {
    "README.md": {
        **CANVAS,
        **SPLIT,
        'backbone={"name": "resnet50", "norm": "group"}': TINY,
        "batch_size=4": "batch_size=2",
        "epochs=12": "epochs=1",
        "epochs=4": "epochs=1",
        # Scoring as in the call before it.
        'epochs=8, callbacks=[training.CocoEval(val, log_dir="runs/tuned")]': "epochs=1",
    },
    "docs/deploy.md": {'MaskRCNN.from_preset("nuclei")': f"MaskRCNN(1, {TINY}, image_size=(64, 64))"},
    "docs/digits.md": {"Digits(2000, (128, 128)": "Digits(4, (64, 64)", "Digits(100, (128, 128)": "Digits(2, (64, 64)"},
    "docs/evaluation.md": {
        "Shapes(50, image_size=(128, 128)": "Shapes(2, image_size=(64, 64)",
        'backbone={"name": "resnet18", "norm": "group"}': TINY,
    },
    "docs/fine_tuning.md": {
        **CANVAS,
        **SPLIT,
        "epochs=4": "epochs=1",
        "epochs=8": "epochs=1",
        "LRFinder(steps=100)": "LRFinder(steps=2)",
    },
    "docs/from_matterport.md": {
        "(128, 128)": "(64, 64)",
        "Shapes(500), Shapes(50)": "Shapes(2), Shapes(1)",
        ', weights="mask_rcnn_coco.h5")': ")",  # matterport's file is not available
    },
    "docs/from_torchvision.md": {**CANVAS, "(480, 640, 3)": "(48, 64, 3)", "epochs=10": "epochs=1"},
    "docs/nuclei.md": {'backbone={"name": "resnet18", "norm": "batch", "width": 32}': TINY},
    "docs/keypoints.md": {
        "StickFigures(2000, (160, 160)": "StickFigures(4, (64, 64)",
        "StickFigures(100, (160, 160)": "StickFigures(2, (64, 64)",
        "(160, 160), batch_size=8": "(64, 64), batch_size=2",
        'backbone={"name": "resnet18", "norm": "group"}': TINY,
        '"width": 96, "depth": 3': '"width": 8, "depth": 1',
        "epochs=5": "epochs=1",
    },
    "docs/panoptic.md": {
        "Scenes(2000, (128, 128)": "Scenes(4, (64, 64)",
        "Scenes(100, (128, 128)": "Scenes(2, (64, 64)",
        "(128, 128), batch_size=8": "(64, 64), batch_size=2",
        'backbone={"name": "resnet18", "norm": "group"}': TINY,
        "epochs=5": "epochs=1",
    },
    "docs/fcn.md": {
        "(2000, 100)": "(4, 2)",
        "(128, 128)": "(64, 64)",
        "batch_size=8": "batch_size=2",
        'backbone={"name": "resnet18", "norm": "group"}, stage={"norm": "group"}': TINY.split(", fpn")[0],
        "epochs=5": "epochs=1",
    },
    "docs/predict.md": {},
    "docs/presets.md": {},
    "docs/pretrained_weights.md": {},
    "docs/yolact.md": {
        "Shapes(2000, (128, 128)": "Shapes(4, (64, 64)",
        "Shapes(100, (128, 128)": "Shapes(2, (64, 64)",
        "(128, 128), batch_size=8": "(64, 64), batch_size=2",
        'backbone={"name": "resnet18", "norm": "group"}': 'backbone={"name": "resnet10", "norm": "group", "width": 8}',
        "epochs=5": "epochs=1",
    },
    "docs/your_data.md": {},
}
PAGES_OF_COMMANDS = (
    "README.md",
    "docs/deploy.md",
    "docs/fine_tuning.md",
    "docs/predict.md",
    "docs/pretrained_weights.md",
    "docs/your_data.md",
)
# Commands that are not run here, and why.
ELSEWHERE = {
    "make": "trains for minutes or runs all tests; the targets are checked",
    "pip": "installs packages",
    "curl": "needs the network",
    "sha256sum": "needs the file that curl loads",
    "tensorboard": "a server; the module is a requirement",
    "tensorflow_model_server": "tests/serve/test_tf_serving.py, where it is installed",
    "docker": "needs a daemon; tests/serve/test_docker.py",
    "python examples/tf_serving_client.py": "needs a server; tests/serve/test_tf_serving.py",
    "python benchmarks/deploy.py": "measures for minutes",
    "python train/cis680.py": "tests/train/test_cis680.py and test_cis680_part_b.py",
}


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def fenced(page, language):
    """The blocks of a page in one language; "" for those without a language, which hold commands."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.M | re.S) if name == language]


def commands(page):
    """Commands of a page in its blocks, without comments."""
    lines = (re.sub(r"\s+#.*", "", line).strip() for block in fenced(page, "") for line in block.splitlines())
    return [line for line in lines if line]


def words_of(command):
    """The words of a command, and the file that `<` redirects to its stdin, or None."""
    command, _, file = command.partition(" < ")
    return shlex.split(command), file.strip() or None


def mentioned(page):
    """Commands in the running text."""
    return re.findall(r"`((?:python|make|pip) [^`\n]+)`", re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S))


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# What needs no training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page}: {target}"


def test_the_readme_is_short_and_its_picture_small():
    assert len(text_of("README.md").splitlines()) <= 150
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text_of("README.md")):
        assert (ROOT / target).stat().st_size < 300_000


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile(page):
    for block in fenced(page, "python"):
        compile(block, page, "exec")


def test_lists_of_this_file_are_those_of_the_pages():
    """Every substitution and every exception has its text on the page."""
    pages = {page for page in PAGES if fenced(page, "python")}
    assert pages == {*SMALL, *NOT_RUN}
    for page, sizes in SMALL.items():
        for documented in sizes:
            assert any(documented in block for block in fenced(page, "python")), f"{page}: {documented}"
    for page, starts in NOT_RUN.items():
        for start in starts:
            assert any(block.startswith(start) for block in fenced(page, "python")), f"{page}: {start}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page):
    for command in commands(page):
        if command.startswith("python -m keras_maskrcnn "):
            cli._parser().parse_args(words_of(command)[0][3:])
    for command in [*commands(page), *mentioned(page)]:
        words = [word for word in command.split() if word != "…"]
        known = "--help"
        if words[:3] == ["python", "-m", "keras_maskrcnn"]:
            known += help_of(words[3]) if words[3:] and words[3] != "VERB" else ""
        elif words[0] == "python":
            shared = {"train": ["keras_maskrcnn/training/arguments.py"], "benchmarks": ["benchmarks/pairs.py"]}
            shared["examples"] = shared["tests"] = []
            scripts = [words[1], *shared[words[1].split("/")[0]]]
            known += "".join((ROOT / script).read_text() for script in scripts)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), command
            continue
        else:
            assert words[0] in ELSEWHERE, command
            continue
        for option in re.findall(r"--[\w-]+", command):
            assert option in known, f"{page}: {command}"


def help_of(verb):
    """What `keras-maskrcnn VERB --help` prints; an unknown verb fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        cli._parser().parse_args([verb, "--help"])
    assert end.value.code == 0, verb
    return printed.getvalue()


def test_tables_of_speed_are_those_of_the_results():
    assert module(ROOT / "benchmarks" / "table.py").main(["--readme", str(ROOT / "docs" / "speed.md"), "--check"]) == 0


def test_the_table_of_presets_is_that_of_their_files():
    assert f"\n\n{preset_table.table()}\n\n" in text_of("docs/presets.md")


@pytest.mark.parametrize("page", ["docs/from_matterport.md", "docs/from_torchvision.md"])
def test_options_in_the_tables_are_options(page):
    """Every `group={"option": …}` names an option of that group, and every preset exists."""
    from keras_maskrcnn import MaskRCNN
    from keras_maskrcnn.models import presets

    config = MaskRCNN(1, {"name": "resnet10", "width": 8}, fpn_channels=8, box_stage={"width": 8}).get_config()
    config["backbone"] = config["backbone"]["config"] | {"name": "resnet10"}
    found = re.findall(r"(\w+)=\{([^}]*)\}", text_of(page))
    assert len(found) > 10
    for group, content in found:
        names = re.findall(r'"(\w+)"(?=:|,|$)', content)
        if group == "loss_weights":
            assert set(names) == {"rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"}
        else:
            assert {name for name in names if name not in ("resnet101", "frozen_batch", "roi_align")} <= {
                *config[group]
            }
    assert set(re.findall(r"mask_rcnn_resnet\w+", text_of(page))) <= {*presets.names()}


# Python blocks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, narrow_presets):
    """A working folder: annotated photos, Penn-Fudan, nuclei, exports of annotation tools, and published weights."""
    monkeypatch.chdir(tmp_path)
    module(ROOT / "tests" / "annotation_tools.py").write_all(tmp_path)
    names = module(ROOT / "tests" / "weights" / "names.py")
    writer = module(ROOT / "tests" / "weights" / "torch_writer.py")
    arrays = names.drawn(names.narrowed(names.older_style(names.torchvision_shapes("maskrcnn_resnet50_fpn"))))
    writer.write_zip(PUBLISHED, writer.ordered({name: writer.tensor(value) for name, value in arrays.items()}))
    for name in ("photos", "nuclei", "PennFudanPed/PNGImages", "PennFudanPed/PedMasks"):
        (tmp_path / name).mkdir(parents=True)
    shapes = Shapes(4, image_size=(64, 64), seed=1)
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "one"}, {"id": 9, "name": "two"}]}
    for number, sample in enumerate(shapes):
        Image.fromarray(sample["image"]).save(f"photos/{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        for box, mask in zip(sample["boxes"], sample["masks"], strict=True):
            content["annotations"].append({
                "id": len(content["annotations"]) + 1,
                "image_id": number,
                "category_id": (7, 9)[number % 2],
                "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])],
                "area": float(mask.sum()),
                "iscrowd": 0,
                "segmentation": encode_mask(mask),
            })  # fmt: skip
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "train.json").write_text(json.dumps(content))
    Image.fromarray(shapes[0]["image"]).save("nuclei/0.png")
    np.save("nuclei/0.npy", shapes[0]["masks"])
    ids = np.zeros((80, 96), np.uint8)
    ids[10:70, 10:35], ids[20:75, 50:80] = 1, 2
    for name in "ab":
        Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(f"PennFudanPed/PNGImages/{name}.png")
        Image.fromarray(ids).save(f"PennFudanPed/PedMasks/{name}_mask.png")
    (tmp_path / "PennFudanPed" / "train.txt").write_text("a")
    (tmp_path / "PennFudanPed" / "val.txt").write_text("b")
    return tmp_path


def run_blocks(page):
    """Runs the Python blocks of a page in order, in one namespace, which is returned."""
    namespace = {}
    for block in fenced(page, "python"):
        if any(block.startswith(start) for start in NOT_RUN.get(page, ())):
            continue
        for documented, small in SMALL[page].items():
            block = block.replace(documented, small)
        exec(compile(block, page, "exec"), namespace)
    return namespace


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.slow
def test_the_readme_runs(folder, eager_functions):
    names = run_blocks("README.md")
    assert set(names["found"]) >= {"detection_boxes", "detection_scores", "detection_masks", "num_detections"}
    assert names["model"].num_classes == 2 and names["model"].trainable_weights
    for path in ("found.png", "model.keras", "saved_models/photos/saved_model.pb", "runs/tuned"):
        assert (folder / path).exists(), path
    sample = names["Nuclei"]()[0]
    np.testing.assert_array_equal(sample["boxes"], Shapes(4, image_size=(64, 64), seed=1)[0]["boxes"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.parametrize("page", [page for page in SMALL if page != "README.md"])
def test_pages_run(page, folder, eager_functions):
    run_blocks(page)


# Commands -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.parametrize("page", PAGES_OF_COMMANDS)
def test_commands_run(page, folder, eager_functions, run_script, monkeypatch):
    """In the order of the page; its Python blocks, which leave files for them, run first."""
    monkeypatch.setattr(sys, "argv", ["docs"])
    if page == "docs/fine_tuning.md":
        run_blocks(page)
    if page == "docs/predict.md":
        make_clip_and_list()
    sizes = ["--steps", "1", "--epochs", "1", "--batch-size", "1", "--image-size", "64", "--precision", "float32"]
    for command in commands(page):
        words, file = words_of(command)
        if file:
            monkeypatch.setattr(sys, "stdin", io.StringIO(pathlib.Path(file).read_text()))
        if words[0] in ELSEWHERE or " ".join(words[:2]) in ELSEWHERE:
            continue
        if words[1] == "-m":
            if "COCO_FOLDER" not in words:  # COCO itself needs the network
                codes = (0, 1) if words[3] == "inspect" else (0,)  # 1: a warning about the pictures
                assert cli.main(words[3:]) in codes, command
        else:
            width = [] if "--weights" in words else ["--backbone", "resnet10", "--width", "8"]
            length = sizes[2:] if "--minutes" in words else sizes
            words = [
                "0.05" if before == "--minutes" else word for before, word in zip(["", *words], words, strict=False)
            ]
            answer = run_script(ROOT / words[1], *words[2:], *length, *width)
            assert answer.returncode == 0, f"{command}: {answer.stderr[-2000:]}"


def make_clip_and_list():
    """A video of the photos, and the paths of two of them."""
    pytest.importorskip("av", reason="the extra video is not installed")
    from keras_maskrcnn.data.video import VideoWriter

    photos = sorted(pathlib.Path("photos").iterdir())
    writer = VideoWriter("clip.mp4", rate=10)
    for path in photos:
        writer.add(np.asarray(Image.open(path)))
    writer.close()
    pathlib.Path("list.txt").write_text("".join(f"{path}\n" for path in photos[:2]))
