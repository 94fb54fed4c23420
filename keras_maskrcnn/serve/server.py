"""The process: models, a port, and a stop that finishes what has begun."""

import contextlib
import functools
import math
import signal
import socket
import warnings

import uvicorn
from PIL import Image

from keras_maskrcnn.serve import logs
from keras_maskrcnn.serve.app import create_app
from keras_maskrcnn.serve.connections import TimedProtocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEEP_ALIVE = 65  # seconds; proxies keep connections for 60, and an answer is lost if the service closes one first


def run(open_models, settings, host="127.0.0.1", port=8000, log_level="info"):
    """Serves until SIGTERM or SIGINT, and then answers the requests that have begun, for `settings.timeout` seconds.

    Args:
        open_models: function that returns the models, as `create_app` takes them; it is called when the address is
            bound.
        settings: `Settings`.
        host: address of the network interface; "0.0.0.0" for all.
        port: 0 for any free one.
        log_level: "debug", "info", "warning" or "error".

    Raises:
        OSError: if another process listens on the port, or the address is not one of this machine.
    """
    logs.configure(log_level)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused
    with bound(host, port) as taken:
        app = create_app(open_models(), settings)
        app.state.service.warm_up()
        config = uvicorn.Config(
            app,
            http=functools.partial(TimedProtocol, settings.timeout),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(settings.timeout),
        )
        _Server(config, app.state.service).run([taken])


def bound(host, port):
    """A socket that is bound but does not listen, so that clients are refused until the models are ready.

    An address where another process listens is an error here. Two services that load their models at the same time
    both bind it (SO_REUSEADDR), and the one that is ready later ends with an error when it begins to listen.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    taken = socket.socket(family, kind, protocol)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return taken


class _Server(uvicorn.Server):
    """Uvicorn's server that states its address, and ends with exit code 0 on a signal."""

    def __init__(self, config, service):
        super().__init__(config)
        self._service = service

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        host, port = sockets[0].getsockname()[:2]
        names = ", ".join(self._service.names)
        print(f"serving {names} on http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)

    @contextlib.contextmanager
    def capture_signals(self):
        before = {one: signal.signal(one, self.handle_exit) for one in SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig, frame):
        self._service.stopping = True
        super().handle_exit(sig, frame)
