"""An iterator that computes its items in a thread, ahead of the caller."""

import collections

_END = object()


def ahead(items, thread, count=1):
    """Computes the items of an iterable in a thread while the caller works on earlier ones; starts with the first now.

    Args:
        items: iterable; its own work, such as reading files, is done in the thread.
        thread: `concurrent.futures.ThreadPoolExecutor` of one worker, since two calls of `next` must not overlap.
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
