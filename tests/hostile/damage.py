"""The table of damage: which file, what is done to it by script, which command reads it, and how that must end.

A target is a file of the stage (`stage.py`) with the commands that read it. Every target gets every general damage; special
damages are those of one format.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[Path], object]
REFUSED, READ, EITHER = "refused", "read", "either"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
FLIPS = 4  # places where a byte is flipped


@dataclass(frozen=True)
class Target:
    """A file and the command that reads it.

    Attributes:
        file: under the stage.
        command: words; `{s}` stands for the stage.
        says: words that a refusal must hold; by default the file's path.
        near: words instead, after damages that are found in another file, or in the folder where a file is not.
        ends: how the command ends after some damages, where the reader can rightly take the file, and why.
        special: damages of this file alone.
    """

    file: str
    command: str
    says: tuple[str, ...] = ()
    near: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, str] = field(default_factory=dict)
    special: Mapping[str, Change] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One damage of one target."""

    target: Target
    damage: str
    change: Change
    usual: bool

    @property
    def name(self) -> str:
        """For the list of tests."""
        return f"{self.target.file}: {self.damage}"

    @property
    def end(self) -> str:
        """How the command must end."""
        return self._of(self.target.ends) or (EITHER if self.damage.startswith("flip ") else REFUSED)

    @property
    def says(self) -> tuple[str, ...]:
        """Words that a refusal must hold."""
        near = self._of(self.target.near)
        return (near,) if near else self.target.says or ("{s}/" + self.target.file,)

    def _of(self, table: Mapping[str, str]) -> str | None:
        return table.get(self.damage, table.get(""))


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
CAPTIONS_END = {
    "order": READ,  # files of a split are matched by id
    "mark": READ,  # of an editor
    "returns": READ,
    "old returns": READ,
    "half": EITHER,
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
    "arrays of text": _of_archive(lambda found: found.update({name: array.astype("U8") for name, array in found.items()})),
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
        lambda data: b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II5B", 2**30, 2**30, 8, 2, 0, 0, 0) + bytes(8)
    ),
}


TEST = "test {s}/run --root {s}/root --device cpu --out {s}/out"
TRAIN = "train {s}/tiny.yaml --root {s}/root --out {s}/out --device cpu train.epochs=1"
RESUME = "train {s}/tiny.yaml --root {s}/root --out {s}/run --device cpu --resume train.epochs=4"
ENCODER = TRAIN + " text.pretrained=true text.backbone={{}} text.model={s}/"
VECTORS = "train {s}/vectors.yaml --root {s}/images --out {s}/out --device cpu train.epochs=1"
CLIP = "train {s}/pictures.yaml --root {s}/images --out {s}/out --device cpu train.epochs=1"
QBNORM = "qbnorm --sims_test_path {s}/qb/scores.npy --sims_train_test_path {s}/qb/bank.npz --test_query_masks_path {s}/qb/mask.pkl"
BANK = TEST + " evaluation.normalise=is"
_TEXT, _VIDEO = "root/vatex/TextData", "root/vatex/FeatureData/i3d_kinetics"
_VECTORS = "images/multi30k/FeatureData"
_PICTURES = "images/multi30k/flickr30k-images"


def absent(folder: str) -> dict[str, str]:
    """Where a file is looked for and none is found, the folder is named."""
    return dict.fromkeys(("missing", "folder", "fifo", "device", "dangling"), folder)


def captions(name: str, command: str) -> Target:
    """A caption file."""
    path = f"{_TEXT}/{name}.caption.txt"
    return Target(path, command, (f"{name}.caption.txt",), ends=CAPTIONS_END, special=CAPTIONS)


