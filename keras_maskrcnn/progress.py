"""A line on the terminal that says how far a long loop is."""

import sys
import time


def bar(noun):
    """Returns a function that shows the numbers of things done and of all on one line, or None without a terminal."""
    if not sys.stderr.isatty():
        return None
    start = time.monotonic()

    def show(done, total):
        left = (time.monotonic() - start) / done * (total - done)
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} {noun}, {left:.0f} s left   ", end=end, file=sys.stderr, flush=True)

    return show
