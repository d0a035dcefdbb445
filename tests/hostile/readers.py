"""Every parser of the package, in one table: what it reads, a valid file, and how it is called with any bytes at all.

What a parser may do with bytes: give a result, or raise `UserError` (`nrccr.sizes`, which only looks at files: its own
errors). `tests/hostile/test_properties.py` and `tests/hostile/fuzz.py` call the same table.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import torch
from PIL import Image

from nrccr.cli.options import integers
from nrccr.config.yaml import parse_override, read_layers
from nrccr.data.bigfile import BigFile, read_video_frames
from nrccr.data.captions import parse_captions, read_captions
from nrccr.data.generated.collection import read_recipe
from nrccr.data.generated.errors import read_known
from nrccr.data.images import Vectors
from nrccr.data.pixels import load_picture, load_preprocessor
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.evaluation.banks import read_bank
from nrccr.evaluation.compare import bootstrap, common_ranks, read_outcome
from nrccr.evaluation.outputs import forget
from nrccr.evaluation.qbnorm import ScoreFiles
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.image import image_config
from nrccr.report import noise
from nrccr.report.card import training_seconds
from nrccr.report.curves import training_curves, validation_curves
from nrccr.report.finished import ReportRun, read_log
from nrccr.report.papers import PaperTable
from nrccr.report.runs import by_seed, find_runs
from nrccr.report.tables import BEGIN, BY_LANGUAGE, END, RETRIEVAL, TEXTS, update_docs
from nrccr.safeload.unpickle import load_array, load_checkpoint, load_records, load_weights
from nrccr.search.store import BANK as INDEX_BANK
from nrccr.search.store import CURRENT, ITEMS, VECTORS, open_index
from nrccr.search.vectors import KINDS, Kind
from nrccr.sizes import SizeError, require_npy, require_npz, require_safetensors
from nrccr.systems.c2kd.convert import convert_c2kd
from nrccr.systems.c2kd.data import read_words
from nrccr.systems.loading import load_retriever
from nrccr.systems.settings import build_config, load_config
from nrccr.training.features import changed_features
from nrccr.training.runfolder import RunFolder
from tests.hostile import readers_own, samples

CPU = torch.device("cpu")
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Parser:
    """A parser and what it needs.

    Attributes:
        file: where the bytes go, in a folder of their own.
        read: is called with the path of that file, and reads it.
        valid: gives the bytes of a valid file.
        around: gives the other files of the folder.
        slow: it takes some milliseconds.
        errors: what it may raise.
    """

    file: str
    read: Callable[[Path], object]
    valid: Callable[[], bytes]
    around: Callable[[], Files] = field(default=dict)
    slow: bool = False
    errors: tuple[type[Exception], ...] = (UserError,)


def parse(name: str, data: bytes, folder: Path) -> object:
    """What the parser of a name makes of bytes; `folder` is emptied first.

    Raises:
        AssertionError: a refusal of more than one line.
        Exception: what the parser must not raise.
    """
    parser = PARSERS[name]
    shutil.rmtree(folder, ignore_errors=True)
    for own, content in {**parser.around(), parser.file: data}.items():
        (folder / own).parent.mkdir(parents=True, exist_ok=True)
        (folder / own).write_bytes(content)
    try:
        return parser.read(folder / parser.file)
    except parser.errors as error:
        if isinstance(error, UserError):
            assert str(error) and "\n" not in str(error), repr(str(error))
        return error


def _beside(files: Files, without: str) -> Files:
    return {name: content for name, content in files.items() if name != without}


def _read_bigfile(path: Path) -> object:
    features = BigFile(path.parent)
    rows = [features.rows(video) for video in features.video_ids]
    return features.read(rows), features.find_nan()


def _read_run(path: Path) -> object:
    run = RunFolder(path.parent).read_record()
    return changed_features(run.get("features", {}), {"i3d/feature.bin": samples.FEATURES}, path)


def _read_log(path: Path) -> object:
    run = ReportRun(path.parent, "a", build_config([]), {"finished": {}}, read_log(path), None, path.parent)
    return training_curves(run), validation_curves(run), training_seconds(run)


def _read_table(table: PaperTable, path: Path) -> object:
    folder = path.parents[1] if path.name == "metrics.json" else path.parent
    groups = by_seed(find_runs([folder], table))
    return [(group.collection, [group.numbers(column) for column in table.columns]) for group in groups]


def _around_table(table: PaperTable, path: Path, without: str) -> Files:
    metrics = samples.METRICS if table.languages is None else samples.LANGUAGES
    config = samples.CONFIG if table.languages is None else b"model: c2kd\ndata: {collection: multi_msrvtt}\n"
    files = {"config.yaml": config, "run.json": samples.RUN, f"{table.folder}/metrics.json": samples.as_json(metrics)}
    return _beside(files, without)


def _read_index(path: Path) -> object:
    """Whichever of an index's files it is: opened as for search and as for a change."""
    index = path if path.name == CURRENT else path.parent
    found = open_index(index.parent)
    query = samples.index_rows(1)[0]
    results = found.search(query, 3), found.find("v1"), found.ids(3)
    changed = open_index(index.parent, mapped=False).draft()
    return results, changed.items, changed.bank


