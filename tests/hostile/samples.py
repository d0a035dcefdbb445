"""Valid files of every kind that the package reads, and how they are damaged; for `tests/hostile/readers.py`."""

from __future__ import annotations

import io
import json
import pickle
import random
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from tokenizers import Tokenizer, models, pre_tokenizers

from nrccr.evaluation.normalise import fold_bias
from nrccr.files import digest_of
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.levels import KERNELS
from nrccr.report.tables import BY_LANGUAGE
from nrccr.search.store import About, Draft, Item, write_generation
from nrccr.search.vectors import LEAST_TRAINING, Kind, Shape, Vectors
from tests.conftest import TINY_BERT

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "man", "dog", "runs", "sings", "red", "##s"]


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


PIECES = tuple(
    b"\0|\xff\xff\xff\xff|\x7f\xff\xff\xff|\n|\r|\t|#|'|\"|[|]|{|}|(|null|-1|0|1e400|NaN|[]|{}|\xc2\x85".split(b"|")
)
PIECES += (
    b"",
    b"\xc2\x85",
    b"9" * 40,
    b"9" * 5000,
    b"[" * 3000,
    b"\xe2\x80\x8b",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"extends: x\n",
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**64, 10**300, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\n", "\0", "\ud800",
    "9" * 5000, [], [[]], ["x"], [0], {}, {"x": {}}, {"": None},
)  # fmt: skip


def _other_value(value: Any, choose: random.Random) -> Any:
    """The value with one of its parts replaced by another, removed or nested."""
    if not isinstance(value, dict | list) or not value or choose.random() < 0.05:
        made = choose.choice(VALUES)
        return [value] if made == ["x"] else made
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose.choice(keys)
    if choose.random() < 0.1:
        return (
            {k: value[k] for k in keys if k != key} if isinstance(value, dict) else [value[k] for k in keys if k != key]
        )
    changed = _other_value(value[key], choose)
    return {**value, key: changed} if isinstance(value, dict) else [changed if k == key else value[k] for k in keys]


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@lru_cache
def array(rows: int = 3, columns: int = 4) -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(rows * columns, dtype=np.float32).reshape(rows, columns))
    return file.getvalue()


@lru_cache
def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, scores=np.eye(3), query_ids=np.array(["a", "b", "c"]))
    return file.getvalue()


@lru_cache
def bank() -> bytes:
    file = io.BytesIO()
    ids = {"query_ids": np.array(["a#en#0", "b#en#0"]), "item_ids": np.array(["a", "b"])}
    vectors = np.eye(2, dtype=np.float32)
    np.savez(file, text_source=vectors, text_target=vectors, visual=vectors, **ids)
    return file.getvalue()


@lru_cache
def bank_record() -> bytes:
    digest = digest_of(Path(__file__))
    return as_json({"split": "train", "seed": 1, "transductive": False, "sha256": digest, "size": 2})


@lru_cache
def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(file, format=kind)
    return file.getvalue()


@lru_cache
def checkpoint(zipped: bool, kind: str = "state") -> bytes:
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
def weights() -> bytes:
    return to_safetensors({"a.weight": torch.ones(2, 3), "b": torch.zeros(4)})


@lru_cache
def records(protocol: int) -> bytes:
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    one = {"id": "v1", "2d": frames, "caption_en": ["A dog runs"], "caption_de": ["ein Hund", ""], "caption": ["dog"]}
    return pickle.dumps([one, one | {"id": "v2", "2d": frames + 1}], protocol)


@lru_cache
def pickled_array(protocol: int) -> bytes:
    return pickle.dumps(np.arange(6, dtype=np.float32).reshape(3, 2), protocol)


@lru_cache
def tokenizer() -> bytes:
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(made.to_str()).encode()


@lru_cache
def encoder_weights(ending: str) -> bytes:
    state = build_backbone(backbone_config(str(_encoder()), {}), None).state_dict()
    if ending == "safetensors":
        return to_safetensors(state, {"format": "pt"})
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@lru_cache
def _encoder() -> Path:
    """A folder with the files of the smallest encoder."""
    folder = Path(tempfile.mkdtemp(prefix="nrccr-encoder-"))
    for name, content in ENCODER.items():
        (folder / name).write_bytes(content)
    return folder


GENERATION = "generation-00"
INDEX_WIDTH = 4  # of vectors, and a bias


def index_rows(count: int) -> np.ndarray:
    """Vectors of an index (count, width)."""
    return np.random.default_rng(0).standard_normal((count, INDEX_WIDTH)).astype(np.float32)


@lru_cache(maxsize=3)
def index(kind: Kind) -> dict[str, bytes]:
    """All files of an index of twenty items with a bias against hubs."""
    shape = Shape(kind, lists=4 if kind == "ivfpq" else 0, code_bytes=1, links=4)
    count = LEAST_TRAINING if kind == "ivfpq" else 20
    rows = fold_bias(index_rows(count), np.zeros(count, np.float32))
    vectors = Vectors.build(rows, np.arange(len(rows)), shape)
    vectors.remove(np.arange(20, len(rows)))
    about = About("run", "f" * 32, "features", 1.0, rows.shape[1], shape, (1, 0.75))
    items = {key: Item(f"v{key}", 3) for key in range(20)}
    with tempfile.TemporaryDirectory() as folder:
        draft = Draft(about, vectors, items, np.empty(0, dtype=np.int64), index_rows(5))
        write_generation(Path(folder), draft)
        made = next(Path(folder).glob("generation-*"))
        files = {f"{GENERATION}/{path.name}": path.read_bytes() for path in made.iterdir()}
    return {"CURRENT": f"{GENERATION}\n".encode(), **files}


BERT = {**TINY_BERT, "vocab_size": len(WORDS), "num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 8,
        "num_attention_heads": 2}  # fmt: skip
ENCODER = {
    "config.json": as_json(BERT),
    "vocab.txt": "\n".join(WORDS).encode(),
    "tokenizer_config.json": as_json(
        {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 64}
    ),
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
RUN = as_json({
    "device": "cpu", "threads": 1, "versions": {"torch": "2"}, "fingerprint": "f" * 64, "switches": {},
    "features": {"i3d/feature.bin": FEATURES}, "command": ["nrccr"],
})  # fmt: skip
DIRECTION = {
    name: 1.5
    for name in ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP", "geometric_mean", "mean_recall", "rank_variance")
}
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
