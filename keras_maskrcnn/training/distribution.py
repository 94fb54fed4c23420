"""`--distribute` of the recipes: one model trained on several devices, of one process or of several.

`--batch-size` is that of all devices together, and so are the losses, the history and the scores. All processes run the
same command; the environment says which one a process is:

- multiworker: `TF_CONFIG`, a JSON object with `cluster` (`{"worker": ["host:port", …]}`, with an optional `chief`) and
  `task` (`{"type": "worker", "index": 0}`), as TensorFlow, Kubernetes operators and cloud services set it.
- jax: `JAX_COORDINATOR_ADDRESS` ("host:port" of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. Without an
  address one process uses all its devices; with the address "auto" JAX finds the three itself, as on a TPU pod.

`OUTPUT` is a folder that all processes share; process 0 alone writes in it.
"""

import json
import os
import sys

import keras

from keras_maskrcnn.backend import processes
from keras_maskrcnn.training.arguments import value
from keras_maskrcnn.training.rendezvous import meet
from keras_maskrcnn.training.run_folder import RunFolder

KINDS = ("mirrored", "multiworker", "jax")
MOST_RESTARTS = 5
_RESTARTS = "KERAS_MASKRCNN_RESTARTS"  # variable: number of complete epochs, and restarts since
_ALONE = ("minutes", "find_lr", "overfit")  # each process would end at a step of its own


def begin(arguments):
    """Joins the processes of `--distribute`, and waits for them; models made from here on are trained by all.

    Called before the backend runs any operation.

    Raises:
        ValueError: in one line, for an environment that does not fit, or a process that does not come in time.
    """
    kind = value(arguments, "distribute")
    if kind is None:
        return
    needed = "jax" if kind == "jax" else "tensorflow"
    if keras.backend.backend() != needed:
        raise ValueError(f"--distribute {kind} needs KERAS_BACKEND={needed}, not {keras.backend.backend()}")
    if kind == "mirrored":
        processes.mirrored()
    else:
        _join_others(arguments, kind)
    devices = processes.group().devices
    if arguments.batch_size % devices:
        raise ValueError(f"--batch-size {arguments.batch_size} cannot be divided among {devices} devices")


def _join_others(arguments, kind):
    index, count, address = (_of_tf_config if kind == "multiworker" else _of_jax)(os.environ)
    given = [name for name in _ALONE if getattr(arguments, name, None)] if count != 1 else []
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for one process, not for --distribute {kind}")
    if count != 1 and address is not None:
        meet(index, count, address, arguments.wait)
    if kind == "multiworker":
        processes.workers(index, count)
    else:
        processes.jax_processes(index, count, address)


def restart(arguments, error):
    """Starts this program again, which continues after the last epoch, because another process was lost.

    The processes meet again if the lost one is started again too. Returns if `error` has another cause, and after
    `MOST_RESTARTS` restarts without a further epoch.
    """
    if not processes.is_loss(error):
        return
    epoch = RunFolder.of(arguments).backup().epoch()
    before, restarts = map(int, os.environ.get(_RESTARTS, "0 0").split())
    restarts = restarts + 1 if epoch == before else 1
    if restarts > MOST_RESTARTS:
        return
    os.environ[_RESTARTS] = f"{epoch} {restarts}"
    print(f"another process was lost: waiting up to {arguments.wait:g} s for it to start again", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # open ports would stay in use
    command = [word for word in sys.orig_argv[1:] if word != "--overwrite"]
    os.execv(sys.executable, [sys.executable, *command])


def check_equal(what, found):
    """Raises a ValueError if the processes do not all have the same value, such as a folder that they do not share."""
    values = processes.group().gathered(found)
    if any(other != values[0] for other in values):
        raise ValueError(f"the processes have different {what}: {', '.join(map(str, values))}; do they share --output?")


def scaled_rate(arguments):
    """The peak of the learning rate: with `--base-batch-size N` that of N images, scaled linearly to `--batch-size`.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1. Their warm-up is that of every schedule here.
    """
    base = value(arguments, "base_batch_size")
    return arguments.learning_rate * (arguments.batch_size / base if base else 1.0)


def _of_tf_config(environment):
    """Index, number of processes, and address of process 0 from `TF_CONFIG`."""
    text = environment.get("TF_CONFIG")
    if not text:
        raise ValueError("--distribute multiworker reads the variable TF_CONFIG, which is not set")
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found["task"]
        unknown = set(cluster) - {"chief", "worker"}
        if unknown:
            raise ValueError(f"has the jobs {sorted(unknown)}; those here are worker and chief")
        addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = int(task["index"]) + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        addresses[index]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"TF_CONFIG cannot be used ({type(error).__name__}: {error}): {text}") from None
    return index, len(addresses), addresses[0]


def _of_jax(environment):
    """Index, number of processes, and address of process 0; (0, None, None) where JAX finds them."""
    address = environment.get("JAX_COORDINATOR_ADDRESS")
    if not address:
        return 0, 1, None
    if address == "auto":
        return 0, None, None
    try:
        index, count = (int(environment[name]) for name in ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"))
    except (KeyError, ValueError):
        raise ValueError("JAX_COORDINATOR_ADDRESS needs the numbers JAX_NUM_PROCESSES and JAX_PROCESS_ID") from None
    if not 0 <= index < count:
        raise ValueError(f"JAX_PROCESS_ID {index} is not in 0..{count - 1}")
    return index, count, address
