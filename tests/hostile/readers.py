"""Every parser of the package, in one table: what it reads, a valid file, and how it is called with any bytes at all.

What a parser may do with bytes: give a result, or raise `UserError` (`nrccr.sizes`, which only looks at files: its own
errors). `tests/hostile/test_properties.py` and `tests/hostile/fuzz.py` call the same table.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from tokenizers import Tokenizer, models, pre_tokenizers

from nrccr.cli.options import integers
from nrccr.config.yaml import parse_override, read_layers
from nrccr.data.bigfile import BigFile, read_video_frames
from nrccr.data.captions import parse_captions, read_captions
from nrccr.data.generated.collection import read_recipe
from nrccr.data.images import Vectors, load_picture, load_preprocessor
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.evaluation.banks import read_bank
from nrccr.evaluation.compare import bootstrap, common_ranks, read_outcome
from nrccr.evaluation.outputs import forget
from nrccr.evaluation.qbnorm import ScoreFiles
from nrccr.files import digest_of
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.image import image_config
from nrccr.report import noise
from nrccr.report.papers import PaperTable
from nrccr.report.runs import by_seed, find_runs
from nrccr.report.tables import BEGIN, BY_LANGUAGE, END, RETRIEVAL, TEXTS, update_docs
from nrccr.safeload.unpickle import load_array, load_checkpoint, load_records, load_weights
from nrccr.sizes import SizeError, require_npy, require_npz, require_safetensors
from nrccr.systems.c2kd.convert import convert_c2kd
from nrccr.systems.c2kd.data import read_words
from nrccr.systems.mlcmr.network import KERNELS
from nrccr.systems.loading import load_retriever
from nrccr.systems.settings import build_config, load_config
from nrccr.training.features import changed_features
from nrccr.training.runfolder import RunFolder
from tests.conftest import TINY_BERT

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "man", "dog", "runs", "sings", "red", "##s"]
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


def mutated(data: bytes, choose: random.Random) -> bytes:
    """A valid file, damaged: a value of its JSON replaced, or bytes replaced, removed, repeated or added."""
    if choose.random() < 0.5:
        try:
            return json.dumps(_other_value(json.loads(data), choose)).encode()
        except (ValueError, UnicodeDecodeError):
            pass
    found = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 5))):
        at, length = choose.randrange(len(found) + 1), choose.choice((0, 1, 4, 20))
        piece = choose.choice((*PIECES, choose.randbytes(choose.randint(1, 8)), bytes(found[at : at + length]) * 2))
        found[at : at + length] = piece
    return bytes(found)


PIECES = tuple(b"\0|\xff\xff\xff\xff|\x7f\xff\xff\xff|\n|\r|\t|#|'|\"|[|]|{|}|(|null|-1|0|1e400|NaN|[]|{}|\xc2\x85".split(b"|"))
PIECES += (b"", b"9" * 40, b"9" * 5000, b"[" * 3000, b"\xe2\x80\x8b", b"\\ud800", b"\xef\xbb\xbf", b"extends: x\n")
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**64, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\n", "\0", "\ud800", "9" * 5000,
    [], [[]], ["x"], [0], {}, {"x": {}}, {"": None},
)  # fmt: skip


def _other_value(value: Any, choose: random.Random) -> Any:
    """The value with one of its parts replaced by another, removed or nested."""
    if not isinstance(value, dict | list) or not value or choose.random() < 0.05:
        made = choose.choice(VALUES)
        return [value] if made == ["x"] else made
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose.choice(keys)
    if choose.random() < 0.1:
        return {k: value[k] for k in keys if k != key} if isinstance(value, dict) else [value[k] for k in keys if k != key]
    changed = _other_value(value[key], choose)
    return {**value, key: changed} if isinstance(value, dict) else [changed if k == key else value[k] for k in keys]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@lru_cache
def _array(rows: int = 3, columns: int = 4) -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(rows * columns, dtype=np.float32).reshape(rows, columns))
    return file.getvalue()


@lru_cache
def _archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, scores=np.eye(3), query_ids=np.array(["a", "b", "c"]))
    return file.getvalue()


@lru_cache
def _bank() -> bytes:
    file = io.BytesIO()
    ids = {"query_ids": np.array(["a#en#0", "b#en#0"]), "item_ids": np.array(["a", "b"])}
    vectors = np.eye(2, dtype=np.float32)
    np.savez(file, text_source=vectors, text_target=vectors, visual=vectors, **ids)
    return file.getvalue()


@lru_cache
def _bank_record() -> bytes:
    digest = digest_of(Path(__file__))
    return _json({"split": "train", "seed": 1, "transductive": False, "sha256": digest, "size": 2})


@lru_cache
def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(file, format=kind)
    return file.getvalue()


@lru_cache
def _checkpoint(zipped: bool, kind: str = "state") -> bytes:
    state = {"a.weight": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}
    matrix = torch.ones(4, 4)
    words = {f"module.text_bert.text_bert.embeddings.{name}_embeddings.weight": matrix for name in ("word", "position")}
    branch, mapped = {"module.input_proj_layer.net.1.weight": matrix}, {"module.mapping.fc1.weight": matrix}
    views = {f"module.rnn.weight_{name}_l0": torch.ones(12, 4) for name in ("ih", "hh")}
    views |= {f"module.convs1.{place}.weight": torch.ones(2, 1, size, 4) for place, size in enumerate(KERNELS)}
    options = {"model_type": "video", "layer_list": ["layer.1"], "collection": "vatex", "data_type": "google_enc2zh",
               "frozen": "frozen", "visual_feature": "i3d", "text_num_attention": 2, "tri_alpha": 0.5}  # fmt: skip
    parallel = {"train_mode": "parallel", "collections_pathname": {"train": "vatex"}, "visual_feature": "i3d"}
    content = {
        "state": {"epoch": 3, "model": state, "opt": {"collection": "vatex", "rate": 0.5, "layers": [1, 2]}},
        "nrccr": {"model": [branch, branch | words, mapped, mapped, {}], "opt": options},
        "mlcmr": {"model": [views, words, mapped, mapped], "opt": parallel},
        "c2kd": {"state_dict": {"video_token_proj.fc.weight": torch.ones(8, 4), "text_proj.1.fc.weight": matrix}},
    }[kind]
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@lru_cache
def _weights() -> bytes:
    return to_safetensors({"a.weight": torch.ones(2, 3), "b": torch.zeros(4)})


@lru_cache
def _records(protocol: int) -> bytes:
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    one = {"id": "v1", "2d": frames, "caption_en": ["A dog runs"], "caption_de": ["ein Hund", ""], "caption": ["dog"]}
    return pickle.dumps([one, one | {"id": "v2", "2d": frames + 1}], protocol)


@lru_cache
def _pickled(protocol: int) -> bytes:
    return pickle.dumps(np.arange(6, dtype=np.float32).reshape(3, 2), protocol)


@lru_cache
def _tokenizer() -> bytes:
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(made.to_str()).encode()


@lru_cache
def _encoder_weights(ending: str) -> bytes:
    state = build_backbone(backbone_config(str(_encoder()), {}), None).state_dict()
    if ending == "safetensors":
        return to_safetensors(state, {"format": "pt"})
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@lru_cache
def _encoder() -> Path:
    """A folder with the files of the smallest encoder."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="nrccr-encoder-"))
    for name, content in ENCODER.items():
        (folder / name).write_bytes(content)
    return folder


