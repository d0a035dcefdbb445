"""What is done to a file by script: general damages, which any file can suffer, and those of one format."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[Path], object]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
FLIPS = 4  # places where a byte is flipped


def _content(made: Callable[[bytes], bytes]) -> Change:
    return lambda path: path.write_bytes(made(path.read_bytes()))


def _flip(seed: int) -> Change:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        choose = random.Random(f"{path.name} {seed}")
        # Formats begin with what says most about the rest: half of the flips are there.
        data[choose.randrange(len(data) if seed % 2 else min(len(data), 64))] ^= 1 << choose.randrange(8)
        path.write_bytes(data)

    return flip


def _instead(make: Callable[[Path], object]) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def _utf16(data: bytes) -> bytes:
    return data.decode("latin-1").encode("utf-16")


GENERAL: dict[str, Change] = {
    "empty": _content(lambda data: b""),
    "half": _content(lambda data: data[: len(data) // 2]),
    **{f"flip {seed}": _flip(seed) for seed in range(FLIPS)},
    "folder": _instead(Path.mkdir),
    "missing": Path.unlink,
    "fifo": _instead(os.mkfifo),
    "device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "dangling": _instead(lambda path: path.symlink_to("nowhere")),
    "unreadable": lambda path: path.chmod(0),
    "pointer": _content(lambda data: POINTER),
    "page": _content(lambda data: PAGE),
    "utf16": _content(_utf16),
    "nul": _content(lambda data: bytes(len(data))),
    "gzip": _content(gzip.compress),
    "noise": _content(lambda data: random.Random(len(data)).randbytes(len(data))),
}


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """A damage of a text's lines."""
    return _content(lambda data: b"\n".join(change(data.rstrip(b"\n").split(b"\n"))) + b"\n")


CAPTIONS: dict[str, Change] = {
    "line twice": lines(lambda found: [found[0], *found]),
    "line lost": lines(lambda found: found[:4] + found[5:]),
    "empty line": lines(lambda found: [*found[:3], b"", *found[3:]]),
    "order": lines(lambda found: found[::-1]),
    "mark": _content(lambda data: b"\xef\xbb\xbf" + data),
    "mark inside": lines(lambda found: [found[0], b"\xef\xbb\xbf" + found[1], *found[2:]]),
    "no text": lines(lambda found: [found[0].split(b" ")[0], *found[1:]]),
    "invisible": lines(lambda found: [found[0].split(b" ")[0] + " \u200b\u200b".encode(), *found[1:]]),
    "no id": lines(lambda found: [b"hello there", *found[1:]]),
    "other ids": _content(lambda data: data.replace(b"#", b"x#")),
    "latin": lines(lambda found: [found[0] + b" caf\xe9", *found[1:]]),
    "returns": _content(lambda data: data.replace(b"\n", b"\r\n")),
    "old returns": _content(lambda data: data.replace(b"\n", b"\r")),
    "control": lines(lambda found: [b"\x1b]0;title\x07" + found[0], *found[1:]]),
    "long line": lines(lambda found: [*found, b"x" * 2**20]),
}


def _of_json(change: Callable[[Any], object]) -> Change:
    def damage(path: Path) -> None:
        value = json.loads(path.read_text(encoding="utf-8"))
        changed = change(value)
        path.write_text(json.dumps(value if changed is None else changed), encoding="utf-8")

    return damage


def _every(value: Any) -> Change:
    """Every value of an object replaced."""
    return _of_json(lambda found: dict.fromkeys(found, value))


JSON: dict[str, Change] = {
    "list": _content(lambda data: b"[]"),
    "object": _content(lambda data: b"{}"),
    "null": _content(lambda data: b"null"),
    "number": _content(lambda data: b"1e999"),
    "text": _content(lambda data: b'"x"'),
    "nested": _content(lambda data: b'{"a":' * 100_000),
    "digits": _content(lambda data: b'{"a": ' + b"9" * 10_000 + b"}"),
    "nulls": _every(None),
    "lists": _every([]),
    "texts": _every("x"),
    "infinities": _every(float("inf")),
    "not numbers": _every(float("nan")),
    "huge": _every(10**15),
    "negative": _every(-1),
    "twice": _content(lambda data: data + data),
}


def _of_array(change: Callable[[Any], Any]) -> Change:
    return lambda path: np.save(path, change(np.load(path)))


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    words = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


def _unwritten(value: float) -> Change:
    return _of_array(lambda array: np.where(np.arange(array.size).reshape(array.shape) == 3, value, array))


