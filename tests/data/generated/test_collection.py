"""The generated collection on disk: reproducible, whole, noisy as asked, and readable by every command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nrccr.data.captions import read_captions
from nrccr.data.collections import locate
from nrccr.data.generated.collection import TARGETS, Recipe, generate
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from tests.conftest import FullDisk

Command = Callable[..., Any]
Count = Callable[[Sequence[str], Sequence[str]], int]
RECIPE = Recipe(seed=3, rates=(0.0, 0.25, 0.5), videos=(30, 8, 10), captions=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    assert generate(root, RECIPE) == root / "generated"
    return root


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def errors(root: Path, name: str) -> list[dict[str, Any]]:
    path = root / "generated" / "TextData" / f"{name}.errors.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_bytes(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "same", RECIPE)
    assert hashes(tmp_path / "same") == hashes(root)
    generate(tmp_path / "other", Recipe(4, RECIPE.rates, RECIPE.videos, RECIPE.captions))
    other = hashes(tmp_path / "other")
    assert other.keys() == hashes(root).keys()
    kept = {name for name, value in hashes(root).items() if other[name] == value}
    assert kept <= {"generated/FeatureData/pixels/id.txt", "generated/backbone/config.json"}


def test_splits_share_no_handwriting(root: Path) -> None:
    used: dict[str, set[int]] = {"train": set(), "val": set(), "test": set()}
    for line in (root / "generated" / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        used[scene["video"][:-5]] |= {actor["sample"] for actor in scene["actors"]}
    assert all(used.values())
    assert not (used["train"] & used["val"] or used["train"] & used["test"] or used["val"] & used["test"])


@pytest.mark.parametrize("rate", RECIPE.rates)
@pytest.mark.parametrize("target", TARGETS)
def test_rate_is_the_one_found(root: Path, target: str, rate: float, lost: Count) -> None:
    def share(name: str) -> float:
        lines = errors(root, name)
        return sum(lost(line["clean"], line["noisy"]) for line in lines) / sum(len(line["clean"]) for line in lines)

    translator = f"noise{round(100 * rate)}"
    assert share(f"generatedtrain_{translator}_enc2{target}") == pytest.approx(rate, abs=0.01)
    for split in ("val", "test"):
        assert share(f"generated{split}_{translator}_{target}2enc") == pytest.approx(rate, abs=0.01)
    twice = share(f"generatedtrain_{translator}_enc2{target}2enc")
    assert twice == 0 if rate == 0 else rate < twice < 2 * rate


@pytest.mark.parametrize("target", TARGETS)
def test_clean_sentences_stand_beside_the_noisy_ones(root: Path, target: str) -> None:
    text = root / "generated" / "TextData"
    perfect = read_captions(text / f"generatedtrain_noise0_enc2{target}.caption.txt")
    noisy = read_captions(text / f"generatedtrain_noise50_enc2{target}.caption.txt")
    assert perfect.keys == noisy.keys and perfect.texts != noisy.texts
    between = "" if target == "zh" else " "
    for kept, clean, bad in zip(
        errors(root, f"generatedtrain_noise50_enc2{target}"), perfect.texts, noisy.texts, strict=True
    ):
        for words, caption in ((kept["clean"], clean), (kept["noisy"], bad)):
            bare = caption.replace(",", "").replace("，", "").rstrip(".。")
            assert between.join(words).lower() == bare.lower()
        assert bool(kept["errors"]) is (kept["clean"] != kept["noisy"])


@pytest.mark.parametrize("target", TARGETS)
def test_every_command_reads_it(root: Path, target: str, nrccr_command: Command) -> None:
    config = Path(__file__).resolve().parents[3] / "configs" / "nrccr" / "generated.yaml"
    options = [f"data.target={target}", "data.translator=noise25"]
    done = nrccr_command("check", config, "--root", root, *options)
    assert done.code == 0 and "no problems found" in done.out, done.out + done.err
    assert locate(root, "generated", target=target, translator="noise50").split("test").target.is_file()


def test_vocabulary_spells_everything(root: Path) -> None:
    tokenizer = CaptionTokenizer(str(root / "generated" / "backbone"), 250)
    texts = [t for path in (root / "generated" / "TextData").glob("*.caption.txt") for t in read_captions(path).texts]
    rows = tokenizer.tokenizer(texts)["input_ids"]
    unknown = tokenizer.tokenizer.unk_token_id
    assert sum(row.count(unknown) for row in rows) == 0
    assert max(map(len, rows)) <= tokenizer.max_tokens


@pytest.mark.parametrize("limit", [2000, 60_000])  # bytes of a file: features, later ones
def test_a_full_disk_is_one_line_and_nothing_is_left(
    tmp_path: Path, nrccr_command: Command, no_file_longer_than: FullDisk, limit: int
) -> None:
    with no_file_longer_than(limit):
        done = nrccr_command("generate", tmp_path / "all", "--videos", "6,2,2", "--captions", "1")
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"nrccr: {tmp_path}/all/generated: cannot be written (File too large); is the disk full" in done.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_or_left_behind(root: Path, tmp_path: Path) -> None:
    before = hashes(root)
    with pytest.raises(UserError, match="exists already"):
        generate(root, RECIPE)
    assert hashes(root) == before
    for recipe in (Recipe(rates=()), Recipe(rates=(0.9,)), Recipe(rates=(0.2, 0.2001)), Recipe(videos=(1, 5, 5))):
        with pytest.raises(UserError):
            generate(tmp_path, recipe)
    with pytest.raises(UserError):
        generate(tmp_path, Recipe(captions=0))
    assert not list(tmp_path.iterdir())
