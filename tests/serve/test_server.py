"""The service as a process: start, requests over the network, the example's client, and a stop that loses no answer."""

import asyncio
import contextlib
import functools
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest
import uvicorn
from PIL import Image
from serving import PNG, encoded, square
from uvicorn.server import ServerState

from keras_maskrcnn import cli
from keras_maskrcnn.serve import server
from keras_maskrcnn.serve.connections import TimedProtocol

ROOT = pathlib.Path(__file__).parents[2]


class Process:
    """The service in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "keras_maskrcnn", "serve", "--port", "0", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        self.process, self.lines = subprocess.Popen(command, **pipes), []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self._reader.start()
        found = re.search(r"http://(\S+):(\d+)/", self.process.stdout.readline())
        assert found, self.errors()
        self.url, self.address = found.group(), (found.group(1), int(found.group(2)))

    def errors(self):
        """What it wrote to stderr until its end."""
        self.process.wait(60)
        self._reader.join()
        return "".join(self.lines)

    def log(self):
        """The lines of its log."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]


@pytest.fixture(scope="module")
def served(model_file):
    process = Process("--model", model_file, "--model", f"other={model_file}", "--timeout", "5", "--score", "0.1")
    yield process
    process.process.kill()


def test_it_answers_when_it_says_so(served):
    assert httpx.get(f"{served.url}health").json() == {"status": "ok", "models": ["tiny", "other"]}
    answer = httpx.post(f"{served.url}v1/predict", content=encoded(square()), headers=PNG, timeout=60)
    assert answer.status_code == 200 and answer.json()["model"] == "tiny"
    assert httpx.get(f"{served.url}metrics").status_code == 200


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd", "/page.html"])
def test_no_file_can_be_reached(served, path):
    with socket.create_connection(served.address, 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404") and b'{"error":' in answer


def test_a_slow_client_is_answered_408_and_others_meanwhile(served):
    with socket.create_connection(served.address, 20) as connection:
        head = "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nx"
        connection.sendall(head.encode())
        assert httpx.get(f"{served.url}health").status_code == 200
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408") and b"not complete after 5 seconds" in answer


@pytest.mark.parametrize("earlier", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_is_never_complete_ends_the_connection(served, earlier):
    with socket.create_connection(served.address, 20) as connection:
        connection.sendall(earlier + b"GET /health HTTP/1.1\r\nX-Slow:")
        connection.settimeout(20)  # less than connections are kept open between requests
        answer = b"".join(iter(lambda: _received(connection), b""))
    assert answer.count(b"HTTP/1.1 200") == bool(earlier)


def test_a_client_that_does_not_read_its_answer_is_disconnected():
    sent = 64 * 2**20

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % sent)]})
        await send({"type": "http.response.body", "body": bytes(sent)})

    async def received():
        config, state = uvicorn.Config(app, log_config=None), ServerState()
        make = functools.partial(TimedProtocol, 0.5, config=config, server_state=state, app_state={})
        loop = asyncio.get_running_loop()
        async with await loop.create_server(make, "127.0.0.1", 0) as listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname(), limit=2**16)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not state.connections:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                while state.connections:
                    await asyncio.sleep(0.01)
            count = 0
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(2**20):
                    count += len(part)
            writer.close()
            return count

    assert asyncio.run(received()) < sent


def _received(connection):
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def test_the_client_of_the_example_writes_results_and_names_what_fails(served, run_script, tmp_path):
    names = ["one.png", "one.jpg", "broken.png", "absent.png"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "one.png").write_bytes(b"of the same name")
    for name in names[:2]:
        Image.fromarray(square()).save(tmp_path / name)
    (tmp_path / names[2]).write_bytes(b"no image")
    options = ["--url", served.url, "--output", tmp_path / "found", "--overlay", "--model", "other", "--masks", "rle"]
    done = run_script(
        ROOT / "examples" / "client.py", *(tmp_path / name for name in (*names, "again/one.png")), *options
    )
    assert done.returncode == 2
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "one.jpg.json",
        "one.jpg_overlay.png",
        "one.png.json",
        "one.png_overlay.png",
    ]
    assert json.loads((tmp_path / "found" / "one.png.json").read_text())["model"] == "other"
    failed = done.stderr.splitlines()
    assert len(failed) == 3 and "400: the file is no image" in failed[0] and "No such file" in failed[1]
    assert "again/one.png: an earlier photo has this file name" in failed[2]


def test_the_client_of_the_example_says_that_there_is_no_service(run_script, tmp_path):
    Image.fromarray(square()).save(tmp_path / "one.png")
    with server.bound("127.0.0.1", 0) as taken:  # which does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = run_script(ROOT / "examples" / "client.py", tmp_path / "one.png", "--url", url)
    assert done.returncode == 2 and "cannot reach 127.0.0.1" in done.stderr


def test_a_port_in_use_is_one_line_and_exit_code_2(served, capsys):
    host, port = served.address
    assert cli.main(["serve", "--model", "absent.keras", "--host", host, "--port", str(port)]) == 2
    assert re.fullmatch(rf"error: cannot listen on {host}, port {port}: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "a.keras", "--model", "b/a.keras"], "another model has the name 'a'; give NAME=MODEL"),
        (["--model", "a/b=c.keras"], "the name 'a/b' is not of letters"),
        (["--model", "x.keras", "--port", "70000"], "must be from 0 to 65535"),
        (["--model", "x.keras", "--queue", "0"], "queue=0 must be a whole number"),
        (["--model", "x.keras", "--timeout", "nan"], "timeout=nan must be a positive number"),
        (["--model", "x.keras", "--max-pixels", "2000000000"], "more than PIL.Image.MAX_IMAGE_PIXELS"),
        (["--model", "x.keras", "--score", "2"], "score=2.0 must be a number from 0 to 1"),
        (["--model", "absent.keras", "--port", "0"], "no such model"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, reason, capsys):
    assert cli.main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_stop_answers_what_has_begun_and_ends_with_exit_code_0(served):
    """The last test of this file: it stops the process."""
    content = encoded(square())
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(socket.create_connection(served.address, 60)) for _ in range(6)]
        for connection in connections:
            connection.sendall(head.encode() + content)
        assert httpx.get(f"{served.url}health").status_code == 200  # it has read the requests before this one
        served.process.send_signal(signal.SIGTERM)
        answers = [b"".join(iter(lambda of=connection: of.recv(65536), b"")) for connection in connections]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 6
    assert served.process.wait(60) == 0
    assert "Traceback" not in served.errors()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}health")
    requests = [line for line in served.log() if line["path"].endswith("predict") and line["status"] == 200]
    assert {"time", "level", "method", "path", "status", "ms", "model", "objects", "bytes"} == set(requests[0])
    assert {line["model"] for line in requests} == {"tiny", "other"}
