"""Reads a pickle as data: no module is imported, no class is looked up, no code from the file is executed.

A pickle is a program for a stack machine. `pickletools` parses it, and `load` executes the few instructions that files
of arrays contain, on lists, dicts, tuples and scalars. Names such as `numpy.ndarray` or
`torch._utils._rebuild_tensor_v2` are looked up in the caller's table, which maps them to harmless replacements; all
other names and instructions are rejected. `pickle.Unpickler` with a custom `find_class` would still let a file set
attributes on the objects it finds, hash tuples nested deeply enough to overflow the C stack, and choose the size of the
memo.
"""

import pickletools
from collections.abc import Callable
from typing import NamedTuple

# A pickle can pass the same large text or list to many calls, which copy it. The limit of all copies is
# MAX_COPIES times the bytes read so far, plus FREE_BYTES; valid files need twice the bytes.
MAX_COPIES = 4
FREE_BYTES = 2**20
SIZED = (str, bytes, bytearray, tuple, list, dict)
SCALARS = (str, bytes, int, float, type(None))


class UnreadableError(ValueError):
    """Error for a file whose content cannot be used; the message is the reason."""


class Name(NamedTuple):
    """A global that a pickle refers to.

    Attributes:
        name: "module.attribute".
        make: Function that replaces the global in calls; None if it must not be called.
    """

    name: str
    make: Callable | None

    def call(self, arguments):
        """Calls the replacement with a tuple of arguments."""
        if self.make is None:
            raise UnreadableError(f"its pickle calls {self.name}, which files of arrays do not")
        return self.make(*arguments)


def ignored(*_arguments):
    """Replacement for objects that are not needed, such as the arguments of a training run: None."""
    return


def load(stream, names, persistent=None):
    """Reads one pickle.

    Args:
        stream: Binary stream with read and readline at the first byte of the pickle; afterwards it is past its end.
        names: Dict from "module.attribute" to the replacement function, or None for globals that must not be called.
        persistent: Function from a persistent id to an object; None if persistent ids are not allowed.

    Returns:
        The object. Dicts and their subclasses are returned as dict, other objects as created by `names`.

    Raises:
        UnreadableError: The pickle contains a global or an instruction that files of arrays do not need, or its calls
            copy more than `MAX_COPIES` times its size.
        Exception: Any other class, if the bytes are not a valid pickle.
    """
    machine = _Machine(names, persistent)
    start = stream.tell()
    for instruction, argument, place in pickletools.genops(stream):
        machine.size = place - start
        if instruction.name == "STOP":
            return machine.stack.pop()
        step = STEPS.get(instruction.name)
        if step is None:
            raise UnreadableError(
                f"its pickle has the instruction {instruction.name}, which files of arrays do not need"
            )
        step(machine, argument)
    raise UnreadableError("its pickle has no end")


def as_dict(items=()):
    """A dict from a dict or from pairs, with scalar keys: the replacement for OrderedDict and Counter."""
    if isinstance(items, dict):
        return items
    result = {}
    for key, value in items:
        _set_item(result, key, value)
    return result


def _set_item(target, key, value):
    if type(target) is not dict or not isinstance(key, SCALARS):
        raise UnreadableError("its pickle sets an item of an object that is not a dict with scalar keys")
    target[key] = value


class _Machine:
    """Stack, marks and memo, with one method per kind of instruction, called with the instruction's argument."""

    def __init__(self, names, persistent):
        self.names, self.persistent = names, persistent
        self.stack, self.marks, self.memo = [], [], {}
        self.size = self.copied = 0  # bytes

    def nothing(self, _):
        pass

    def push(self, value):
        self.stack.append(value)

    def mark(self, _):
        self.marks.append(len(self.stack))

    def pop_to_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_last(self, count):
        if len(self.stack) < count:
            raise UnreadableError("its pickle pops more items than the stack holds")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def make_list(self, _):
        self.push(self.pop_to_mark())

    def make_tuple(self, _):
        self.push(tuple(self.pop_to_mark()))

    def make_dict(self, _):
        items = self.pop_to_mark()
        self.push(as_dict(zip(items[::2], items[1::2], strict=True)))

    def extend(self, items):
        if type(self.stack[-1]) is not list:
            raise UnreadableError("its pickle appends to an object that is not a list")
        self.stack[-1].extend(items)

    def update(self, items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(self.stack[-1], key, value)

    def memoize(self, index):
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index):
        self.push(self.memo[index])

    def name(self, pair):
        """Pushes a global; `pair` is "module attribute", the argument of the instruction."""
        name = ".".join(pair.split(" "))
        if name not in self.names:
            raise UnreadableError(f"its pickle refers to {name[:80]!r}, which is not allowed; no code was executed")
        self.push(Name(name, self.names[name]))

    def name_on_stack(self, _):
        module, attribute = self.pop_last(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnreadableError("its pickle refers to a global by an object that is not a text")
        self.name(f"{module} {attribute}")

    def count_copies(self, values):
        """Adds the sizes of values that a call or a state may copy; checks the limit."""
        self.copied += sum(len(value) for value in values if isinstance(value, SIZED))
        if self.copied > MAX_COPIES * self.size + FREE_BYTES:
            raise UnreadableError(f"its pickle copies more than {__name__}.MAX_COPIES = {MAX_COPIES} times its size")

    def call(self, _):
        callee, arguments = self.pop_last(2)
        if not isinstance(callee, Name) or type(arguments) is not tuple:
            raise UnreadableError("its pickle calls an object that is not a function")
        self.count_copies(arguments)
        self.push(callee.call(arguments))

    def build(self, _):
        """Passes a state to the object on the stack; dicts and ignored objects drop it."""
        target, state = self.pop_last(2)
        if hasattr(target, "build"):
            if type(state) is not tuple:
                raise UnreadableError("its pickle sets a state that is not a tuple")
            self.count_copies(state)
            target.build(*state)
        elif target is not None and type(target) is not dict:
            raise UnreadableError("its pickle sets the state of an object that has none")
        self.push(target)

    def persistent_object(self, _):
        if self.persistent is None:
            raise UnreadableError("its pickle refers to external data")
        self.push(self.persistent(self.stack.pop()))


STEPS = {
    **dict.fromkeys(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"], _Machine.push),
    **dict.fromkeys(["FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"], _Machine.push),
    **dict.fromkeys(["UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"], _Machine.push),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"], _Machine.push),
    **dict.fromkeys(["PROTO", "FRAME"], _Machine.nothing),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.memoize),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _Machine.recall),
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _Machine.call),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": _Machine.mark,
    "LIST": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop_last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop_last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop_last(3))),
    "DICT": _Machine.make_dict,
    "APPEND": lambda machine, _: machine.extend(machine.pop_last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.pop_last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_object,
}
