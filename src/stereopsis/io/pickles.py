"""A pickle machine that cannot call anything: foreign checkpoints become plain values and inert placeholders.

Python's own `pickle.Unpickler` imports and calls what a file names; restricting its `find_class` leaves
`REDUCE`, `BUILD` and the extension registry acting on whatever was let through. This machine is its own
interpreter over `pickletools.genops` instead: names stay strings (`Symbol`), nothing is imported, and the
only code that a file can reach is `construct`, a function of ours. A name that is not on a short list is
refused at its mention, before anything refers to it. Work and memory are linear in the file.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol, cast, runtime_checkable

MAX_STEPS = 5_000_000
MAX_INTEGER_BITS = 1024
MAX_KEY_LENGTH = 16


@dataclass(frozen=True)
class Symbol:
    """A global's full name, never looked up."""

    name: str


@dataclass(frozen=True)
class Inert:
    """What a harmless foreign object becomes: only its class's name is kept."""

    name: str


@runtime_checkable
class ByteStream(Protocol):
    """What is read here: a file open for reading bytes, or a member of an archive."""

    def read(self, size: int = -1, /) -> bytes: ...
    def readline(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


Construct = Callable[[str, tuple[object, ...]], object]
"""(name, arguments) -> what the object becomes; raises ValueError for what must not be built."""

_DICTIONARIES = re.compile(
    r"collections\.(OrderedDict|defaultdict|Counter)|(builtins|__builtin__)\.dict"
    r"|(pytorch_lightning|lightning)(\.\w+)*\.AttributeDict"
)
_PLAIN = re.compile(r"(builtins|__builtin__)\.(set|frozenset|bytearray)|_codecs\.encode|torch\.Size")
_INERT = re.compile(
    r"""functools\.partial
    | torch\.optim(\.\w+)*\.[A-Z]\w*
    | (omegaconf|pytorch_lightning|lightning|lightning_fabric|lightning_utilities)(\.\w+)*\.[A-Z]\w*
    | argparse\.Namespace | types\.SimpleNamespace
    | (easydict|yacs\.config|ml_collections(\.\w+)*|addict(\.\w+)*|munch)\.[A-Z]\w*
    | pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path
    | typing\.[A-Z]\w*
    | (builtins|__builtin__)\.(bool|int|float|complex|str|bytes|list|tuple|object|slice|range|unicode|long)
    | (copyreg|copy_reg)\._reconstructor
    | datetime\.(datetime|date|time|timedelta)
    | numpy\.(dtype|ndarray|bool_|float16|float32|float64|u?int(8|16|32|64))
    | numpy(\._core|\.core)\.multiarray\.(scalar|_reconstruct)
    | torch\.(device|Tensor|(b?float|u?int|complex)\d+|float8_\w+|bool|half|float|double|short|int|long)
    | torch\.nn\.parameter\.(Parameter|Buffer)
    """,
    re.VERBOSE,
)


def load(
    stream: ByteStream,
    construct: Construct,
    persistent: Callable[[object], object],
    *,
    symbols: re.Pattern[str],
) -> object:
    """The value of the next pickle in `stream`, which is left just behind it.

    construct: builds what `symbols` (fullmatch of a global's name) lets through; persistent: resolves
    persistent ids. Raises ValueError for malformed pickles and for forbidden names.
    """
    machine = _Machine(construct, persistent, symbols)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
        if step >= MAX_STEPS:
            raise ValueError(f"its pickle has more than {MAX_STEPS} steps")
        if opcode.name == "STOP":
            return machine.pop()
        machine.step(opcode.name, argument)
    raise ValueError("its pickle does not end")


def _shown(name: str) -> str:
    return repr(name[:200])[1:-1]


_PUSH_ARGUMENT = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_PUSH_CONSTANT: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The pickle stack machine: a stack, the stacks below open marks, and a memo."""

    def __init__(
        self, construct: Construct, persistent: Callable[[object], object], symbols: re.Pattern[str]
    ) -> None:
        self.construct, self.persistent, self.symbols = construct, persistent, symbols
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def pop(self) -> object:
        if not self.stack:
            raise ValueError("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self) -> object:
        if not self.stack:
            raise ValueError("its pickle looks at an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        if not self.below:
            raise ValueError("its pickle closes a mark that it did not open")
        items, self.stack = self.stack, self.below.pop()
        return items

    def step(self, name: str, argument: object) -> None:
        if name in _PUSH_ARGUMENT:
            if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
                raise ValueError("its pickle holds an integer of absurd size")
            self.stack.append(argument)
        elif name in _PUSH_CONSTANT:
            self.stack.append(_PUSH_CONSTANT[name]())
        elif name in _PUT and isinstance(argument, int):
            self.memo[argument] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in _GET and isinstance(argument, int):
            if argument not in self.memo:
                raise ValueError("its pickle recalls what it never stored")
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        else:
            raise ValueError(f"its pickle uses {name}, which no checkpoint needs")

    def mark(self, _: object) -> None:
        self.below.append(self.stack)
        self.stack = []

    def drop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def drop_to_mark(self, _: object) -> None:
        self.pop_mark()

    def duplicate(self, _: object) -> None:
        self.stack.append(self.top())

    def make_tuple(self, _: object) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def make_list(self, _: object) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def make_dict(self, _: object) -> None:
        items = self.pop_mark()
        self.stack.append(_update({}, items))

    def make_frozenset(self, _: object) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(_key(item) for item in items))

    def append(self, _: object) -> None:
        item = self.pop()
        _extend(self.top(), [item])

    def extend(self, _: object) -> None:
        items = self.pop_mark()
        _extend(self.top(), items)

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        _update(self.top(), [key, value])

    def set_items(self, _: object) -> None:
        items = self.pop_mark()
        _update(self.top(), items)

    def add_items(self, _: object) -> None:
        items, target = self.pop_mark(), self.top()
        if isinstance(target, set):
            target.update(_key(item) for item in items)
        elif not isinstance(target, Inert):
            raise ValueError("its pickle adds to what is not a set")

    def persistent_id(self, argument: object) -> None:
        self.stack.append(self.persistent(argument))

    def binary_persistent_id(self, _: object) -> None:
        self.stack.append(self.persistent(self.pop()))

    def symbol(self, module: object, name: object) -> Symbol:
        """The symbol of a global, or a refusal by its full name."""
        full = f"{module}.{name}"
        if isinstance(name, str) and name.isidentifier():
            for allowed in (self.symbols, _DICTIONARIES, _PLAIN, _INERT):
                if allowed.fullmatch(full):
                    return Symbol(full)
        raise ValueError(
            f"it wants to call {_shown(full)}, neither a tensor nor a plain value; nothing was executed, "
            "ask its author for a plain state dict"
        )

    def global_name(self, argument: object) -> None:
        self.stack.append(self.symbol(*str(argument).partition(" ")[::2]))

    def stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.symbol(module, name))

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(self.build_object(function, arguments))

    def new_object_with_keywords(self, _: object) -> None:
        keywords, arguments, cls = self.pop(), self.pop(), self.pop()
        made = self.build_object(cls, arguments)
        if keywords and not isinstance(made, Inert):
            raise ValueError("its pickle builds a plain value with keywords")
        self.stack.append(made)

    def old_instance(self, argument: object) -> None:
        arguments = tuple(self.pop_mark())
        self.stack.append(self.build_object(self.symbol(*str(argument).partition(" ")[::2]), arguments))

    def old_object(self, _: object) -> None:
        items = self.pop_mark()
        if not items:
            raise ValueError("its pickle builds an object of no class")
        self.stack.append(self.build_object(items[0], tuple(items[1:])))

    def build_object(self, function: object, arguments: object) -> object:
        if not isinstance(function, Symbol) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what is not a class")
        name = function.name
        if self.symbols.fullmatch(name):
            return self.construct(name, arguments)
        if name.endswith("._reconstructor") and arguments and isinstance(arguments[0], Symbol):
            name = arguments[0].name
        if _DICTIONARIES.fullmatch(name):
            pairs = arguments[-1] if arguments and isinstance(arguments[-1], list | dict) else []
            return _dictionary(pairs)
        if _PLAIN.fullmatch(name):
            return _plain(name, arguments)
        return Inert(name)

    def set_state(self, _: object) -> None:
        """BUILD: attributes of objects are of no use here, and are dropped."""
        self.pop()
        if isinstance(self.top(), Symbol):
            raise ValueError("its pickle changes a class")


_HANDLERS: dict[str, Callable[[_Machine, object], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "DUP": _Machine.duplicate,
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "FROZENSET": _Machine.make_frozenset,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "PERSID": _Machine.persistent_id,
    "BINPERSID": _Machine.binary_persistent_id,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_with_keywords,
    "INST": _Machine.old_instance,
    "OBJ": _Machine.old_object,
    "BUILD": _Machine.set_state,
}


def _key(value: object) -> object:
    """A dictionary's key: scalars and short tuples of scalars, whose hashes cost nothing."""
    parts = value if isinstance(value, tuple) else (value,)
    plain = len(parts) <= MAX_KEY_LENGTH and all(
        part is None or isinstance(part, str | bytes | bool | int | float | Symbol) for part in parts
    )
    if not plain:
        raise ValueError("its pickle has a key that is neither text nor a number")
    return value


def _update(target: object, items: list[object]) -> object:
    if len(items) % 2:
        raise ValueError("its pickle has a key without a value")
    if isinstance(target, dict):
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
    elif not isinstance(target, Inert):
        raise ValueError("its pickle sets items of what is not a dictionary")
    return target


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Inert):
        raise ValueError("its pickle appends to what is not a list")


def _dictionary(pairs: list[object] | dict[object, object]) -> object:
    if isinstance(pairs, dict):
        return dict(pairs)
    flat: list[object] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError("its pickle has a dictionary of what are not pairs")
        flat.extend(pair)
    return _update({}, flat)


def _plain(name: str, arguments: tuple[object, ...]) -> object:
    """Sets, bytes and sizes."""
    kind = name.rpartition(".")[2]
    first = arguments[0] if arguments else None
    if kind in ("set", "frozenset"):
        items = [_key(item) for item in first] if isinstance(first, list | tuple) else []
        return set(items) if kind == "set" else frozenset(items)
    if kind in ("encode", "bytearray"):
        if isinstance(first, str):
            return first.encode("latin-1")
        return first if isinstance(first, bytes) else b""
    if kind == "Size" and isinstance(first, tuple):
        return first
    return Inert(name)
