"""The processes of a training meet before they start: the backends wait without end, or abort, if one never comes."""

import select
import socket
import time

PAUSE_SECONDS = 0.2  # between two attempts to connect
_GO = b"go\n"


def meet(index, count, address, seconds):
    """Returns when all processes are here; process 0 listens, the others connect to it.

    Process 0 frees the port before it returns, so that the backend can listen there.

    Args:
        index: number of this process.
        count: number of processes.
        address: "host:port" of process 0.
        seconds: how long to wait.

    Raises:
        ValueError: in one line, if a process has not come in time.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"the address of process 0 must be HOST:PORT, not {address!r}")
    deadline = time.monotonic() + seconds
    if index == 0:
        _receive(count, int(port), deadline, seconds)
    else:
        _send(index, count, (host.strip("[]"), int(port)), deadline, seconds)


def _receive(count, port, deadline, seconds):
    came = {}
    with socket.create_server(("", port), backlog=count) as server:
        while len(came := {index: one for index, one in came.items() if _is_open(one)}) < count - 1:
            if not select.select([server], [], [], max(deadline - time.monotonic(), 0))[0]:
                missing = ", ".join(str(index) for index in range(1, count) if index not in came)
                raise ValueError(f"waited {seconds:g} s for process {missing} of {count}, which did not come")
            connection, _ = server.accept()
            index = _hello(connection, count)
            if index is not None:
                came[index] = connection  # a process that was started again replaces the one before
    for connection in came.values():
        with connection:
            connection.sendall(_GO)


def _is_open(connection):
    """Whether the other end still waits: it sends nothing after its first line."""
    return not select.select([connection], [], [], 0)[0]


def _hello(connection, count):
    """The number that a process sends; None for other visitors of the port."""
    connection.settimeout(5.0)
    try:
        word, index, of = connection.makefile("rb").readline(100).split()
        if word == b"process" and int(of) == count and 0 < int(index) < count:
            return int(index)
    except (OSError, ValueError):
        pass
    connection.close()
    return None


def _send(index, count, address, deadline, seconds):
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as connection:
                connection.sendall(b"process %d %d\n" % (index, count))
                if connection.makefile("rb").readline(100) == _GO:
                    return
        except OSError:
            pass  # nobody listens yet, or a process that is about to end
        time.sleep(PAUSE_SECONDS)
    at = f"{address[0]}:{address[1]}"
    raise ValueError(f"waited {seconds:g} s for the other {count - 1} processes; process 0 is expected at {at}")