def _index_part(name: str, kind: Kind = "exact") -> Parser:
    """A file of a generation, or the one that names it."""
    own = name if name == CURRENT else f"{samples.GENERATION}/{name}"
    return Parser(
        own,
        _read_index,
        lambda: samples.index(kind)[own],
        lambda: _beside(samples.index(kind), own),
        slow=True,
    )


def _read_noise(path: Path) -> object:
    return noise.to_markdown(noise.collect({noise.Cell("basic", "noise0", 0): noise.read_metrics(path)}))


def _read_ranks(path: Path) -> object:
    outcome = read_outcome(path.parent, "test")
    return bootstrap(outcome, outcome, resamples=3), common_ranks([outcome, outcome])


def _read_tokenizer(path: Path) -> object:
    return CaptionTokenizer(str(path.parent), 16).encode(["a man runs", "[MASK] 红"])


def _read_encoder(path: Path) -> object:
    return backbone_config(str(path.parent), {"hidden_dropout_prob": 0.0})


def _read_encoder_weights(path: Path) -> object:
    return build_backbone(backbone_config(str(path.parent), {}), str(path.parent))


def _read_preprocessor(path: Path) -> object:
    return load_preprocessor(str(path.parent))(Image.new("RGB", (9, 7)))


def _read_scores(path: Path) -> object:
    return ScoreFiles(path.with_name("a.npy"), path.with_name("a.npy"), mask=path.with_name("m.npy")).read()


def _convert(path: Path) -> object:
    return convert_c2kd({"train": path}, path.parent / "out", "msrvtt")


def _override(path: Path) -> object:
    return build_config([], [path.read_bytes().decode("utf-8", "surrogateescape")])


def _text(read: Callable[[str], object], path: Path) -> object:
    return read(path.read_bytes().decode("utf-8", "surrogateescape"))


def _published(path: Path) -> object:
    return load_retriever(path, [], "cpu")


