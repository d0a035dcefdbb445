"""What MLCMR reads: three scenarios, masked views by seed, epoch and pair alone, queries in both languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nrccr.config.schema import Config
from nrccr.data.bigfile import BigFile
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.systems.mlcmr.data import ViewPairs, ViewReader
from nrccr.systems.settings import load_config

Open = Callable[..., ViewReader]
PAD, MASK = 0, 4  # of the tiny vocabulary


@pytest.fixture
def opened(mlcmr_config: Path, both_languages: Path) -> Open:
    """A function of overrides: the reader of the tiny collection."""

    def open_(*overrides: str) -> ViewReader:
        config: Config = load_config(mlcmr_config, overrides)
        return ViewReader.open(config, both_languages, CaptionTokenizer(config.text.model, config.text.max_tokens))

    return open_


def said(tokens: Tensor, tokenizer: CaptionTokenizer) -> str:
    return str(tokenizer.tokenizer.decode(tokens[tokens != PAD][1:-1]))


def file_texts(root: Path, name: str) -> dict[str, str]:
    """Captions of a file by their id without the tag."""
    lines = (root / "vatex" / "TextData" / f"{name}.caption.txt").read_text("utf-8").splitlines()
    split = (line.split(None, 1) for line in lines)
    return {f"{caption.split('#')[0]}#{caption.split('#')[2]}": text for caption, text in split}


def words(text: str) -> str:
    """A caption without what tokens do not keep."""
    return "".join(text.replace(".", "").split()).lower()


@pytest.mark.parametrize(
    ("overrides", "source", "target"),
    [
        (("data.scenario=parallel",), "vatextrain", "vatextrain_zh"),
        (("data.scenario=translate",), "vatextrain", "vatextrain_google_enc2zh"),
        (("data.scenario=translate", "data.target=en"), "vatextrain_google_zhc2en", "vatextrain_zh"),
    ],
)
def test_which_files_a_scenario_reads(
    opened: Open, both_languages: Path, overrides: tuple[str, ...], source: str, target: str
) -> None:
    reader = opened(*overrides)
    pairs, held_out = reader.training()
    assert held_out is None and len(pairs) == 24 and pairs.target is not None
    batch = pairs.batch(range(24))
    for tokens, name in ((batch.source.tokens, source), (batch.target.tokens, target)):  # type: ignore[union-attr]
        wanted = [words(text) for text in file_texts(both_languages, name).values()]
        assert [words(said(row, reader.tokenizer)) for row in tokens] == wanted
    english = batch.source.tokens[0]
    assert said(english, reader.tokenizer).endswith(".")  # cleaned, whether written by people or translated


def test_unparallel_takes_each_caption_in_one_language(opened: Open, both_languages: Path) -> None:
    reader = opened("data.scenario=unparallel")
    pairs, _ = reader.training()
    assert pairs.target is None and len(pairs) == 24
    tokens = pairs.batch(range(24)).source.tokens
    found = [words(said(row, reader.tokenizer)) for row in tokens]
    english, chinese = file_texts(both_languages, "vatextrain"), file_texts(both_languages, "vatextrain_zh")
    takes = [
        "en" if text == words(english[key]) else "zh" if text == words(chinese[key]) else "neither"
        for text, key in zip(found, english, strict=True)
    ]
    # Two captions a video: every video has one in each language, and which comes first alternates.
    assert takes == ["en", "zh", "zh", "en"] * 6
    batch = pairs.batch(range(4))
    assert batch.masked_target is None


def test_a_file_of_both_languages_is_read_where_there_is_one(opened: Open, both_languages: Path) -> None:
    path = both_languages / "vatex" / "TextData" / "vatextrain_half.caption.txt"
    path.write_text("train0#enc#0 A dog!\ntrain0#zh#0 狗\ntrain1#zh#1 人\n", encoding="utf-8")
    reader = opened("data.scenario=unparallel")
    pairs, _ = reader.training()
    found = [said(row, reader.tokenizer) for row in pairs.batch(range(3)).source.tokens]
    assert found == ["a dog.", "狗", "人"]  # English is told by its tag, and cleaned
    assert pairs.videos.ids == ["train0", "train1"]


def test_a_view_hides_words_and_most_frames(opened: Open, both_languages: Path) -> None:
    pairs, _ = opened().training()
    batch = pairs.batch(range(24))
    assert batch.target is not None and batch.masked_target is not None
    for text, masked in ((batch.source, batch.masked_source), (batch.target, batch.masked_target)):
        hidden = masked.tokens == MASK
        lengths = text.mask.sum(dim=1)
        assert torch.equal(hidden.sum(dim=1), (0.15 * lengths).long())
        assert torch.equal(masked.tokens[~hidden], text.tokens[~hidden])
        assert torch.equal(masked.mask, text.mask)
        assert not hidden[:, 0].any() and not hidden[torch.arange(24), lengths - 1].any()
    frames = pairs.videos.frames[pairs.item_of]
    assert batch.masked_visual.mask.sum(dim=1).tolist() == [n - int(0.8 * n) for n in frames.tolist()]
    features = BigFile(both_languages / "vatex" / "FeatureData" / "i3d_kinetics")
    for row, item in enumerate(pairs.item_of):
        whole = features.read([features.rows(pairs.videos.ids[item])])[0][0]
        kept = batch.masked_visual.frames[row][batch.masked_visual.mask[row]]
        positions = [int(np.flatnonzero((whole == frame).all(axis=1))[0]) for frame in kept.numpy()]
        assert positions == sorted(set(positions))  # frames of this video, in order, none twice


def test_a_long_video_is_cut_but_its_mean_is_not(opened: Open, both_languages: Path) -> None:
    pairs, _ = opened().training()
    batch = pairs.batch([0, 2])  # train0 with 100 frames, train1 with 2
    features = BigFile(both_languages / "vatex" / "FeatureData" / "i3d_kinetics")
    assert batch.visual.mask.sum(dim=1).tolist() == [64, 2]
    assert batch.visual.mean is not None
    for row, video in enumerate(("train0", "train1")):
        whole = features.read([features.rows(video)])[0][0]
        np.testing.assert_allclose(batch.visual.mean[row], whole.mean(axis=0), atol=1e-6)
    assert batch.masked_visual.mean is None  # 20 frames of 100, none left out
    assert pairs.batch([2]).visual.mean is None


def equal(first: ViewPairs, second: ViewPairs, indices: list[int]) -> bool:
    pairs = zip(first[np.array(indices)].parts, second[np.array(indices)].parts, strict=True)
    return all(
        torch.equal(one.masked_source.tokens, other.masked_source.tokens)
        and torch.equal(one.masked_visual.frames, other.masked_visual.frames)
        for one, other in pairs
    )


def test_views_follow_from_seed_epoch_and_pair(opened: Open) -> None:
    pairs, _ = opened().training()
    again, _ = opened().training()
    other, _ = opened("seed=1").training()
    whole = list(range(24))
    assert equal(pairs.at_epoch(3), again.at_epoch(3), whole)
    assert not equal(pairs.at_epoch(3), pairs.at_epoch(4), whole)
    assert not equal(pairs, other, whole)
    alone = pairs.batch([5]).masked_source.tokens[0]
    together = pairs.batch([7, 5, 1]).masked_source.tokens[1]
    assert torch.equal(together[: len(alone)], alone)  # whatever else is in the batch


def test_views_do_not_depend_on_workers(opened: Open) -> None:
    pairs, _ = opened().training()
    batches = [np.array([3, 1, 4]), np.array([15, 9]), np.array([2, 6, 5, 8])]

    def read(workers: int) -> list[Tensor]:
        loader = DataLoader(pairs.at_epoch(2), batch_size=None, sampler=batches, num_workers=workers)  # type: ignore[arg-type]
        return [part.masked_source.tokens for batch in loader for part in batch.parts]

    for own, other in zip(read(0), read(2), strict=True):
        assert torch.equal(own, other)


def test_validation_reads_each_language_for_itself(opened: Open, both_languages: Path) -> None:
    (both_languages / "vatex" / "TextData" / "vatexval.caption.txt").write_text("val3#enc#9 a dog\n")
    gallery = opened().validation()
    assert list(gallery.queries) == ["en", "zh"] and len(gallery.visuals) == 8 and gallery.by_language
    english, chinese = gallery.queries.values()
    assert english.ids == ["val3#enc#9"] and len(chinese.ids) == 16
    assert gallery.visuals.ids[english.item_of[0]] == "val3"
    translated = opened("data.validation_english=translated").validation()
    assert translated.queries["en"].ids[0] == "val0#zh2enc#0"


def test_held_out_videos_train_nothing(opened: Open) -> None:
    for scenario in ("parallel", "unparallel"):
        pairs, gallery = opened(f"data.scenario={scenario}", "data.held_out=3").training()
        assert gallery is not None and len(gallery.visuals) == 3 and len(pairs.videos) == 9
        assert not set(gallery.visuals.ids) & set(pairs.videos.ids)
        assert sum(len(own.ids) for own in gallery.queries.values()) == (12 if scenario == "parallel" else 6)
        assert set(gallery.queries) == {"en", "zh"}
    with pytest.raises(UserError, match=r"data\.held_out=11: there are 12 training videos"):
        opened("data.held_out=11").training()


def test_queries_in_either_language(opened: Open) -> None:
    reader = opened()
    chinese, english = (reader.split("test", language) for language in reader.languages)
    assert (chinese.language, chinese.folder, english.language, english.folder) == ("zh", "", "en", "en")
    in_chinese, in_english = chinese.headline, english.headline
    assert in_chinese.ids[0] == "test0#zh2enc#0" and in_english.ids[0] == "test0#enc2zh#0"
    assert in_chinese.translations is not None and in_english.translations is not None
    assert said(in_english.tokens.batch([0]).tokens[0], reader.tokenizer).endswith(".")
    assert said(in_chinese.translations.batch([0]).tokens[0], reader.tokenizer).endswith(".")
    assert not said(in_chinese.tokens.batch([0]).tokens[0], reader.tokenizer).endswith(".")
    assert not said(in_english.translations.batch([0]).tokens[0], reader.tokenizer).endswith(".")


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("vatextrain_zh", (), "vatextrain_zh.caption.txt"),
        ("vatextrain_google_zhc2en", ("data.scenario=translate", "data.target=en"), "vatextrain_google_zh2enc"),
        ("vatextrain_zh", ("data.scenario=unparallel",), "vatextrain_zh.caption.txt"),
    ],
)
def test_a_missing_file_is_named(
    opened: Open, both_languages: Path, name: str, overrides: tuple[str, ...], says: str
) -> None:
    (both_languages / "vatex" / "TextData" / f"{name}.caption.txt").unlink()
    with pytest.raises(UserError) as caught:
        opened(*overrides).training()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_images_are_refused(opened: Open, tiny_images: Path, mlcmr_config: Path) -> None:
    config = load_config(mlcmr_config, ["data.collection=multi30k", "data.target=de"])
    with pytest.raises(UserError, match="holds images"):
        ViewReader.open(config, tiny_images, CaptionTokenizer(config.text.model, 30))
