"""The table of damage: which file, which command reads it, and how that must end after each damage.

A target is a file of the stage (`stage.py`). It gets every general damage of `damage.py`, and those of its format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.hostile.damage import (
    ARCHIVE,
    ARRAY,
    CAPTIONS,
    FRAMES,
    GENERAL,
    JSON,
    MATRIX,
    NAMES,
    PICTURE,
    SHAPE,
    STATE,
    TABLE,
    WEIGHTS,
    YAML,
    Change,
)

REFUSED, READ, EITHER = "refused", "read", "either"


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


TEST = "test {s}/run --root {s}/root --device cpu --out {s}/out"
TRAIN = "train {s}/tiny.yaml --root {s}/root --out {s}/out --device cpu train.epochs=1"
RESUME = "train {s}/tiny.yaml --root {s}/root --out {s}/run --device cpu --resume train.epochs=4"
ENCODER = TRAIN + " text.pretrained=true text.backbone={{}} text.model={s}/"
VECTORS = "train {s}/vectors.yaml --root {s}/images --out {s}/out --device cpu train.epochs=1"
CLIP = "train {s}/pictures.yaml --root {s}/images --out {s}/out --device cpu train.epochs=1"
QBNORM = "qbnorm --sims_test_path {s}/qb/scores.npy --sims_train_test_path {s}/qb/bank.npz"
MASKED = QBNORM + " --test_query_masks_path {s}/qb/mask.pkl"
PUBLISHED = "test {s}/published --root {s}/root --device cpu --out {s}/out text.model={s}/bert"
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
CAPTIONS_END = {
    "order": READ,  # files of a split are matched by id
    "mark": READ,  # of an editor
    "returns": READ,
    "old returns": READ,
    "half": EITHER,
}
TARGETS = [
    *(
        captions(name, TRAIN)
        for name in ("vatextrain", "vatextrain_google_enc2zh", "vatextrain_google_enc2zh2enc", "vatexval_zh")
    ),
    captions("vatexval_google_zh2enc", TRAIN),
    *(captions(name, TEST) for name in ("vatextest_zh", "vatextest_google_zh2enc")),
    # Zeros are numbers; `nrccr check` notes them.
    Target(f"{_VIDEO}/feature.bin", TRAIN, ends={"nul": READ}, special=MATRIX),
    Target(f"{_VIDEO}/shape.txt", TEST, near={"": "{s}/" + _VIDEO}, special=SHAPE),
    Target(f"{_VIDEO}/id.txt", TEST, near={"": "{s}/" + _VIDEO}, special=NAMES),
    Target(f"{_VIDEO}/video2frames.txt", TEST, near={"": "{s}/" + _VIDEO}, special=FRAMES),
    Target(
        f"{_VECTORS}/resnet_152/train-resnet_152-avgpool.npy",
        VECTORS,
        near=absent("{s}/" + _VECTORS),
        ends={"other byte order": READ, "columns first": READ},
        special=ARRAY,
    ),
    Target(f"{_VECTORS}/train_id.txt", VECTORS, near={"": "{s}/" + _VECTORS}, ends={"mark": READ}, special=NAMES),
    Target(f"{_PICTURES}/train3.jpg", CLIP, near=absent("{s}/" + _PICTURES), special=PICTURE),
    Target("tiny.yaml", "check {s}/tiny.yaml --root {s}/root", ends={"half": EITHER, "empty": READ}, special=YAML),
    Target(
        "run/config.yaml",
        TEST,
        # A flipped letter may name another collection, file or encoder, which is then what is not there.
        near=absent("{s}/run")
        | {"half": "{s}/run/"}  # of the configuration, or of the weights that half of it does not fit
        | dict.fromkeys(("flip 0", "flip 1", "flip 2", "flip 3"), "{s}/"),
        ends={"half": EITHER},
        special=YAML,
    ),
    Target("run/model.safetensors", TEST, near=absent("{s}/run"), special=WEIGHTS),
    Target("run/run.json", RESUME, near=absent("{s}/run"), ends={"huge": EITHER, "negative": EITHER}, special=JSON),
    Target("run/last/state.pt", RESUME, special=STATE),
    Target("run/metrics.jsonl", RESUME, ends=LOG_END),
    Target(
        "run/test/metrics.json", "table --runs {s}/run", ends=dict.fromkeys(absent(""), READ), special=JSON
    ),  # without a test a run is in no table
    Target(
        "run/test/ranks.tsv",
        "compare {s}/run {s}/tested",
        near=absent("ranks.tsv")
        | dict.fromkeys(("row lost", "half", "flip 0", "flip 1", "flip 2", "flip 3"), "{s}/run/test"),
        special=TABLE,
    ),
    Target("run/test/ranks_visual.tsv", "compare {s}/run {s}/tested", special=TABLE),
    Target("run/test/scores.npz", "qbnorm --sims_test_path {s}/run/test/scores.npz --method dsl", special=ARCHIVE),
    Target("run/backbone/config.json", TEST, ("run/backbone",), special=JSON),
    Target("run/backbone/tokenizer.json", TEST, ("run/backbone",), special=JSON),
    Target("run/backbone/tokenizer_config.json", TEST, ("run/backbone",), ends=SETTINGS_END, special=JSON),
    Target("run/bank/bank.json", BANK, ("run/bank",), special=JSON),
    Target("run/bank/bank.npz", BANK, ("run/bank",), special=ARCHIVE),
    Target("qb/scores.npy", QBNORM, ends={"other byte order": READ, "columns first": READ}, special=ARRAY),
    Target("qb/bank.npz", QBNORM, special=ARCHIVE),
    Target("qb/mask.pkl", MASKED),
    Target("bert/config.json", ENCODER + "bert", ("{s}/bert",), special=JSON),
    Target("bert/model.safetensors", ENCODER + "bert", ("{s}/bert",), special=WEIGHTS),
    # Tables of embeddings are often larger than the vocabulary.
    Target("bert/vocab.txt", ENCODER + "bert", ("{s}/bert",), ends={"half": EITHER}),
    Target("bert/tokenizer_config.json", ENCODER + "bert", ("{s}/bert",), ends=SETTINGS_END, special=JSON),
    Target("older/pytorch_model.bin", ENCODER + "older", ("{s}/older",), special=STATE),
    Target("older/tokenizer.json", ENCODER + "older", ("{s}/older",), special=JSON),
    Target("older/special_tokens_map.json", ENCODER + "older", ("{s}/older",), ends=SETTINGS_END, special=JSON),
    Target("pieces/sentencepiece.bpe.model", TRAIN + " text.model={s}/pieces", ("{s}/pieces",)),
    Target("clip/config.json", CLIP, ("{s}/clip",), special=JSON),
    Target("clip/model.safetensors", CLIP, ("{s}/clip",), special=WEIGHTS),
    Target("clip/preprocessor_config.json", CLIP, ("{s}/clip",), special=JSON),
    Target("published/model_best.pth.tar", PUBLISHED, near=absent("{s}/published"), special=STATE),
    Target("pickles/msrvtt_train_multilingual.pkl", "convert c2kd {s}/pickles/msrvtt_train_multilingual.pkl {s}/out"),
]


def cases() -> Iterator[Case]:
    """All of the table; the usual ones have every damage of every format once, and a ninth of the general ones."""
    for place, target in enumerate(TARGETS):
        for number, (damage, change) in enumerate(GENERAL.items()):
            yield Case(target, damage, change, (place + number) % 9 == 0)
        alike = [other for other in TARGETS if other.special is target.special]
        for number, (damage, change) in enumerate(target.special.items()):
            yield Case(target, damage, change, alike[number % len(alike)] is target)
