"""The distribution: what it declares, what its files hold, and that it works in environments of its own.

The slow tests need the package index. `smoke.py` is the program that uses every dependency.
"""

import ast
import importlib
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from packaging.version import Version

import keras_maskrcnn

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_maskrcnn"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = PROJECT["project"]
# The extras that `smoke.py` uses.
EXTRAS = ("channels", "convert", "digits", "grain", "hub", "litert", "onnx", "openvino", "serve", "tfrecord", "video")
PINNED = re.compile(r"[\w.-]+(\[[\w,]+\])?(>=|==)\d[\w.]*")


def tracked(*folders):
    """Files that git tracks, relative to the root; the test is skipped where there is no checkout."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *folders]
    try:
        found = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout")
    return sorted(filter(None, found.split("\0")))


def test_every_dependency_has_a_lower_bound():
    wanted = {"": DECLARED["dependencies"], **DECLARED["optional-dependencies"]}
    free = {extra: [one for one in found if not PINNED.fullmatch(one)] for extra, found in wanted.items()}
    del free["dev"]
    assert not any(free.values()), free


def test_requirements_are_the_dependencies():
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8").split() == DECLARED["dependencies"]


def test_the_version_is_semantic_and_has_an_entry_in_the_changelog():
    version = re.fullmatch(r"(\d+\.\d+\.\d+)(\.dev\d+|rc\d+)?", keras_maskrcnn.__version__)
    title = "Unreleased" if version[2] else version[1]
    assert f"\n## [{title}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_package_data_covers_all_files():
    """Patterns are expanded as setuptools does, and packages are folders with an `__init__.py`."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["keras_maskrcnn"]
    covered = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    paths = [ROOT / name for name in tracked("keras_maskrcnn")]
    assert len(paths) > 200
    assert not [path for path in paths if path.suffix != ".py" and path not in covered]
    assert not [path for path in paths if path.suffix == ".py" and not (path.parent / "__init__.py").exists()]


@pytest.mark.parametrize("name", ["keras_maskrcnn", "keras_maskrcnn.data", "keras_maskrcnn.training"])
def test_stubs_have_the_names_that_are_imported_on_first_use(name):
    module = importlib.import_module(name)
    stub = pathlib.Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(module.__all__) - {"__version__"} <= set(imports)
    for public, full in imports.items():
        folder, _, original = full.rpartition(".")
        found = getattr(module, public)
        assert found is getattr(importlib.import_module(folder), original)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A source distribution of the tracked files, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source")
    (source,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return source, wheel


def run(*words, **options):
    """Runs a program outside the checkout; returns its output, which a failure shows."""
    environment = {**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_files_of_the_distributions(distributions):
    source, wheel = distributions
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in tracked() if name not in held and not name.startswith((".", "saved_models/"))]
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert set(tracked("keras_maskrcnn")) <= held
    outside = {name.partition("/")[0] for name in held} - {"keras_maskrcnn"}
    assert len(outside) == 1 and outside.pop().endswith(".dist-info")


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_wheel_works_in_an_environment_of_its_own(distributions, tmp_path, resolution):
    """With the lowest and with the newest version of every dependency."""
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python = next((tmp_path / "venv").glob("[bS]*/python*"))
    programs, install = python.parent, (*uv, "pip", "install", "--quiet", "--python", python)
    chosen = ("--resolution", resolution, "--only-binary", ":all:")
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    run(*install, *chosen, "-r", ROOT / "pyproject.toml", *extras)
    run(*install, "--no-deps", distributions[1])
    listed = run(*uv, "pip", "freeze", "--python", python)
    print(listed)
    if resolution == "lowest-direct":
        installed = versions(listed.lower().splitlines(), "==")
        assert {name: installed[name] for name in lowest()} == lowest()
    command = programs / "keras-maskrcnn"
    assert "predict" in run(command, "--help", cwd=tmp_path)
    assert keras_maskrcnn.__version__ in run(command, "info", cwd=tmp_path)
    photos = sorted((ROOT / "docs" / "images" / "nuclei").glob("*[!s].png"))
    assert len(photos) == 3
    run(command, "predict", "--model", "nuclei", "--output", "found", *photos, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "found").iterdir()} >= {path.name for path in photos}
    print(run(python, ROOT / "tests" / "smoke.py", tmp_path, cwd=tmp_path))


def lowest():
    """The lower bounds by the names of the dependencies, as `pip freeze` spells them."""
    groups = (DECLARED["dependencies"], *(DECLARED["optional-dependencies"][extra] for extra in EXTRAS))
    return versions(itertools.chain(*groups), ">=")


def versions(lines, sign):
    """Dict from names to versions in lines such as "numpy>=1.26"."""
    pairs = (line.split(sign) for line in lines if sign in line)
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(number) for name, number in pairs}
