"""What a pickle would do, read before anything is unpickled: opcodes, names, keys, nesting, and sizes against the file.

A stack of descriptions stands for the unpickler's stack of objects, so that nothing of the file is built. Every limit
follows from the number of bytes in the file: a small file can neither take much memory nor much time.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from nrccr.sizes import MAX_DEPTH

Bytes = bytes | mmap.mmap
_OPCODES = {ord(op.code): op for op in pickletools.opcodes}
_LENGTHS = {-2: 1, -3: 4, -4: 4, -5: 8}  # pickletools: how many bytes hold the length of an argument
_KEPT = 200  # bytes of text and entries of a tuple that are remembered
MAX_PLACE = 20  # digits of a remembered value's number
_WIDEST_KEY = 1 << 56  # equal hashes need greater numbers
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": 1, "NEWFALSE": 0, "EMPTY_TUPLE": ()}
_NAMES = ("GLOBAL", "STACK_GLOBAL")
_UNUSED = {"PERSID", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "NEWOBJ_EX"}


class DamagedError(Exception):
    """A pickle that no honest program writes: what is wrong with it."""


class NamedError(Exception):
    """A pickle names a class or function that is not on the list."""


@dataclass(slots=True)
class Thing:
    """An object that the unpickler would have.

    Attributes:
        kind: text, number, name, tuple, list, dict, set, made (by a call) or other.
        size: how many bytes or entries it has.
        depth: how deep containers lie in it.
        value: the text or number itself, the entries of a tuple, what was called; none where it is long.
        plain: whether all entries of a list can be keys.
        pairs: whether all entries of a list are pairs whose first can be a key.
    """

    kind: str
    size: int = 1
    depth: int = 0
    value: Any = None
    plain: bool = True
    pairs: bool = True

    @property
    def is_key(self) -> bool:
        """Whether it may be a key: text or a number of moderate size."""
        return self.kind == "text" or (self.kind == "number" and self.value is not None)


_MARK = Thing("mark")
_FLOAT = Thing("number", value=0.5)


@dataclass
class Rules:
    """What a kind of file may hold.

    Attributes:
        names: what it may name, `module.name`.
        storage: is told of each storage of tensors: its type's name, key and number of entries; none where there are
            none.
    """

    names: Collection[str]
    storage: Callable[[str, str, int], None] | None = None


@dataclass
class Scan:
    """The scan of one pickle.

    Attributes:
        data: the file's bytes.
        rules: see Rules.
        at: where the pickle begins; then where it ends.
    """

    data: Bytes
    rules: Rules
    at: int = 0
    stack: list[Thing] = field(default_factory=list)
    memo: dict[int, Thing] = field(default_factory=dict)
    steps: int = 0
    marks: int = 0
    copied: int = 0

    def run(self) -> Thing:
        """Read up to the end of the pickle; returns what it holds.

        Raises:
            DamagedError: it is damaged, or would take more than its size allows.
            NamedError: it names a class or function that is not on the list.
        """
        begin = self.at
        try:
            while True:
                opcode = _OPCODES.get(self.data[self.at])
                if opcode is None or opcode.name in _UNUSED:
                    raise DamagedError(f"unknown or unused instruction {self.data[self.at]:#x} at byte {self.at}")
                self.at += 1
                self.steps += 1
                argument = self._argument(opcode)
                if opcode.name == "STOP":
                    return self._pop()
                self._do(opcode.name, argument)
                if self.copied > 8 * (self.at - begin) + 2**20:
                    raise DamagedError("the same data is copied over and over")
        except IndexError:
            raise DamagedError(f"cut short, or an instruction without operands before byte {self.at}") from None
        except (UnicodeDecodeError, ValueError) as error:
            raise DamagedError(f"text or a number that is none before byte {self.at}") from error

    def _argument(self, opcode: pickletools.OpcodeInfo) -> tuple[int, int]:
        """Where the argument of an instruction begins and ends."""
        if opcode.arg is None:
            return self.at, self.at
        length, begin = opcode.arg.n, self.at
        if length >= 0:
            end = begin + length
        elif length == pickletools.UP_TO_NEWLINE:
            end = begin - 1
            for _ in range(2 if opcode.name == "GLOBAL" else 1):
                end = self.data.find(b"\n", end + 1)
                if end < 0:
                    raise DamagedError(f"a line without an end at byte {begin}")
            self.at = end + 1
            return begin, end
        else:
            begin += _LENGTHS[length]
            signed = length == pickletools.TAKEN_FROM_ARGUMENT4
            declared = int.from_bytes(self.data[self.at : begin], "little", signed=signed)
            if declared < 0:
                raise DamagedError(f"a negative length at byte {self.at}")
            end = begin + declared
        if end > len(self.data):
            raise DamagedError(f"{end - begin} bytes announced at byte {self.at} of {len(self.data)}")
        self.at = end
        return begin, end

    def _do(self, name: str, argument: tuple[int, int]) -> None:
        begin, end = argument
        if name in _CONSTANTS or name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
            self.stack.append(_empty(name))
        elif name == "MARK":
            self.marks += 1
            if self.marks > MAX_DEPTH:
                raise DamagedError(f"nested more than {MAX_DEPTH} deep")
            self.stack.append(_MARK)
        elif "PUT" in name or name == "MEMOIZE":
            index = len(self.memo) if name == "MEMOIZE" else self._number(name, begin, end)
            if not 0 <= index <= self.steps:
                raise DamagedError(f"value {index} is remembered where there are at most {self.steps}")
            self.memo[index] = self._top()
        elif "GET" in name:
            found = self.memo.get(self._number(name, begin, end))
            if found is None:
                raise DamagedError(f"a value that was never remembered is used before byte {self.at}")
            self.stack.append(found)
        elif name == "GLOBAL":
            module, _, own = bytes(self.data[begin:end]).decode("utf-8").partition("\n")
            self._named(f"{module}.{own}")
        elif name == "STACK_GLOBAL":
            own, module = self._pop(), self._pop()
            if own.kind != "text" or module.kind != "text" or own.value is None or module.value is None:
                raise DamagedError(f"a class or function without a name before byte {self.at}")
            self._named(f"{module.value}.{own.value}")
        elif name in ("FRAME", "PROTO"):
            if name == "FRAME" and int.from_bytes(self.data[begin:end], "little") > len(self.data) - end:
                raise DamagedError(f"a frame longer than the file at byte {begin}")
        elif name in ("INT", "LONG", "LONG1", "LONG4") or name.startswith("BININT"):
            self.stack.append(self._whole(name, begin, end))
        elif "FLOAT" in name:
            self.stack.append(_FLOAT)
        elif end > begin or "STRING" in name or "UNICODE" in name or "BYTES" in name or name == "BYTEARRAY8":
            self._text(name, begin, end)
        else:
            self._combine(name)

    def _number(self, name: str, begin: int, end: int) -> int:
        raw = bytes(self.data[begin:end])
        if len(raw) > MAX_PLACE:  # the unpickler would read all of it
            raise DamagedError(f"a place of {len(raw)} digits")
        return int(raw) if name in ("PUT", "GET") else int.from_bytes(raw, "little")

    def _whole(self, name: str, begin: int, end: int) -> Thing:
        if end - begin > 300:
            raise DamagedError(f"a number of {end - begin} bytes")
        raw = bytes(self.data[begin:end])
        if name in ("INT", "LONG"):
            value = int(raw.rstrip(b"L"))
        else:
            value = int.from_bytes(raw, "little", signed=name in ("BININT", "LONG1", "LONG4"))
        return Thing("number", value=value if abs(value) < _WIDEST_KEY else None)

    def _text(self, name: str, begin: int, end: int) -> None:
        size = end - begin
        value = bytes(self.data[begin:end]).decode("utf-8", "replace") if size <= _KEPT else None
        if name == "STRING" and value is not None:
            value = value.strip("'\"")
        self.stack.append(Thing("text" if name != "BYTEARRAY8" else "other", size=size, value=value))

    def _named(self, name: str) -> None:
        if name not in self.rules.names:
            raise NamedError(name)
        self.stack.append(Thing("name", value=name))

    def _top(self) -> Thing:
        found = self.stack[-1]
        if found is _MARK:
            raise DamagedError(f"an instruction without operands before byte {self.at}")
        return found

    def _pop(self) -> Thing:
        found = self._top()
        self.stack.pop()
        return found

    def _since_mark(self) -> list[Thing]:
        self.marks -= 1
        items: list[Thing] = []
        while (found := self.stack.pop()) is not _MARK:
            items.append(found)
        return items[::-1]

    def _combine(self, name: str) -> None:
        """An instruction that makes something of what lies on the stack."""
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self._tuple([self._pop() for _ in range(int(name[-1]))][::-1])
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._since_mark()
            if name == "TUPLE":
                self._tuple(items)
            else:
                self.stack.append(_empty(f"EMPTY_{name}" if name != "FROZENSET" else "EMPTY_SET"))
                self._fill(name, items)
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            self._fill({"APPENDS": "LIST", "SETITEMS": "DICT", "ADDITEMS": "SET"}[name], self._since_mark())
        elif name in ("APPEND", "SETITEM"):
            items = [self._pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
            self._fill("LIST" if name == "APPEND" else "DICT", items)
        elif name == "POP":
            if self.stack.pop() is _MARK:
                self.marks -= 1
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "BINPERSID":
            self._storage(self._pop())
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = self._pop(), self._pop()
            self.stack.append(self._call(called, arguments))
        elif name == "BUILD":
            state = self._pop()
            self.copied += state.size
            if state.kind != "dict" and not self._top().plain:
                raise DamagedError("a state that is no dict")
            if state.kind == "tuple":
                self.copied += sum(part.size for part in state.value or ())
        else:
            raise DamagedError(f"unknown instruction {name}")

    def _tuple(self, items: list[Thing]) -> None:
        kept = tuple(items) if len(items) <= _KEPT else None
        self.stack.append(Thing("tuple", len(items), _deeper(items), kept, plain=all(item.is_key for item in items)))

    def _fill(self, kind: str, items: list[Thing]) -> None:
        target = self._top()
        target.size += len(items)
        target.depth = max(target.depth, _deeper(items))
        if kind == "LIST":
            target.plain = target.plain and all(item.is_key for item in items)
            target.pairs = target.pairs and all(_is_pair(item) for item in items)
            if not target.value and items:
                target.value = items[:1]
        elif not all(item.is_key for item in (items[::2] if kind == "DICT" else items)):
            raise DamagedError("a key that is neither text nor a number")

    def _call(self, called: Thing, arguments: Thing) -> Thing:
        """What a call makes: limits on what it copies, and no hash of a nested tuple."""
        name = called.value
        if called.kind != "name" or arguments.kind != "tuple" or arguments.value is None:
            raise DamagedError("a call of something that is no function, or without arguments")
        given: tuple[Thing, ...] = arguments.value
        self.copied += sum(part.size for part in given)
        first = given[0] if given else None
        if name == "_codecs.encode" and (len(given) != 2 or given[1].value not in ("latin1", "latin-1")):
            raise DamagedError("bytes in another encoding than latin1")
        if name.endswith((".set", ".OrderedDict", ".Counter")) and first is not None:
            fits = first.kind == "dict" or (first.plain if name.endswith(".set") else first.pairs)
            if len(given) > 1 or first.kind not in ("dict", "list", "tuple") or not fits:
                raise DamagedError("a key that is neither text nor a number")
        # `plain` says whether it may take another state than a dict: numpy's arrays and types do.
        depth = _deeper(list(given))
        return Thing("made", arguments.size, depth, name, plain=name.startswith("numpy."), pairs=False)

    def _storage(self, place: Thing) -> None:
        parts = place.value if place.kind == "tuple" else None
        if self.rules.storage is None or not parts or len(parts) not in (5, 6) or parts[0].value != "storage":
            raise DamagedError("a reference to something outside")
        kind, key, _, count = parts[1:5]
        if len(parts) == 6 and parts[5].kind != "none":
            raise DamagedError("a part of a storage")
        if kind.kind != "name" or key.kind != "text" or count.kind != "number" or not isinstance(count.value, int):
            raise DamagedError("a storage without type, key or size")
        self.rules.storage(str(kind.value), str(key.value), count.value)
        self.stack.append(Thing("other"))


def _empty(name: str) -> Thing:
    if name == "NONE":
        return Thing("none")
    if name in _CONSTANTS and name != "EMPTY_TUPLE":
        return Thing("number", value=_CONSTANTS[name])
    kind = name.removeprefix("EMPTY_").lower()
    return Thing(kind, 0, 1, () if kind == "tuple" else None)


def _is_pair(item: Thing) -> bool:
    """Whether it is a list or tuple that begins with something that can be a key."""
    return item.kind in ("tuple", "list") and bool(item.value) and bool(item.value[0].is_key)


def _deeper(items: list[Thing]) -> int:
    depth = 1 + max((item.depth for item in items), default=0)
    if depth > MAX_DEPTH:
        raise DamagedError(f"nested more than {MAX_DEPTH} deep")
    return depth
