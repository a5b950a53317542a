"""Pickles as data: an interpreter of the pickle format in which no class is imported and nothing is called.

Python's own `Unpickler` imports what a pickle names and calls it. Here, a name stays a `Name`. A call of a name on the
closed list in `pickle_names` gives plain data or an array; any other becomes a `Foreign` object, which holds what it
was given and does nothing. Whether such names are accepted is decided afterwards, by `pickle_names.check_names`.
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from maskrcnn.checkpoints.h5_content import RefusedError

_MOST_STEPS = 2_000_000  # opcodes; a checkpoint with an optimizer has 100 000
_MOST_TUPLE_KEYS = 1000  # tuples have hashes that can be chosen, and then a dictionary is slow
_LONGEST_TUPLE_KEY = 16
_NEWEST_PROTOCOL = 5


@dataclass(frozen=True)
class Name:
    """Something outside the pickle, not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Foreign:
    """An object of a class or function that is not known, with all that it was given."""

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pickle:
    """What is in a pickle: a value, all names in it, and those that it calls."""

    value: Any
    names: frozenset[Name]
    called: frozenset[Name]


class Window:
    """A part of a file as a stream that ends with the part, so that no length in it makes us take more memory."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream, self._place, self._end = stream, start, end
        stream.seek(start)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._place

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        data = self._stream.read(max(0, min(count, self._end - self._place)))
        self._place += len(data)
        return data

    def readline(self) -> bytes:
        """Return the rest of a line."""
        data = self._stream.readline(self._end - self._place)
        self._place += len(data)
        return data


Call = Callable[[Name, tuple[Any, ...]], Any]
Build = Callable[[Any, Any], Any]


def read_pickle(stream: Window, call: Call, build: Build, persistent: Callable[[Any], Any] | None = None) -> Pickle:
    """Read one pickle; the stream is then behind it.

    Args:
        stream: At the start of the pickle.
        call: Returns what a call of a name with arguments gives.
        build: Returns an object after it was given a state.
        persistent: Returns what a persistent id stands for; None if there are none in this kind of file.

    Raises:
        RefusedError: It is truncated, damaged, too large, or uses what weights do not need.
    """
    machine = _Machine(call, build, persistent, stream)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `pickletools` reads texts as Python does, which warns of odd ones
            for steps, (opcode, argument, _) in enumerate(pickletools.genops(cast(BinaryIO, stream))):
                if steps > _MOST_STEPS:
                    raise RefusedError(f"is no file of weights: a pickle in it has more than {_MOST_STEPS} steps")
                machine.step(opcode.name, argument)
    except (ValueError, OverflowError) as error:  # of `pickletools`
        raise RefusedError(f"is truncated or damaged: {error}") from error
    return machine.end()


_MARK = object()


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self, call: Call, build: Build, persistent: Callable[[Any], Any] | None, stream: Window) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._names: set[Name] = set()
        self._called: set[Name] = set()
        self._call, self._build, self._persistent, self._stream = call, build, persistent, stream
        self._tuple_keys = 0
        self._copied = 0

    def end(self) -> Pickle:
        """Return what was read."""
        value = self._pop()
        if self._stack:
            raise _damaged("it ends too early")
        return Pickle(value, frozenset(self._names), frozenset(self._called))

    def step(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says."""
        if opcode in _VALUES:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode == "PROTO" and argument > _NEWEST_PROTOCOL:
            raise _damaged(f"there is no pickle protocol {argument}")
        elif opcode in _REFUSED:
            raise RefusedError(f"is not loaded: a pickle in it uses {_REFUSED[opcode]}, which weights do not need")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _damaged("a value is missing")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(self._pop())
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        found: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return found[::-1]
            found.append(value)
        raise _damaged("a mark is missing")

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _pop_any(self, _: Any) -> None:
        if not self._stack:
            raise _damaged("a value is missing")
        self._stack.pop()

    def _pop_to_mark(self, _: Any) -> None:
        self._pop_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _get(self, key: int) -> None:
        if key not in self._memo:
            raise _damaged(f"entry {key} of the memo is missing")
        self._stack.append(self._memo[key])

    def _put(self, key: int) -> None:
        self._memo[key] = self._top()

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def _tuple_of(self, count: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_mark())

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set(items)

    def _frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(map(self._key, self._pop_mark())))

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list | Foreign):
            raise _damaged(f"something is appended to a {type(target).__name__}")
        (target.items if isinstance(target, Foreign) else target).extend(items)

    def _add(self, _: Any) -> None:
        items, target = self._pop_mark(), self._top()
        if isinstance(target, Foreign):
            target.items.extend(items)
        elif isinstance(target, set):
            target.update(map(self._key, items))
        else:
            raise _damaged(f"something is added to a {type(target).__name__}")

    def _set_one(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _set_many(self, _: Any) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict | Foreign) or len(items) % 2:
            raise _damaged(f"an entry of a {type(target).__name__} is wrong")
        pairs = target.pairs if isinstance(target, Foreign) else target
        for key, value in zip(items[::2], items[1::2], strict=True):
            pairs[self._key(key)] = value

    def _key(self, value: Any) -> Any:
        """Return a key of a dictionary; one inside many tuples would take a stack to find its hash."""
        if isinstance(value, tuple):
            self._tuple_keys += 1
            if self._tuple_keys > _MOST_TUPLE_KEYS or len(value) > _LONGEST_TUPLE_KEY:
                raise RefusedError("is no file of weights: a pickle in it has too many tuples as keys")
            if all(isinstance(part, _PLAIN_KEYS) for part in value):
                return value
        elif isinstance(value, (*_PLAIN_KEYS, Foreign)):
            return value
        raise _damaged(f"a {type(value).__name__} is a key")

    def _global(self, argument: str) -> None:
        self._push_name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_name(module, name)

    def _push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _damaged("a name is not text")
        self._stack.append(Name(module, name))
        self._names.add(self._stack[-1])

    def _reduce(self, _: Any) -> None:
        arguments, called = self._pop(), self._pop()
        self._push_call(called, arguments)

    def _new_object_extended(self, _: Any) -> None:
        keywords, arguments, called = self._pop(), self._pop(), self._pop()
        if not isinstance(keywords, dict) or not isinstance(arguments, tuple):
            raise _damaged("arguments are missing")
        self._push_call(called, (*arguments, keywords) if keywords else arguments)

    def _instance(self, argument: str) -> None:
        arguments = self._pop_mark()
        self._global(argument)
        self._push_call(self._pop(), tuple(arguments))

    def _object(self, _: Any) -> None:
        called, *arguments = self._pop_mark() or [None]
        self._push_call(called, tuple(arguments))

    def _push_call(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise _damaged(f"a {type(called).__name__} is called")
        # What a call copies was perhaps put there once and is named often.
        self._copied += sum(len(part) for part in arguments if isinstance(part, list | dict | str | bytes | set))
        if self._copied > 4 * self._stream.tell() + _MOST_STEPS:
            raise RefusedError("is no file of weights: a pickle in it uses the same values again and again")
        self._called.add(called)
        self._stack.append(self._call(called, arguments))

    def _build_top(self, _: Any) -> None:
        state, target = self._pop(), self._pop()
        self._stack.append(self._build(target, state))

    def _persistent_id(self, _: Any) -> None:
        if self._persistent is None:
            raise RefusedError("is not loaded: a pickle in it refers to data outside itself, as only torch.save does")
        self._stack.append(self._persistent(self._pop()))


def _damaged(what: str) -> RefusedError:
    return RefusedError(f"is truncated or damaged: in a pickle, {what}")


_PLAIN_KEYS = (str, bytes, int, float, type(None), Name)
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_REFUSED = {
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "the registry of extensions"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "buffers outside itself"),
    "PERSID": "data outside itself",
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._pop_any,
    "POP_MARK": _Machine._pop_to_mark,
    "DUP": _Machine._duplicate,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine._put),
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "FROZENSET": _Machine._frozenset,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._add,
    "SETITEM": _Machine._set_one,
    "SETITEMS": _Machine._set_many,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_object_extended,
    "INST": _Machine._instance,
    "OBJ": _Machine._object,
    "BUILD": _Machine._build_top,
    "BINPERSID": _Machine._persistent_id,
}
