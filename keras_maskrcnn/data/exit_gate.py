"""Lets a program exit while a pipeline is still preparing samples."""

import atexit
import threading
import time
import weakref

QUIET_SECONDS = 0.2
TIMEOUT_SECONDS = 10.0


class ExitGate:
    """Counts the calls in flight, and at exit waits until there are none.

    TensorFlow calls Python from its own threads. If the interpreter shuts down during such a call, the call never
    returns, the dataset's iterator waits for it, and the process hangs. The gate is closed before that: later calls
    return without doing work until the buffers of the pipeline are full.
    """

    def __init__(self):
        self._open, self._in_flight, self._last = True, 0, 0.0
        self._lock = threading.Lock()
        _GATES.add(self)

    def __enter__(self):
        """Registers a call; returns whether the gate is open."""
        with self._lock:
            self._in_flight += 1
            return self._open

    def __exit__(self, *error):
        with self._lock:
            self._in_flight -= 1
            self._last = time.monotonic()

    def close(self):
        """Closes the gate and waits until there was no call for `QUIET_SECONDS`, at most `TIMEOUT_SECONDS`."""
        self._open = False
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if not self._in_flight and time.monotonic() - self._last > QUIET_SECONDS:
                    return
            time.sleep(0.02)


_GATES: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_all():
    for gate in list(_GATES):
        gate.close()
