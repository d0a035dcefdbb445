"""Files from strangers, made by script: small ones that would take memory, time or the process if believed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

HEAD = b"\x80\x02"
BIG = struct.pack("<I", 2**28 - 1)


def name(module: str, own: str) -> bytes:
    """The instruction that names a class or function."""
    return f"c{module}\n{own}\n".encode()


def text(value: str) -> bytes:
    """The instruction that makes text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def long_copy(times: int) -> bytes:
    """Text of 64 KiB, encoded anew time after time."""
    encode = name("_codecs", "encode") + b"q\x02h\x02" + b"0"
    again = b"h\x02h\x01" + text("latin1") + b"\x86R"
    return HEAD + encode + text("x" * 65536) + b"q\x010](" + again * times + b"e."


def nested_tuple() -> bytes:
    """10**30 entries in 30 lines: a hash of it never ends."""
    built = b")q\x00"
    for index in range(30):
        built += b"(" + b"h" + bytes([index]) + (b"h" + bytes([index])) * 9 + b"tq" + bytes([index + 1])
    return built


PICKLES = {
    "memo": HEAD + b"]r" + BIG + b".",
    "memo in text": b"]p268435455\n.",
    "nested key": HEAD + b"})" + b"\x85" * 300_000 + b"Ns.",
    "nested value": HEAD + b"]" + b"]" * 300_000 + b"a" * 300_000 + b".",
    "nested in a set": HEAD + b"\x8f()" + b"\x85" * 300_000 + b"\x90.",
    "marks": HEAD + b"(" * 300_000 + b".",
    "hash of a key": HEAD + b"}" + nested_tuple() + b"Ns.",
    "hash in a frozen set": HEAD + b"(" + nested_tuple() + b"\x91.",
    "colliding keys": HEAD + b"}(" + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little", signed=True) + b"N"
                                                     for k in range(1, 30_000)) + b"u.",
    "text longer than the file": HEAD + b"X\xff\xff\xff\x7f.",
    "bytes longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "bytearray longer than the file": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "negative length": HEAD + b"T\xff\xff\xff\xff.",
    "number of a megabyte": HEAD + b"\x8b" + struct.pack("<I", 2**20) + b"\x7f" * 2**20 + b".",
    "digits": b"I" + b"9" * 2**20 + b"\n.",
    "bytearray(n)": HEAD + name("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.",
    "bytes(n)": HEAD + name("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R.",
    "copied over and over": long_copy(20_000),
    "another encoding": HEAD + name("_codecs", "encode") + text("x") + text("idna") + b"\x86R.",
    "an encoding of text": HEAD + b"}" + text("a") + name("_codecs", "encode") + text("x") + text("rot13") + b"\x86Rs.",
    "encoding with errors": HEAD + b"}N" + name("_codecs", "encode") + text("x") + text("latin1") * 2 + b"\x87Rs.",
    "update with pairs": HEAD + name("argparse", "Namespace") + b")\x81](]" + nested_tuple() + b"aNaeb.",
    "set of tuples": HEAD + name("builtins", "set") + b"](" + nested_tuple() + b"e\x85R.",
    "counter of tuples": HEAD + name("collections", "Counter") + b"](" + nested_tuple() + b"e\x85R.",
    "ordered of tuples": HEAD + name("collections", "OrderedDict") + b"](](" + nested_tuple() + b"Nee\x85R.",
    "extension": HEAD + b"\x82\x01.",
    "out of band": b"\x80\x05\x97.",
    "outside": HEAD + text("x") + b"Q.",
    "a tensor's class": HEAD + name("torch", "FloatTensor") + b"J\xff\xff\xff\x7f\x85R.",
    "empty": b"",
    "no end": HEAD + b"]",
    "nothing to take": HEAD + b"a.",
    "a mark to take": HEAD + b"(\x85.",
}  # fmt: skip


def checkpoint_of(pickled: bytes, path: Path, members: dict[str, bytes] | None = None, method: int = 0) -> Path:
    """A torch zip file around pickle bytes of our choice."""
    whole = io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", compression=method) as target:
        for entry in source.namelist():
            target.writestr(entry, pickled if entry.endswith("data.pkl") else source.read(entry))
        for entry, content in (members or {}).items():
            target.writestr(f"archive/{entry}", content)
    return path


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    """The instructions that make a storage of tensors."""
    return (
        b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"
    )


def tensor(made: bytes, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The instructions that make a tensor in a storage."""
    sizes = [
        b"(" + b"".join(b"\x8a\x08" + size.to_bytes(8, "little") for size in part) + b"t" for part in (shape, stride)
    ]
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild + b"(" + made + b"K\x00" + sizes[0] + sizes[1] + b"\x89" + name("collections", "OrderedDict") + b")RtR"
    )


def named(value: bytes) -> bytes:
    """A checkpoint's pickle with one value."""
    return HEAD + b"}" + text("a") + value + b"s."


def write_checkpoints(folder: Path) -> list[Path]:
    """Hostile checkpoints: every pickle as a zip and bare, and sizes that no part of the file has."""
    paths = []
    for index, content in enumerate(PICKLES.values()):
        paths.append(checkpoint_of(content, folder / f"{index}.zip.pt"))
        paths.append(folder / f"{index}.bare.pt")
        paths[-1].write_bytes(content)
    data = {"data/0": b"\0" * 8}
    one = storage(2)
    cases = {
        "storage": named(storage(2**31 - 1)),
        "negative storage": named(storage(-5)),
        "no such storage": named(storage(2, "7")),
        "repeated": named(tensor(one, (2**40,), (0,))),
        "outside": named(tensor(one, (2**20,), (1,))),
        "no rows": named(tensor(one, (0, 30_000_000), (1, 1))),
        "sparse": named(name("torch._utils", "_rebuild_sparse_tensor") + b")R"),
        "meta": named(name("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R"),
    }
    paths += [checkpoint_of(content, folder / f"{case}.pt", data) for case, content in cases.items()]
    zeros = {"data/0": b"\0" * 2**27}
    paths.append(checkpoint_of(named(storage(2**25)), folder / "bomb.pt", zeros, zipfile.ZIP_DEFLATED))
    older = folder / "older.pt"
    torch.save({"a": torch.zeros(3)}, older, _use_new_zipfile_serialization=False)
    whole = older.read_bytes()
    assert b"K\x03N" in whole  # the storage's number of entries
    older.write_bytes(whole.replace(b"K\x03N", b"J\xff\xff\xff\x7fN", 1))
    last = folder / "last pickle.pt"  # of five: the storages' keys
    last.write_bytes(whole[: whole.rfind(b"\x80\x02]")] + PICKLES["memo"])
    return [*paths, older, last]


def _header(shape: str, dtype: str = "'<f4'") -> bytes:
    words = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


def write_arrays(folder: Path) -> list[Path]:
    """Hostile arrays: pickles, headers of `.npy`, archives."""
    files: dict[str, bytes] = {f"{index}.pkl": content for index, content in enumerate(PICKLES.values())}
    headers = {
        "large": "(1000000, 1000000)",
        "overflow": "(4294967296, 4294967296)",
        "negative": "(-1, 4)",
        "no rows": "(0, 300000000)",
        "open": "(",
        "nested": "(" * 4000,
        "text": "'abc'",
        "float": "(2.5, 2)",
        "bool": "(True, 2)",
    }
    files |= {f"{case}.npy": _header(shape) + b"\0" * 64 for case, shape in headers.items()}
    files["long header.npy"] = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{"
    files["object.npy"] = _header("(1,)", "'|O'") + pickle.dumps([1])
    files["zip.npy"] = b"PK\x03\x04" + b"\0" * 100
    for case, content in files.items():
        (folder / case).write_bytes(content)
    paths = [folder / case for case in files]
    for case, shape in headers.items():
        paths.append(folder / f"{case}.npz")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            archive.writestr("scores.npy", _header(shape) + b"\0" * 64)
    bomb = folder / "bomb.npz"
    np.savez_compressed(bomb, scores=np.zeros((5000, 5000)))
    return [*paths, bomb]


def write_weights(folder: Path) -> list[Path]:
    """Hostile safetensors: headers that the file's size cannot explain."""

    def content(shape: object, offsets: tuple[int, int] = (0, 0), dtype: str = "F32") -> bytes:
        header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
        return struct.pack("<Q", len(header)) + header

    cases = {
        "no rows": content([0, 30_000_000]),
        "large": content([2**40], (0, 2**42)),
        "negative": content([-1]),
        "text": content("abc"),
        "longer than the file": struct.pack("<Q", 2**26) + b"{}",
        "longest": struct.pack("<Q", 2**64 - 1) + b"{}",
        "nested": struct.pack("<Q", 10**5) + b"[" * 10**5,
        "list": struct.pack("<Q", 2) + b"[]",
        "short": b"\x01",
        "empty": b"",
    }
    for case, whole in cases.items():
        (folder / f"{case}.safetensors").write_bytes(whole)
    return [folder / f"{case}.safetensors" for case in cases]
