"""Why a request gets no detections."""


class RequestError(Exception):
    """A request, or one of its files, that is answered with an error.

    Args:
        status: HTTP status code.
        reason: one line for the client.
        headers: dict of further headers of the answer.
    """

    def __init__(self, status, reason, headers=None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, " ".join(str(reason).split()), headers


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""
