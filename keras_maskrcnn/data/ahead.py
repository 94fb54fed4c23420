"""Work that is done in a thread while the caller is busy with what came before."""

_END = object()


def ahead(items, threads):
    """The items of an iterable, each made by a thread while the caller works on the one before it.

    Args:
        items: iterable; its own work, such as reading files, is done in the thread.
        threads: `concurrent.futures.Executor` with a thread to spare.

    Yields:
        the items in order. What the iterable raises is raised here.
    """
    items = iter(items)
    following = threads.submit(next, items, _END)
    while (item := following.result()) is not _END:
        following = threads.submit(next, items, _END)
        yield item
