"""Connections of slow clients: limits of time that uvicorn does not have."""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """HTTP/1.1 on a connection that is closed when its client is too slow.

    It is closed when the head of a request is not complete in time, counted from the start of the connection or from
    the first byte after an earlier request, and when the client leaves so much of an answer unread for that time that
    the transport asks to pause. `uploads.body` limits the time of bodies.

    Args:
        timeout: seconds.
        options: of uvicorn's `H11Protocol`.
    """

    def __init__(self, timeout, **options):
        super().__init__(**options)
        self._timeout, self._head, self._reader = timeout, None, None

    def connection_made(self, transport):
        """Begins to wait for the head of the first request."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self._timeout, transport.abort)

    def data_received(self, data):
        """Reads requests."""
        super().data_received(data)
        self._watch_head()

    def _watch_head(self):
        if self.conn.their_state is not h11.IDLE:
            self._head = _cancelled(self._head)
        elif self._head is None and self.conn.trailing_data[0]:
            self._head = self.loop.call_later(self._timeout, self.transport.abort)

    def pause_writing(self):
        """Begins to wait for the client to read."""
        super().pause_writing()
        self._reader = self.loop.call_later(self._timeout, self.transport.abort)

    def resume_writing(self):
        """Goes on with the answer."""
        super().resume_writing()
        self._reader = _cancelled(self._reader)

    def on_response_complete(self):
        """Waits for the next request, or closes the connection even if the client does not read the answer's rest."""
        super().on_response_complete()
        self._watch_head()
        if self.transport.is_closing():
            self.loop.call_later(self._timeout, self.transport.abort)

    def timeout_keep_alive_handler(self):
        """Closes a connection without a request, and drops what its client has not read."""
        super().timeout_keep_alive_handler()
        self.transport.abort()

    def connection_lost(self, exc):
        """Forgets the connection."""
        super().connection_lost(exc)
        self._head, self._reader = _cancelled(self._head), _cancelled(self._reader)


def _cancelled(timer):
    if timer is not None:
        timer.cancel()