BERT = {**TINY_BERT, "vocab_size": len(WORDS), "num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 8,
        "num_attention_heads": 2}  # fmt: skip
ENCODER = {
    "config.json": _json(BERT),
    "vocab.txt": "\n".join(WORDS).encode(),
    "tokenizer_config.json": _json({"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 64}),
}
CLIP = {"model_type": "clip_vision_model", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8, "image_size": 8, "patch_size": 4, "projection_dim": 4}  # fmt: skip
PREPROCESSOR = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "do_resize": True,
                "crop_size": {"height": 8, "width": 8}, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1],
                "resample": 3, "rescale_factor": 0.0039, "do_normalize": True, "do_convert_rgb": True}  # fmt: skip
CAPTIONS = "v1#enc#0 a man runs\nv1#enc#1 a dog\nv2#enc#0 红球\n".encode()
RANKS = b"query\trank\ttop\na#en#0\t1\ta b\nb#en#0\t2\ta b\n"
RANKS_VISUAL = b"item\trank\tprecision\ttop\na\t1\t1.0\ta#en#0\nb\t2\t0.5\ta#en#0\n"
FEATURES = {"bytes": 10, "mtime_ns": 5, "sample": "abc"}
RUN = _json({
    "device": "cpu", "threads": 1, "versions": {"torch": "2"}, "fingerprint": "f" * 64, "switches": {},
    "features": {"i3d/feature.bin": FEATURES}, "command": ["nrccr"],
})  # fmt: skip
DIRECTION = {name: 1.5 for name in ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP", "geometric_mean", "mean_recall", "rank_variance")}
METRICS = {"collection": "vatex", "split": "test", "SumR": 9.0, "target_weight": 0.8, "batch_size": 5,
           "normalisation": {"method": "none"}, "switches": {}, "text_to_visual": DIRECTION,
           "visual_to_text": DIRECTION, "source_to_target": DIRECTION, "target_to_source": DIRECTION}  # fmt: skip
LANGUAGES = {"collection": "multi_msrvtt", "split": "test", "mean": {"text_to_visual": DIRECTION},
             "languages": {name: {"text_to_visual": DIRECTION} for name in (*BY_LANGUAGE.languages, "de")}}  # fmt: skip
BIGFILE = {
    "shape.txt": b"2 3\n",
    "id.txt": b"v1_0 v2_0",
    "feature.bin": np.ones((2, 3), np.float32).tobytes(),
    "video2frames.txt": b"{'v1': ['v1_0'], 'v2': ['v2_0']}\n",
}
CONFIG = b"model: nrccr\nseed: 3\ndata: {collection: vatex, target: zh}\ntrain:\n  learning_rate: 1e-4\n"


def _beside(files: Files, without: str) -> Files:
    return {name: content for name, content in files.items() if name != without}


def _read_bigfile(path: Path) -> object:
    features = BigFile(path.parent)
    rows = [features.rows(video) for video in features.video_ids]
    return features.read(rows), features.find_nan()


def _read_run(path: Path) -> object:
    run = RunFolder(path.parent).read_record()
    return changed_features(run.get("features", {}), {"i3d/feature.bin": FEATURES}, path)


def _read_table(table: PaperTable, path: Path) -> object:
    folder = path.parents[1] if path.name == "metrics.json" else path.parent
    groups = by_seed(find_runs([folder], table))
    return [(group.collection, [group.numbers(column) for column in table.columns]) for group in groups]


def _around_table(table: PaperTable, path: Path, without: str) -> Files:
    metrics = METRICS if table.languages is None else LANGUAGES
    config = CONFIG if table.languages is None else b"model: c2kd\ndata: {collection: multi_msrvtt}\n"
    files = {"config.yaml": config, "run.json": RUN, f"{table.folder}/metrics.json": _json(metrics)}
    return _beside(files, without)


def _read_noise(path: Path) -> object:
    return noise.to_markdown(noise.collect({noise.Cell("basic", "noise0", 0): noise.read_metrics(path)}))


def _read_ranks(path: Path) -> object:
    outcome = read_outcome(path.parent, "test")
    return bootstrap(outcome, outcome, resamples=3), common_ranks([outcome, outcome])


def _read_tokenizer(path: Path) -> object:
    return CaptionTokenizer(str(path.parent), 16).encode(["a man runs", "[MASK] 红"])


def _read_encoder(path: Path) -> object:
    return backbone_config(str(path.parent), {"hidden_dropout_prob": 0.0})


def _read_preprocessor(path: Path) -> object:
    return load_preprocessor(str(path.parent))(Image.new("RGB", (9, 7)))


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
    return Parser(own, partial(_read_table, table), _bytes(files[own]), partial(_around_table, table, Path(own), own), True)


def _part(files: Files, name: str, read: Callable[[Path], object], *, slow: bool = False) -> Parser:
    return Parser(name, read, _bytes(files[name]), partial(_beside, files, name), slow)


SIZES = (SizeError, BadZipFile)
BANK = {"bank.json": _bank_record, "bank.npz": _bank}


def _bank_part(name: str) -> Parser:
    def around() -> Files:
        return {own: made() for own, made in BANK.items() if own != name}

    return Parser(name, lambda path: read_bank(path.parent, Path(__file__), CPU), BANK[name], around)


PARSERS: dict[str, Parser] = {
    "captions": Parser("c.caption.txt", read_captions, _bytes(CAPTIONS)),
    "captions-to-the-end": Parser("c.caption.txt", partial(parse_captions, mixed=True), _bytes(CAPTIONS)),
    "words": Parser("words.txt", read_words, _bytes(b"a\nman\ndog\n")),
    "image-ids": Parser("ids.txt", lambda path: Vectors(path.with_name("v.npy"), path), _bytes(b"a.jpg\nb c\n"),
                        lambda: {"v.npy": _array()}),
    "vectors": Parser("v.npy", lambda path: Vectors(path, path.with_name("i.txt")).problem(["a"]), _array,
                      lambda: {"i.txt": b"a b c"}),
    **{f"image-{kind.lower()}": Parser("a.jpg", partial(load_picture, shown=kind in ("PNG", "TIFF")),
                                       partial(_picture, kind)) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")},
    **{f"bigfile-{name.partition('.')[0]}": _part(BIGFILE, name, _read_bigfile) for name in BIGFILE},
    "video2frames": Parser("v.txt", read_video_frames, _bytes(b"{'a': ['a_0'], \"b\": ['b\\x20'],}")),
    "config": Parser("c.yaml", load_config, _bytes(CONFIG)),
    "run-config": Parser("config.yaml", partial(read_layers, alone=True), _bytes(CONFIG)),
    "override": Parser("override", _override, _bytes(b"train.batch_size=64")),
    "override-value": Parser("override", partial(_text, parse_override), _bytes(b'data.languages=[en,"de"]')),
    "integers": Parser("numbers", partial(_text, partial(integers, "--seeds")), _bytes(b"0,1,2")),
    "run": Parser("run.json", _read_run, _bytes(RUN)),
    "metrics-log": Parser("metrics.jsonl", lambda path: RunFolder(path.parent).load_state(),
                          _bytes(b'{"epoch": 1, "kind": "train"}\n'), lambda: {"run.json": RUN, "model.safetensors": b""}),
    "state": Parser("last/state.pt", lambda path: RunFolder(path.parents[1]).load_state(), partial(_checkpoint, True)),
    "metrics": _table_of(RETRIEVAL, "test/metrics.json"),
    "metrics-by-language": _table_of(BY_LANGUAGE, f"{BY_LANGUAGE.folder}/metrics.json"),
    "metrics-of-texts": _table_of(TEXTS, f"{TEXTS.folder}/metrics.json"),
    "table-config": _table_of(RETRIEVAL, "config.yaml"),
    "table-run": _table_of(RETRIEVAL, "run.json"),
    "noise-metrics": Parser("test/metrics.json", _read_noise, _bytes(_json(METRICS))),
    "old-metrics": Parser("metrics.json", lambda path: forget(path.parent), _bytes(_json(LANGUAGES))),
    "ranks": _part({"ranks.tsv": RANKS, "ranks_visual.tsv": RANKS_VISUAL}, "ranks.tsv", _read_ranks),
    "ranks-visual": _part({"ranks.tsv": RANKS, "ranks_visual.tsv": RANKS_VISUAL}, "ranks_visual.tsv", _read_ranks),
    "docs": Parser("d.md", lambda path: update_docs(path, []), _bytes(f"x\n{BEGIN}\n{END}\ny".encode())),
    "recipe": Parser("recipe.json", lambda path: read_recipe(path.parent),
                     _bytes(_json({"seed": 1, "rates": [0.2], "videos": [1, 2, 3], "captions": 2}))),
    "bank-record": _bank_part("bank.json"),
    "bank-vectors": _bank_part("bank.npz"),
    "array-npy": Parser("a.npy", load_array, _array),
    "array-npz": Parser("a.npz", load_array, _archive),
    "array-pickle": Parser("a.pkl", load_array, partial(_pickled, 2)),
    "scores": Parser("a.npy", lambda path: ScoreFiles(path, path, mask=path.with_name("m.npy")).read(), partial(_array, 4, 4),
                     lambda: {"m.npy": _array(4, 1)}),
    "mask": Parser("m.npy", lambda path: ScoreFiles(path.with_name("a.npy"), mask=path).read(), partial(_array, 4, 1),
                   lambda: {"a.npy": _array(4, 4)}),
    "sizes-npy": Parser("a.npy", require_npy, _array, errors=SIZES),
    "sizes-npz": Parser("a.npz", require_npz, _archive, errors=SIZES),
    "sizes-safetensors": Parser("a.safetensors", require_safetensors, _weights, errors=SIZES),
    "safetensors": Parser("a.safetensors", load_weights, _weights),
    "checkpoint-zip": Parser("a.pt", load_checkpoint, partial(_checkpoint, True)),
    "checkpoint-older": Parser("a.pt", load_checkpoint, partial(_checkpoint, False)),
    "checkpoint-nrccr": Parser("model_best.pth.tar", _published, partial(_checkpoint, False, "nrccr"), slow=True),
    "checkpoint-mlcmr": Parser("model_best.pth.tar", _published, partial(_checkpoint, False, "mlcmr"), slow=True),
    "checkpoint-c2kd": Parser("latest_model.pth", _published, partial(_checkpoint, False, "c2kd"), slow=True),
    "records": Parser("r.pkl", load_records, partial(_records, 2)),
    "records-text": Parser("r.pkl", load_records, partial(_records, 0)),
    "convert": Parser("train.pkl", _convert, partial(_records, 4)),
    "tokenizer-vocabulary": _part(ENCODER, "vocab.txt", _read_tokenizer, slow=True),
    "tokenizer-config": _part(ENCODER, "tokenizer_config.json", _read_tokenizer, slow=True),
    "tokenizer-encoder": _part(ENCODER, "config.json", _read_tokenizer, slow=True),
    "tokenizer": Parser("tokenizer.json", _read_tokenizer, _tokenizer,
                        lambda: _beside(ENCODER, "vocab.txt"), slow=True),
    "encoder": _part(ENCODER, "config.json", _read_encoder, slow=True),
    "encoder-weights": Parser("model.safetensors", lambda path: build_backbone(backbone_config(str(path.parent), {}),
                              str(path.parent)), partial(_encoder_weights, "safetensors"), lambda: ENCODER, slow=True),
    "encoder-pickle": Parser("pytorch_model.bin", lambda path: build_backbone(backbone_config(str(path.parent), {}),
                             str(path.parent)), partial(_encoder_weights, "bin"), lambda: ENCODER, slow=True),
    "image-encoder": Parser("config.json", lambda path: image_config(str(path.parent)), _bytes(_json(CLIP)), slow=True),
    "preprocessor": Parser("preprocessor_config.json", _read_preprocessor, _bytes(_json(PREPROCESSOR)),
                           lambda: {"config.json": _json(CLIP)}, slow=True),
}  # fmt: skip