ARRAY: dict[str, Change] = {
    "nan": _unwritten(np.nan),
    "infinite": _unwritten(-np.inf),
    "row lost": _of_array(lambda array: array[1:]),
    "flat": _of_array(np.ravel),
    "numbers as text": _of_array(lambda array: array.astype("U8")),
    "no rows": _of_array(lambda array: array[:0]),
    "negative shape": _content(lambda data: _header("(-1, 16)") + data[128:]),
    "large shape": _content(lambda data: _header("(1000000, 1000000)") + data[128:]),
    "objects": _content(lambda data: _header("(2, 16)", "'|O'") + data[128:]),
    "zip without entries": _content(lambda data: b"PK\x05\x06" + bytes(18)),
    "other byte order": _of_array(lambda array: array.astype(array.dtype.newbyteorder(">"))),
    "columns first": _of_array(np.asfortranarray),
}


def _of_archive(change: Callable[[dict[str, Any]], object]) -> Change:
    def damage(path: Path) -> None:
        with np.load(path) as arrays:
            found = dict(arrays)
        change(found)
        np.savez(path, **found)

    return damage


def _wrong_sum(path: Path) -> None:
    """Another checksum of the first member, everywhere in the archive."""
    with zipfile.ZipFile(path) as archive:
        (number,) = (member.CRC for member in archive.infolist()[:1])
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", number), b"\1\2\3\4"))


ARCHIVE: dict[str, Change] = {
    "array lost": _of_archive(lambda found: [found.pop(name) for name in ("scores", "text_target") if name in found]),
    "arrays flat": _of_archive(lambda found: found.update({name: array.ravel() for name, array in found.items()})),
    "arrays of text": _of_archive(
        lambda found: found.update({name: array.astype("U8") for name, array in found.items()})
    ),
    "arrays of nothing": _of_archive(lambda found: found.update({name: array[:0] for name, array in found.items()})),
    "scalars": _of_archive(lambda found: found.update({name: np.float32(1) for name in found})),
    "zip without entries": _content(lambda data: b"PK\x05\x06" + bytes(18)),
    "wrong sum": _wrong_sum,
    "archive in other order": _content(lambda data: data[::-1]),
}


