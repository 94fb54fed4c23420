"""`keras`, imported as programs need it; a program imports this before all else.

TensorFlow takes its tensors from a pool of memory that it keeps. By default it returns each one to the system, which
hands out zeroed pages for the next: a simple operation on 79 MB takes eight times as long as one on 29 MB, and training
steps 6 to 17 % longer (docs/speed.md). `TF_CPU_ALLOCATOR_USE_BFC=false` switches the pool off.

The banners that TensorFlow prints on import are left out. Ctrl-C during the import, which takes seconds, ends the
program with exit code 130 and no traceback, and so does one during what the program imports after it.

TensorFlow reads `TF_CPP_MIN_LOG_LEVEL` only after its libraries have printed their first lines, so these are removed
from what the import writes to stderr, at its end. Level 3 also hides TensorFlow's errors, such as that of a GPU that
cannot be used; `python -m keras_maskrcnn info` lists the devices. Another level set by the user disables this.
"""

import contextlib
import os
import re
import sys
import tempfile

_BANNER = re.compile(
    rb"I0000 |WARNING: All log messages before absl::InitializeLog|To enable the following instructions"
)


@contextlib.contextmanager
def _without_banners():
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            written.seek(0)
            for line in written:
                if not _BANNER.match(line):
                    os.write(stderr, line)
            os.close(stderr)


def _without_traceback_of_ctrl_c(kind, error, traceback, usual=sys.excepthook):
    if not issubclass(kind, KeyboardInterrupt):
        usual(kind, error, traceback)


sys.excepthook = _without_traceback_of_ctrl_c
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
try:
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":  # a process of ours hands it on to its own
        with _without_banners():
            import keras
    else:
        import keras
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["keras"]
