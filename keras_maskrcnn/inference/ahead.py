"""An iterator that computes its items in a thread, ahead of the caller, and the threads for it."""

import collections
import concurrent.futures
import contextlib
import os

_END = object()
_idle: list[concurrent.futures.ThreadPoolExecutor] = []


@contextlib.contextmanager
def kept_thread():
    """Lends a `ThreadPoolExecutor` of one worker, which is kept for later calls.

    A thread for each call would cost memory: what it allocates lies in an arena of its own, which the next thread need
    not get, and TensorFlow never frees a list that it makes for each thread. An error or a closed generator ends the
    thread, after the item that it works on.
    """
    try:
        thread = _idle.pop()
    except IndexError:
        thread = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield thread
    except BaseException:
        thread.shutdown(cancel_futures=True)
        raise
    _idle.append(thread)


# A forked process has the executors, but not their threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def ahead(items, thread, count=1):
    """Computes the items of an iterable in a thread while the caller works on earlier ones; starts with the first now.

    Args:
        items: iterable; its own work, such as reading files, is done in the thread.
        thread: of `kept_thread`; it has one worker, since two calls of `next` must not overlap.
        count: maximum number of items that are computed ahead.

    Returns:
        iterator of the items in order. It raises the exceptions of the iterable.
    """
    items = iter(items)
    waiting = collections.deque(thread.submit(next, items, _END) for _ in range(count))

    def results():
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, items, _END))
            yield item

    return results()
