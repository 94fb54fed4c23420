"""The Dockerfile: its files, its command, and its steps run one after the other; the image itself where Docker runs."""

import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import pytest

from keras_maskrcnn import cli

ROOT = pathlib.Path(__file__).parents[2]


def instructions():
    """The Dockerfile as a list of (instruction, the rest of its line)."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def of(name):
    """The text after each instruction of a name."""
    return [rest for instruction, rest in instructions() if instruction == name]


def command(extra=()):
    """The words of the process that a container starts."""
    (start,), (default,) = of("ENTRYPOINT"), of("CMD")
    return [*json.loads(start), *(extra or json.loads(default))]


def health_check():
    """The words of the command that Docker runs to see whether the service is well."""
    (check,) = of("HEALTHCHECK")
    return json.loads(check.partition(" CMD ")[2])


def copied():
    """(source, target) of everything that is copied into the image."""
    for rest in of("COPY"):
        *sources, target = rest.split()
        for source in sources:
            yield source, target


def test_what_is_copied_exists_and_is_all_that_is_sent_to_the_builder():
    sources = [source for source, _ in copied()]
    assert sources and all((ROOT / source).exists() for source in sources)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*" and ignored[-1] == "**/__pycache__"
    assert sorted(line.removeprefix("!") for line in ignored[1:-1]) == sorted(sources)


def test_the_container_starts_the_service_on_the_port_that_it_exposes():
    words = command()
    assert words[:3] == ["python", "-m", "keras_maskrcnn"]
    args = cli._parser().parse_args(words[3:])
    assert args.run.__module__ == "keras_maskrcnn.cli.serve"
    assert args.host == "0.0.0.0" and [str(args.port)] == of("EXPOSE")
    # The arguments of `docker run` replace the model only.
    other = cli._parser().parse_args(command(["--model", "a.keras", "--model", "b=c.keras"])[3:])
    assert other.model == ["a.keras", "b=c.keras"] and (other.host, other.port) == (args.host, args.port)


def test_the_health_check_asks_a_route_of_the_service():
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from keras_maskrcnn.serve.app import create_app

    url = urllib.parse.urlsplit(re.search(r"http://[^']*", health_check()[-1])[0])
    assert url.path in create_app({}).openapi()["paths"]
    assert [str(url.port)] == of("EXPOSE")


def test_the_process_is_not_root_and_imports_nothing_from_the_folder_of_models():
    names = [name for name, _ in instructions()]
    (user,) = of("USER")
    assert all(number.isdecimal() and int(number) >= 1000 for number in user.split(":"))
    assert max(n for n, name in enumerate(names) if name == "RUN") < names.index("USER")
    assert of("WORKDIR")[-1] == "/models" and environment()["PYTHONSAFEPATH"]


def environment():
    """Variables that the image sets."""
    return dict(word.split("=", 1) for rest in of("ENV") for word in shlex.split(rest))


def run(words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=1500, **options)


def needs_index():
    answer = run([sys.executable, "-m", "pip", "index", "versions", "uvicorn"])
    if answer.returncode:
        pytest.skip(f"no index of packages: {answer.stderr.strip()[-200:]}")


@pytest.mark.slow
def test_the_steps_run_one_after_the_other_in_a_new_environment():
    """All steps but those that need root: the files, the variables, `pip install`, the command, the health check."""
    needs_index()
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        source, models = root / "source", root / "models"
        models.mkdir()
        (models / "keras.py").write_text("raise SystemExit('a module in the folder of models was imported')\n")
        run([sys.executable, "-m", "venv", root / "venv"], check=True)
        # As with --read-only, the home folder cannot be written.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{root / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {**kept, **environment(), "PATH": path, "HOME": os.devnull}
        build(source, {**variables, "HOME": place})
        packages = sum(file.stat().st_size for file in (root / "venv").rglob("*") if file.is_file())
        print(f"{packages / 1e9:.1f} GB of packages")
        serves(models, variables)


def build(source, variables):
    """Runs the instructions that fill the image."""
    (arguments,) = (dict([rest.split("=", 1)]) for rest in of("ARG"))
    for name, rest in instructions():
        if name == "COPY":
            *files, target = rest.split()
            for file in files:
                copy(ROOT / file, source / (file if target == "./" else target))
        if name == "RUN" and rest.startswith("pip "):
            done = run(["sh", "-c", rest], cwd=source, env={**variables, **arguments})
            assert done.returncode == 0, f"{rest}: {done.stderr[-2000:]}"


def copy(file, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(file, target)


def serves(folder, variables):
    """Starts the command in a folder, until the health check succeeds, and stops it as `docker stop` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check = [word.replace(":8000/", f":{port}/") for word in health_check()]
    assert str(port) in check[-1] and run(check, env=variables).returncode != 0, "nothing serves yet"
    process = subprocess.Popen([*command(), "--port", str(port)], cwd=folder, env=variables, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 300
        while run(check, env=variables).returncode != 0:
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            assert time.monotonic() < end
            time.sleep(1)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


def has_docker():
    return shutil.which("docker") and run(["docker", "info"]).returncode == 0


@pytest.mark.slow
def test_the_image_is_built_and_becomes_healthy():
    if not has_docker():
        pytest.skip("no Docker daemon runs here; test_the_steps_run_one_after_the_other stands for it")
    built = run(["docker", "build", "--quiet", str(ROOT)])
    assert built.returncode == 0, built.stderr[-2000:]
    image = built.stdout.strip()
    started = run(["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", image])
    container = started.stdout.strip()
    try:
        state = ""
        for _ in range(100):
            state = inspected(container, "{{.State.Health.Status}} {{.Config.User}}")
            if state.startswith("healthy"):
                break
            time.sleep(3)
        assert state == "healthy 1000:1000", run(["docker", "logs", container]).stderr[-2000:]
        run(["docker", "stop", container])
        assert inspected(container, "{{.State.ExitCode}}") == "0"
    finally:
        run(["docker", "rm", "--force", container])
        run(["docker", "rmi", "--force", image])


def inspected(container, template):
    return run(["docker", "inspect", "--format", template, container]).stdout.strip()