def _bytes(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _table_of(table: PaperTable, own: str) -> Parser:
    files = _around_table(table, Path(), "")
    return Parser(
        own, partial(_read_table, table), _bytes(files[own]), partial(_around_table, table, Path(own), own), True
    )


def _part(files: Files, name: str, read: Callable[[Path], object], *, slow: bool = False) -> Parser:
    return Parser(name, read, _bytes(files[name]), partial(_beside, files, name), slow)


SIZES = (SizeError, BadZipFile)
BANK = {"bank.json": samples.bank_record, "bank.npz": samples.bank}


def _bank_part(name: str) -> Parser:
    def around() -> Files:
        return {own: made() for own, made in BANK.items() if own != name}

    return Parser(name, lambda path: read_bank(path.parent, Path(samples.__file__), CPU), BANK[name], around)


INDEXES = {
    "index-current": _index_part(CURRENT),
    "index-items": _index_part(ITEMS),
    "index-bank": _index_part(INDEX_BANK),
    **{f"index-vectors-{kind}": _index_part(VECTORS, kind) for kind in KINDS},
}
PARSERS: dict[str, Parser] = {
    "captions": Parser("c.caption.txt", read_captions, _bytes(samples.CAPTIONS)),
    "captions-to-the-end": Parser("c.caption.txt", partial(parse_captions, mixed=True), _bytes(samples.CAPTIONS)),
    "words": Parser("words.txt", read_words, _bytes(b"a\nman\ndog\n")),
    "image-ids": Parser(
        "ids.txt",
        lambda path: Vectors(path.with_name("v.npy"), path),
        _bytes(b"a.jpg\nb c\n"),
        lambda: {"v.npy": samples.array()},
    ),
    "vectors": Parser(
        "v.npy",
        lambda path: Vectors(path, path.with_name("i.txt")).problem(["a"]),
        samples.array,
        lambda: {"i.txt": b"a b c"},
    ),
    **{
        f"image-{kind.lower()}": Parser(
            "a.jpg",
            partial(load_picture, pixels="shown" if kind in ("PNG", "TIFF") else "stored"),
            partial(samples.picture, kind),
        )
        for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
    },
    **{f"bigfile-{name.partition('.')[0]}": _part(samples.BIGFILE, name, _read_bigfile) for name in samples.BIGFILE},
    "video2frames": Parser("v.txt", read_video_frames, _bytes(b"{'a': ['a_0'], \"b\": ['b\\x20'],}")),
    "config": Parser("c.yaml", load_config, _bytes(samples.CONFIG)),
    "run-config": Parser("config.yaml", partial(read_layers, alone=True), _bytes(samples.CONFIG)),
    "override": Parser("override", _override, _bytes(b"train.batch_size=64")),
    "override-value": Parser("override", partial(_text, parse_override), _bytes(b'data.languages=[en,"de"]')),
    "integers": Parser("numbers", partial(_text, partial(integers, "--seeds")), _bytes(b"0,1,2")),
    "run": Parser("run.json", _read_run, _bytes(samples.RUN)),
    "metrics-log": Parser(
        "metrics.jsonl",
        lambda path: RunFolder(path.parent).load_state(),
        _bytes(b'{"epoch": 1, "kind": "train"}\n'),
        lambda: {"run.json": samples.RUN, "model.safetensors": b""},
    ),
    "report-log": Parser(
        "metrics.jsonl", _read_log, _bytes(b'{"kind": "train", "step": 2, "total": 1.5, "data_seconds": 0.1}\n')
    ),
    "state": Parser(
        "last/state.pt", lambda path: RunFolder(path.parents[1]).load_state(), partial(samples.checkpoint, True)
    ),
    "metrics": _table_of(RETRIEVAL, "test/metrics.json"),
    "metrics-by-language": _table_of(BY_LANGUAGE, f"{BY_LANGUAGE.folder}/metrics.json"),
    "metrics-of-texts": _table_of(TEXTS, f"{TEXTS.folder}/metrics.json"),
    "table-config": _table_of(RETRIEVAL, "config.yaml"),
    "table-run": _table_of(RETRIEVAL, "run.json"),
    "noise-metrics": Parser("test/metrics.json", _read_noise, _bytes(samples.as_json(samples.METRICS))),
    "old-metrics": Parser("metrics.json", lambda path: forget(path.parent), _bytes(samples.as_json(samples.LANGUAGES))),
    "ranks": _part({"ranks.tsv": samples.RANKS, "ranks_visual.tsv": samples.RANKS_VISUAL}, "ranks.tsv", _read_ranks),
    "ranks-visual": _part(
        {"ranks.tsv": samples.RANKS, "ranks_visual.tsv": samples.RANKS_VISUAL}, "ranks_visual.tsv", _read_ranks
    ),
    "docs": Parser("d.md", lambda path: update_docs(path, []), _bytes(f"x\n{BEGIN}\n{END}\ny".encode())),
    "recipe": Parser(
        "recipe.json",
        lambda path: read_recipe(path.parent),
        _bytes(samples.as_json({"seed": 1, "rates": [0.2], "videos": [1, 2, 3], "captions": 2})),
    ),
    "known-errors": Parser(
        "a.errors.jsonl",
        lambda path: read_known(path.with_name("a.caption.txt")),
        _bytes(samples.as_json({"item": "v", "number": 0, "clean": ["eins"], "noisy": ["zwei"]})),
    ),
    "bank-record": _bank_part("bank.json"),
    "bank-vectors": _bank_part("bank.npz"),
    "array-npy": Parser("a.npy", load_array, samples.array),
    "array-npz": Parser("a.npz", load_array, samples.archive),
    "array-pickle": Parser("a.pkl", load_array, partial(samples.pickled_array, 2)),
    "scores": Parser("a.npy", _read_scores, partial(samples.array, 4, 4), lambda: {"m.npy": samples.array(4, 1)}),
    "mask": Parser("m.npy", _read_scores, partial(samples.array, 4, 1), lambda: {"a.npy": samples.array(4, 4)}),
    "sizes-npy": Parser("a.npy", require_npy, samples.array, errors=SIZES),
    "sizes-npz": Parser("a.npz", require_npz, samples.archive, errors=SIZES),
    "sizes-safetensors": Parser("a.safetensors", require_safetensors, samples.weights, errors=SIZES),
    "safetensors": Parser("a.safetensors", load_weights, samples.weights),
    "checkpoint-zip": Parser("a.pt", load_checkpoint, partial(samples.checkpoint, True)),
    "checkpoint-older": Parser("a.pt", load_checkpoint, partial(samples.checkpoint, False)),
    "checkpoint-nrccr": Parser(
        "model_best.pth.tar", _published, partial(samples.checkpoint, False, "nrccr"), slow=True
    ),
    "checkpoint-mlcmr": Parser(
        "model_best.pth.tar", _published, partial(samples.checkpoint, False, "mlcmr"), slow=True
    ),
    "checkpoint-c2kd": Parser("latest_model.pth", _published, partial(samples.checkpoint, False, "c2kd"), slow=True),
    "records": Parser("r.pkl", load_records, partial(samples.records, 2)),
    "records-text": Parser("r.pkl", load_records, partial(samples.records, 0)),
    "convert": Parser("train.pkl", _convert, partial(samples.records, 4)),
    "tokenizer-vocabulary": _part(samples.ENCODER, "vocab.txt", _read_tokenizer, slow=True),
    "tokenizer-config": _part(samples.ENCODER, "tokenizer_config.json", _read_tokenizer, slow=True),
    "tokenizer-encoder": _part(samples.ENCODER, "config.json", _read_tokenizer, slow=True),
    "tokenizer": Parser(
        "tokenizer.json", _read_tokenizer, samples.tokenizer, lambda: _beside(samples.ENCODER, "vocab.txt"), slow=True
    ),
    "encoder": _part(samples.ENCODER, "config.json", _read_encoder, slow=True),
    "encoder-weights": Parser(
        "model.safetensors",
        _read_encoder_weights,
        partial(samples.encoder_weights, "safetensors"),
        lambda: samples.ENCODER,
        slow=True,
    ),
    "encoder-pickle": Parser(
        "pytorch_model.bin",
        _read_encoder_weights,
        partial(samples.encoder_weights, "bin"),
        lambda: samples.ENCODER,
        slow=True,
    ),
    "image-encoder": Parser(
        "config.json", lambda path: image_config(str(path.parent)), _bytes(samples.as_json(samples.CLIP)), slow=True
    ),
    **(INDEXES if find_spec("faiss") else {}),
    "preprocessor": Parser(
        "preprocessor_config.json",
        _read_preprocessor,
        _bytes(samples.as_json(samples.PREPROCESSOR)),
        lambda: {"config.json": samples.as_json(samples.CLIP)},
        slow=True,
    ),
    **{name: Parser(*entry, slow=True, errors=readers_own.REFUSALS) for name, entry in readers_own.READERS.items()},
}
