"""From a request to the bytes of its files, in memory, within limits of bytes and time."""

import asyncio

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from keras_maskrcnn.serve.errors import ClientGoneError, RequestError

MULTIPART = "multipart/form-data"
BYTES = "application/octet-stream"
IMAGES = (
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "image/tiff",
    "image/bmp",
    "image/x-ms-bmp",
    "image/gif",
    BYTES,
)
CLOSE = {"Connection": "close"}


def content_type(request):
    """The media type of a request, one of `IMAGES` or `MULTIPART`; no type is that of any bytes.

    Raises:
        RequestError: 415 for another type.
    """
    stated = request.headers.get("content-type", BYTES).partition(";")[0].strip().lower()
    if stated not in (*IMAGES, MULTIPART):
        raise RequestError(415, f"the content type is {stated[:100]!r}, not {MULTIPART} or one of {', '.join(IMAGES)}")
    return stated


async def body(request, max_bytes, timeout):
    """The bytes of a request's body.

    What exceeds the limit is read and dropped, because a client that is still sending does not read the answer.

    Raises:
        RequestError: 400 without bytes, 408 if they do not arrive in time, 413 if they are too many.
        ClientGoneError: the client closed the connection.
    """
    too_many = RequestError(413, f"the body has more than {max_bytes} bytes", CLOSE)
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes and "expect" in request.headers:
        raise too_many  # the client waits for the answer to its headers
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= max_bytes:
                    chunks.append(chunk)
                else:
                    chunks.clear()
    except TimeoutError:
        late = RequestError(408, f"the body is not complete after {timeout:g} seconds", CLOSE)
        raise (late if size <= max_bytes else too_many) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    if size > max_bytes:
        raise too_many
    if not size:
        raise RequestError(400, "the body is empty")
    return b"".join(chunks)


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes parts of more than a megabyte to files unless told otherwise."""

    def __init__(self, headers, content):
        async def stream():
            yield content

        super().__init__(headers, stream())
        self.spool_max_size = len(content) + 1


async def files(request, content, most):
    """The contents of the files in a multipart body: a list of bytes. Their names and types are not used.

    Raises:
        RequestError: 400 if the body is malformed or has no file, 413 if it has more than `most`.
    """
    try:
        form = await _InMemory(request.headers, content).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(400, f"the multipart body cannot be read ({error})") from None
    parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    found = [await part.read() for part in parts[: most + 1]]
    await form.close()
    if not found:
        raise RequestError(400, "the multipart body has no file")
    if len(found) > most:
        raise RequestError(413, f"the request has more than {most} files")
    return found
