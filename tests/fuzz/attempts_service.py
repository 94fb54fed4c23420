"""Requests to the service, as an ASGI server hands them on: bodies, headers, queries, paths, forms."""

import asyncio
import json

import changes
import numpy as np
from attempts_images import plain
from attempts_requests import Squares, png
from target import target

PATHS = (
    "/v1/predict",
    "/v1/models/squares/predict",
    "/v1/models/none/predict",
    "/v1/models",
    "/health",
    "/metrics",
    "/docs",
)
PATHS += (
    "/",
    "/openapi.json",
    "/v1/models/../../etc/passwd/predict",
    "/v1/models/a\nb/predict",
    "/\udcff",
    "//",
    "/v1/predict/",
)
QUERY = {
    "score": ("0.5", "0", "1", "-1", "2", "nan", "inf", "", "a", "1e400", "0x1", "%00", "\u0661"),
    "max_detections": ("1", "0", "1000", "1001", "-3", "1.5", "", "1e3", "9" * 400),
    "masks": ("polygons", "rle", "none", "", "POLYGONS", "a" * 3000),
    "format": ("json", "png", "", "xml"),
    "unknown": ("1", ""),
}
TYPES = (
    "image/png",
    "image/jpeg",
    "application/octet-stream",
    "IMAGE/PNG; a=b",
    "text/plain",
    "",
    "multipart/form-data",
    "\xff",
    "a" * 9000,
)
METHODS = ("POST", "POST", "POST", "POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "X")
EXPECTED = {200, 400, 404, 405, 307, 408, 413, 415, 422, 429}
BOUNDARY = "c4f2"
HEADERS = (
    *((b"accept", value) for value in (b"image/png", b"\xff;;,")),
    *((b"content-length", value) for value in (b"99999999999", b"-1", b"\xb2")),
    *((b"content-type", value) for value in (b"text/html", b"multipart/form-data")),
    *((b"expect", b"100-continue"), (b"content-encoding", b"gzip"), (b"range", b"bytes=0-")),
)


def load():
    """Imports what the targets need, before memory is limited."""
    import attempts_models

    from keras_maskrcnn.serve import create_app

    return attempts_models.load(), create_app


class Service:
    """The application, and the event loop in which it runs."""

    def __init__(self):
        from keras_maskrcnn.serve import Settings, create_app

        self.runner = asyncio.Runner()
        self.app = create_app({"squares": Squares()}, Settings(timeout=8, max_bytes=200_000, max_pixels=100_000))

    def ask(self, request):
        """Sends a request, and checks that the answer is a result or one line."""
        status, headers, body = self.runner.run(self._answer(*request))
        assert status in EXPECTED, (status, body[:300])
        kind = headers.get(b"content-type", b"")
        if kind.startswith(b"application/json") and body:
            content = json.loads(body)
            error = content.get("error") if isinstance(content, dict) else None
            assert status == 200 or (isinstance(error, str) and error and len(error.splitlines()) == 1), content
        return status

    async def _answer(self, method, path, query, headers, chunks):
        messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        messages.append({"type": "http.request", "body": b"", "more_body": False})
        sent = []

        async def receive():
            if messages:
                return messages.pop(0)
            await asyncio.Event().wait()  # the client waits

        async def send(message):
            sent.append(message)

        raw = path.encode("utf-8", "surrogateescape")
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
        scope |= {"path": raw.decode("utf-8", "replace"), "raw_path": raw, "query_string": query, "root_path": ""}
        scope |= {"headers": headers, "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 80), "state": {}}
        await asyncio.wait_for(self.app(scope, receive, send), 9)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body


@target("service", quick=300, weight=3, allowed=())
def service(folder):
    asked = Service()
    values = np.zeros((32, 32, 3), np.uint8)
    values[8:16, 8:16], values[0, 0] = 255, 200
    square = png(values)
    files = [square, square, *(content for _, content in plain())]
    valid = ("POST", "/v1/predict", b"", [(b"content-type", b"image/png")], [square])

    def case(rng):
        request = valid if rng is None else changed(rng, files)
        return lambda: asked.ask(request)

    return case


def changed(rng, files):
    """A request: (method, path, query, headers, chunks of the body)."""
    body = rng.choice(files)
    if rng.random() < 0.6:
        body = changes.png_changed(body, rng) if body.startswith(b"\x89PNG") else changes.bytes_changed(body, rng)
    if rng.random() < 0.03:
        body = rng.choice([b"", bytes(300_000), b"\0"])
    kind = rng.choice(TYPES[:4] * 6 + TYPES)
    if rng.random() < 0.4:
        body, kind = form(rng, files)
    names = rng.sample(sorted(QUERY), rng.choice([0, 0, 1, 2]))
    query = "&".join(f"{name}={rng.choice(QUERY[name])}" for name in names).encode()
    if rng.random() < 0.1:
        query = changes.bytes_changed(query or b"=", rng)
    headers = [(b"content-type", kind.encode("latin1"))] if kind else []
    if rng.random() < 0.2:
        headers.append(rng.choice(HEADERS))
    size = rng.choice([1000, 10**6])
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    path = rng.choice(PATHS[:2] * 8 + PATHS)
    return rng.choice(METHODS), path, query, headers, chunks


def form(rng, files):
    """(body, content type) of a multipart form, which is valid in half of the cases."""
    parts = [rng.choice(files) for _ in range(rng.choice([0, 1, 1, 2, 9]))]
    names = rng.choice(
        ['name="file"; filename="a.png"', 'name="file"', "filename=a", "name=\"\xff\"; filename*=utf-8''%ff"]
    )
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {names}\r\nContent-Type: image/png\r\n\r\n".encode(
        "latin1"
    )
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    if rng.random() < 0.5:
        body = changes.bytes_changed(body, rng)
    boundary = rng.choice(
        [f"; boundary={BOUNDARY}"] * 9
        + ["", "; boundary=", "; boundary=other", "; boundary=" + "x" * 5000, "; charset=\xff"]
    )
    return body, "multipart/form-data" + boundary
