"""How the program of a recipe ends: one line for invalid input and for Ctrl-C."""

import _thread
import sys
import threading

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.training import distribution
from keras_maskrcnn.training.run_folder import RunFolder


def main(run, arguments):
    """Call `run(arguments)`; invalid input is one line on stderr and exit code 2, Ctrl-C a line and exit code 130."""
    sys.unraisablehook = _unraisable
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted{_after(arguments)}", file=sys.stderr)
        sys.exit(130)
    except (DataError, ValueError, OSError) as error:
        distribution.restart(arguments, error)
        if arguments.debug:
            raise
        print(f"error: {_named(error, arguments)}".replace("\n", " "), file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        distribution.restart(arguments, error)
        raise


def _unraisable(error, usual=sys.unraisablehook):
    """Raises a Ctrl-C again that came while an object was being deleted, where Python prints and drops it."""
    if issubclass(error.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        usual(error)


def _named(error, arguments):
    """The error; one of the system that names no file, such as that of a full disk, with the folder of the run."""
    if isinstance(error, OSError) and error.errno and not error.filename and "output" in arguments:
        return f"{arguments.output}: {error.strerror}"
    return error


def _after(arguments):
    """What a stopped run does when it is started again."""
    if "overwrite" not in arguments:  # not arguments of `arguments.parser`
        return ""
    folder = RunFolder.of(arguments)
    if folder.finished:  # while its last lines were printed, or while a learning rate was looked for
        return f"; {folder.path} holds a finished run"
    epoch = folder.backup().epoch()
    if not epoch:
        return " in the first epoch; the same command starts it again"
    return f"; the same command continues after epoch {epoch}"
