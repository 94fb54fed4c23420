"""Lets a program end while a pipeline is still preparing samples."""

import atexit
import threading
import time
import weakref

QUIET_SECONDS = 0.2
PATIENCE_SECONDS = 10.0


class ExitGate:
    """Counts calls in flight, and at the end of the program waits until there are none.

    TensorFlow calls Python from threads of its own. When the interpreter shuts down with such a call in flight, that
    call can never return, the dataset's iterator waits for it, and the process hangs. So the gate closes first: calls
    that come later are told to do nothing, the pipeline's buffers fill up, and all is quiet.
    """

    def __init__(self):
        self._open, self._in_flight, self._last = True, 0, 0.0
        self._lock = threading.Lock()
        _GATES.add(self)

    def __enter__(self):
        """Register a call; returns whether it should do its work."""
        with self._lock:
            self._in_flight += 1
            return self._open

    def __exit__(self, *error):
        with self._lock:
            self._in_flight -= 1
            self._last = time.monotonic()

    def close(self):
        """Refuse work from now on, and wait until no call has come for a while."""
        self._open = False
        patience = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < patience:
            with self._lock:
                if not self._in_flight and time.monotonic() - self._last > QUIET_SECONDS:
                    return
            time.sleep(0.02)


_GATES = weakref.WeakSet()


@atexit.register
def _close_all():
    for gate in list(_GATES):
        gate.close()