def _of_weights(change: Callable[[dict[str, Any], bytes], tuple[Any, bytes]]) -> Change:
    def damage(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header, body = change(json.loads(data[8 : 8 + length]), data[8 + length :])
        words = json.dumps(header).encode()
        return struct.pack("<Q", len(words)) + words + body

    return _content(damage)


def _one(change: Callable[[dict[str, Any]], object]) -> Change:
    """A change of one tensor's entry."""

    def damage(header: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        change(header[max(name for name in header if name != "__metadata__")])
        return header, body

    return _of_weights(damage)


WEIGHTS: dict[str, Change] = {
    "header alone": _of_weights(lambda header, body: (header, b"")),
    "header a list": _of_weights(lambda header, body: ([], body)),
    "no tensors": _of_weights(lambda header, body: ({}, b"")),
    "tensor lost": _of_weights(lambda header, body: ({k: v for k, v in header.items() if k != max(header)}, body)),
    "tensor renamed": _of_weights(lambda header, body: ({f"x.{k}": v for k, v in header.items() if k[0] != "_"}, body)),
    "negative size": _one(lambda entry: entry.update(shape=[-1])),
    "large size": _one(lambda entry: entry.update(shape=[2**40])),
    "text for a size": _one(lambda entry: entry.update(shape="abc")),
    "other type": _one(lambda entry: entry.update(dtype="I8")),
    "unknown type": _one(lambda entry: entry.update(dtype="F3")),
    "offsets": _one(lambda entry: entry.update(data_offsets=[0, 2**60])),
    "offsets backwards": _one(lambda entry: entry.update(data_offsets=entry["data_offsets"][::-1])),
}


def _state(change: Callable[[dict[str, Any]], object]) -> Change:
    import torch

    def damage(path: Path) -> None:
        value = torch.load(path, weights_only=False)
        change(value)
        torch.save(value, path)

    return damage


def _first(state: Any) -> Any:
    """The first tensor's name in a state dict."""
    return next(iter(state))


STATE: dict[str, Change] = {
    "keys lost": _state(lambda state: state.clear()),
    "numbers for all": _state(lambda state: state.update(dict.fromkeys(state, 1))),
    "texts for all": _state(lambda state: state.update(dict.fromkeys(state, "x"))),
    "nulls for all": _state(lambda state: state.update(dict.fromkeys(state))),
    "lists for all": _state(lambda state: state.update({name: [1] for name in state})),
    "zip without entries": _content(lambda data: b"PK\x05\x06" + bytes(18)),
}


def _rank(rank: bytes) -> Change:
    """Another rank in the last line of a table."""

    def change(line: bytes) -> bytes:
        first, _, *rest = line.split(b"\t")
        return b"\t".join([first, rank, *rest])

    return lines(lambda found: [*found[:-1], change(found[-1])])


TABLE: dict[str, Change] = {
    "row lost": lines(lambda found: found[:-1]),
    "row twice": lines(lambda found: [*found, found[-1]]),
    "no rank": _rank(b"x"),
    "no number": _rank(b"nan"),
    "rank of zero": _rank(b"0"),
    "huge rank": _rank(b"9" * 400),
    "columns lost": lines(lambda found: [line.split(b"\t")[0] for line in found]),
    "heading alone": lines(lambda found: found[:1]),
    "spaces": _content(lambda data: data.replace(b"\t", b" ")),
}
YAML: dict[str, Change] = {
    "tab": _content(lambda data: data.replace(b"\n  ", b"\n\t")),
    "list": _content(lambda data: b"- a\n"),
    "key twice": _content(lambda data: data + data),
    "unknown key": _content(lambda data: data + b"\nfrobnicate: 1\n"),
    "merge": _content(lambda data: data + b"\na: &a {b: 1}\nc: {<<: *a}\n"),
    "tag": _content(lambda data: data + b"\nseed: !!python/name:os.system\n"),
    "place": _content(lambda data: data + b"\n? ${oc.env:HOME}\n: 1\n"),
    "nested": _content(lambda data: b"a: " + b"[" * 5000),
    "control": _content(lambda data: data + b"\n\x1b[31m: 1\n"),
    "long": _content(lambda data: data + b"\n#" + b"x" * 2**19),
}
SHAPE: dict[str, Change] = {
    "one number": _content(lambda data: b"16\n"),
    "three numbers": _content(lambda data: data.strip() + b" 1\n"),
    "negative": _content(lambda data: b"-" + data),
    "zero": _content(lambda data: b"0 16\n"),
    "words": _content(lambda data: b"many wide\n"),
    "float": _content(lambda data: data.strip() + b".5\n"),
    "digits": _content(lambda data: b"9" * 5000 + b" 16\n"),
    "underscores": _content(lambda data: b"1_0 1_6\n"),
    "one row more": _content(lambda data: b"%d %d\n" % (int(data.split()[0]) + 1, int(data.split()[1]))),
    "turned": _content(lambda data: b" ".join(data.split()[::-1]) + b"\n"),
}
NAMES: dict[str, Change] = {
    "name twice": _content(lambda data: data.replace(data.split()[1], data.split()[0], 1)),
    "name lost": _content(lambda data: b" ".join(data.split()[1:])),
    "name more": _content(lambda data: data.strip() + b" more"),
    "other names": _content(lambda data: b" ".join(b"x" + name for name in data.split())),
    "mark": _content(lambda data: b"\xef\xbb\xbf" + data),
}
FRAMES: dict[str, Change] = {
    "code": _content(lambda data: b"__import__('os').system('touch ran')"),
    "list": _content(lambda data: b"['a']"),
    "number": _content(lambda data: b"1"),
    "none": _content(lambda data: b"{}"),
    "nested": _content(lambda data: b"{'a': " + b"[" * 100_000),
    "power": _content(lambda data: b"{'a': 9**9**9}"),
    "no frames": _content(lambda data: data.replace(b"['train0_0']", b"[]")),
    "numbers": _content(lambda data: data.replace(b"'train0_0'", b"7")),
    "video twice": _content(lambda data: data.replace(b"'train1':", b"'train0':")),
    "unknown frame": _content(lambda data: data.replace(b"'train0_0'", b"'other'")),
    "unpacked": _content(lambda data: b"{**" + data.strip() + b"}"),
}


def _floats(change: Callable[[Any], Any]) -> Change:
    return _content(lambda data: change(np.frombuffer(data, "<f4").copy()).tobytes())


def _poison(value: float) -> Change:
    def poison(values: Any) -> Any:
        values[:: values.size // 40] = value
        return values

    return _floats(poison)


MATRIX: dict[str, Change] = {
    "nan": _poison(np.nan),
    "infinite": _poison(np.inf),
    "a row less": _content(lambda data: data[:-64]),
    "a byte more": _content(lambda data: data + b"\0"),
    "a byte less": _content(lambda data: data[:-1]),
    "double": _floats(lambda values: values.astype("<f8")),
    "half precision": _floats(lambda values: values.astype("<f2")),
}
PICTURE: dict[str, Change] = {
    "beginning alone": _content(lambda data: data[:30]),
    "text": _content(lambda data: b"hello"),
    "eps": _content(lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
    "huge": _content(
        lambda data: (
            b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II5B", 2**30, 2**30, 8, 2, 0, 0, 0) + bytes(8)
        )
    ),
}
