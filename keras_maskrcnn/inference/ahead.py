"""Work that is done in a thread while the caller is busy with what came before."""

import collections

_END = object()


def ahead(items, thread, count=1):
    """The items of an iterable, made by a thread while the caller works on those before them; the first is begun now.

    Args:
        items: iterable; its own work, such as reading files, is done in the thread.
        thread: `concurrent.futures.ThreadPoolExecutor` of one worker: an iterator cannot be asked twice at a time.
        count: items that are made, or wait, at most while the caller works.

    Returns:
        iterator of the items in order. What the iterable raises is raised here.
    """
    items = iter(items)
    waiting = collections.deque(thread.submit(next, items, _END) for _ in range(count))

    def results():
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, items, _END))
            yield item

    return results()
