"""One JSON line per request on stderr, and the last resort for errors of the program."""

import datetime
import json
import logging
import sys
import time

from starlette.responses import JSONResponse

from keras_maskrcnn.serve.errors import ClientGoneError

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
CLIENT_GONE = 499  # as in the logs of nginx; also of requests that end without an answer when the service stops
LONGEST = 200  # characters of a path in the log
logger = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: the time, the level, and the `fields` of the record or its message."""

    def format(self, record):
        """The line."""
        time_of = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time_of, "level": record.levelname.lower()}
        line |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level):
    """Writes records to stderr: those of the service from a level on, of uvicorn from the level "warning" on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    level = logging.getLevelName(level.upper())
    for name, least in ((__package__, level), ("uvicorn", max(level, logging.WARNING))):
        own = logging.getLogger(name)
        own.handlers, own.propagate = [handler], False
        own.setLevel(least)


class Watched:
    """ASGI middleware that logs and counts every request, and answers 500 where the program fails.

    Handlers add to the line of their request by `request.state.log`, a dict.

    Args:
        app: ASGI application.
        metrics: `metrics.Metrics`.
    """

    def __init__(self, app, metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), None
        line = scope.setdefault("state", {})["log"] = {}

        async def sending(message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientGoneError:
            status = CLIENT_GONE
        except Exception as error:
            logger.exception("%s", error, extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
            if status is None:
                await JSONResponse({"error": "internal error"}, 500)(scope, receive, sending)
        finally:
            self._note(scope, line, status or CLIENT_GONE, time.perf_counter() - begin)

    def _note(self, scope, line, status, seconds):
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.answered(method, route, status, seconds)
        fields = {"method": method, "path": scope["path"][:LONGEST], "status": status, "ms": round(1000 * seconds, 1)}
        logger.info("", extra={"fields": fields | line})