# A log of the right length or longer is gone on with; what stands in it is for people.
LOG_END = {"noise": READ, "nul": READ, "utf16": READ, "gzip": EITHER}
# Settings of a tokeniser are taken by transformers, or left out.
SETTINGS_END = dict.fromkeys(JSON, EITHER) | {"missing": EITHER, "flip": EITHER}
TARGETS = [
    *(
        captions(name, TRAIN)
        for name in ("vatextrain", "vatextrain_google_enc2zh", "vatextrain_google_enc2zh2enc", "vatexval_zh")
    ),
    captions("vatexval_google_zh2enc", TRAIN),
    *(captions(name, TEST) for name in ("vatextest_zh", "vatextest_google_zh2enc")),
    Target(f"{_VIDEO}/feature.bin", TRAIN, special=MATRIX),
    Target(f"{_VIDEO}/shape.txt", TEST, near={"": "{s}/" + _VIDEO}, special=SHAPE),
    Target(f"{_VIDEO}/id.txt", TEST, near={"": "{s}/" + _VIDEO}, special=NAMES),
    Target(f"{_VIDEO}/video2frames.txt", TEST, near={"": "{s}/" + _VIDEO}, special=FRAMES),
    Target(
        f"{_VECTORS}/resnet_152/train-resnet_152-avgpool.npy", VECTORS, near=absent("{s}/" + _VECTORS),
        ends={"other byte order": READ, "columns first": READ}, special=ARRAY,
    ),
    Target(f"{_VECTORS}/train_id.txt", VECTORS, near={"": "{s}/" + _VECTORS}, ends={"mark": READ}, special=NAMES),
    Target(f"{_PICTURES}/train3.jpg", CLIP, near=absent("{s}/" + _PICTURES), special=PICTURE),
    Target("tiny.yaml", "check {s}/tiny.yaml --root {s}/root", ends={"half": EITHER}, special=YAML),
    Target(
        "run/config.yaml", TEST, near=absent("{s}/run") | {"half": "{s}/run/model.safetensors"},
        ends={"half": EITHER}, special=YAML,
    ),
    Target("run/model.safetensors", TEST, near=absent("{s}/run"), special=WEIGHTS),
    Target("run/run.json", RESUME, near=absent("{s}/run"), ends={"huge": EITHER, "negative": EITHER}, special=JSON),
    Target("run/last/state.pt", RESUME, special=STATE),
    Target("run/metrics.jsonl", RESUME, ends=LOG_END),
    Target(
        "run/test/metrics.json", "table --runs {s}/run", ends=dict.fromkeys(absent(""), READ), special=JSON
    )  # without a test a run is in no table,
    Target("run/test/ranks.tsv", "compare {s}/run {s}/tested", near=absent("ranks.tsv") | {"row lost": "{s}/run/test"}, special=TABLE),
    Target("run/test/ranks_visual.tsv", "compare {s}/run {s}/tested", special=TABLE),
    Target("run/test/scores.npz", "qbnorm --sims_test_path {s}/run/test/scores.npz --method dsl", special=ARCHIVE),
    Target("run/backbone/config.json", TEST, ("run/backbone",), special=JSON),
    Target("run/backbone/tokenizer.json", TEST, ("run/backbone",), special=JSON),
    Target("run/backbone/tokenizer_config.json", TEST, ("run/backbone",), ends=SETTINGS_END, special=JSON),
    Target("run/bank/bank.json", BANK, ("run/bank",), special=JSON),
    Target("run/bank/bank.npz", BANK, ("run/bank",), special=ARCHIVE),
    Target(
        "qb/scores.npy", QBNORM, ends={"other byte order": READ, "columns first": READ}, special=ARRAY
    ),
    Target("qb/bank.npz", QBNORM, special=ARCHIVE),
    Target("qb/mask.pkl", QBNORM),
    Target("bert/config.json", ENCODER + "bert", ("{s}/bert",), special=JSON),
    Target("bert/model.safetensors", ENCODER + "bert", ("{s}/bert",), special=WEIGHTS),
    Target("bert/vocab.txt", ENCODER + "bert", ("{s}/bert",)),
    Target("bert/tokenizer_config.json", ENCODER + "bert", ("{s}/bert",), ends=SETTINGS_END, special=JSON),
    Target("older/pytorch_model.bin", ENCODER + "older", ("{s}/older",), special=STATE),
    Target("older/tokenizer.json", ENCODER + "older", ("{s}/older",), special=JSON),
    Target("older/special_tokens_map.json", ENCODER + "older", ("{s}/older",), ends=SETTINGS_END, special=JSON),
    Target("pieces/sentencepiece.bpe.model", TRAIN + " text.model={s}/pieces", ("{s}/pieces",)),
    Target("clip/config.json", CLIP, ("{s}/clip",), special=JSON),
    Target("clip/model.safetensors", CLIP, ("{s}/clip",), special=WEIGHTS),
    Target("clip/preprocessor_config.json", CLIP, ("{s}/clip",), special=JSON),
    Target("published/model_best.pth.tar", "test {s}/published --root {s}/root --device cpu --out {s}/out text.model={s}/bert", near=absent("{s}/published"), special=STATE),
    Target("pickles/msrvtt_train_multilingual.pkl", "convert c2kd {s}/pickles/msrvtt_train_multilingual.pkl {s}/out"),
]  # fmt: skip


def cases() -> Iterator[Case]:
    """All of the table; the usual ones leave out most pairs of target and general damage, but none of either."""
    for place, target in enumerate(TARGETS):
        for number, (damage, change) in enumerate(GENERAL.items()):
            yield Case(target, damage, change, (place + number) % 4 == 0)
        for damage, change in target.special.items():
            yield Case(target, damage, change, True)


def tree_of(folder: Path) -> dict[str, object]:
    """Every file below a folder with its content; links with what they lead to."""
    found: dict[str, object] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            regular = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
            found[str(path.relative_to(folder))] = path.read_bytes() if regular else os.lstat(path).st_mode
    return found


def restore(whole: Path, folder: Path) -> None:
    """The stage as it was."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
