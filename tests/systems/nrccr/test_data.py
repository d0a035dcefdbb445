"""Pairs, queries and videos of a collection, against a reading by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nrccr.data.captions import read_captions
from nrccr.data.cleaning import clean_english
from nrccr.data.sampling import PARTS
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.systems.nrccr.data import Reader
from nrccr.systems.settings import load_config


def reader_of(config_path: Path, root: Path, *overrides: str) -> Reader:
    config = load_config(config_path, overrides)
    return Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))


def tokens_of(reader: Reader, text: str) -> list[int]:
    return reader.tokenizer.encode([text]).batch([0]).tokens[0].tolist()


def test_pairs_are_matched_cleaned_and_point_to_their_video(tiny_config: Path, tiny_collection: Path) -> None:
    text = tiny_collection / "vatex" / "TextData"
    back_path = text / "vatextrain_google_enc2zh2enc.caption.txt"
    lines = back_path.read_text(encoding="utf-8").splitlines()
    back_path.write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")  # order of files need not agree
    reader = reader_of(tiny_config, tiny_collection)
    pairs = reader.pairs()
    source = read_captions(text / "vatextrain.caption.txt")
    target = dict(line.split(" ", 1) for line in open(text / "vatextrain_google_enc2zh.caption.txt", encoding="utf-8"))
    back = dict(line.split(" ", 1) for line in lines)
    assert len(pairs) == len(source.ids) == 24
    for index, (item, number) in enumerate(source.keys):
        batch = pairs.batch([index])
        assert batch.source.tokens[0].tolist() == tokens_of(reader, clean_english(source.texts[index]))
        assert batch.target.tokens[0].tolist() == tokens_of(reader, target[f"{item}#enc2zh#{number}"].strip())
        assert batch.back.tokens[0].tolist() == tokens_of(reader, back[f"{item}#enc2zh2enc#{number}"].strip())
        rows = reader.features.rows(item)
        matrix = np.fromfile(reader.features.folder / "feature.bin", dtype=np.float32).reshape(-1, 16)
        assert torch.equal(batch.visual.frames[0], torch.from_numpy(matrix[rows]))
        assert pairs.visuals.ids[int(batch.items[0])] == item


def test_the_paper_cleans_back_translations_too(tiny_config: Path, tiny_collection: Path) -> None:
    path = tiny_collection / "vatex" / "TextData" / "vatextrain_google_enc2zh2enc.caption.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("\n", " ...!\n"), encoding="utf-8")
    raw = reader_of(tiny_config, tiny_collection).pairs().back.lengths
    cleaned = reader_of(tiny_config, tiny_collection, "switches.english_cleaning=all").pairs().back.lengths
    assert (raw - cleaned == 3).all()  # four marks became one full stop


def test_a_batch_in_parts_holds_the_same_pairs_with_less_padding(tiny_config: Path, tiny_collection: Path) -> None:
    whole = reader_of(tiny_config, tiny_collection).pairs()
    parts = reader_of(tiny_config, tiny_collection, "reading=corrected").pairs()
    assert (whole.parts, parts.parts) == (1, PARTS)
    indices = np.array([5, 0, 17, 9, 3, 11])
    (batch,) = whole[indices].parts
    assert torch.equal(batch.source.tokens, whole.batch(indices).source.tokens)
    cut = parts[indices].parts
    assert len(cut) == PARTS
    assert sorted(torch.cat([part.items for part in cut]).tolist()) == sorted(batch.items.tolist())
    assert sum(part.source.mask.sum() for part in cut) == batch.source.mask.sum()
    assert sum(part.source.mask.numel() for part in cut) < batch.source.mask.numel()
    assert len(parts[np.array([1, 2])].parts) == 2  # never an empty part


def test_queries_name_items_in_the_first_files_order(tiny_config: Path, tiny_collection: Path) -> None:
    path = tiny_collection / "vatex" / "TextData" / "vatextest_google_zh2enc.caption.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    split = reader_of(tiny_config, tiny_collection).split("test")
    queries, items = split.headline, split.visuals.ids
    assert queries.ids == [line.split(" ")[0] for line in lines[::-1]]
    assert items == [f"test{video}" for video in range(7, -1, -1)]
    assert [items[item] for item in queries.item_of] == [name.split("#")[0] for name in queries.ids]


def test_what_was_read_is_counted(tiny_config: Path, tiny_collection: Path) -> None:
    path = tiny_collection / "vatex" / "TextData" / "vatextest_google_zh2enc.caption.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[0] = lines[0].split(" ")[0] + " 。"
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    overrides = ("data.mismatch_tolerance=0.1", "text.max_tokens=4")
    counts = reader_of(tiny_config, tiny_collection, *overrides).split("test").counts
    assert [counts[name] for name in ("captions", "items", "unmatched", "empty_sources")] == [15, 8, 1, 1]
    assert counts["cut"] > 0
    with pytest.raises(UserError, match="data.mismatch_tolerance"):
        reader_of(tiny_config, tiny_collection).split("test")


def test_a_nan_names_its_frame(tiny_config: Path, tiny_collection: Path) -> None:
    reader = reader_of(tiny_config, tiny_collection)
    matrix = np.memmap(reader.features.folder / "feature.bin", np.float32, "r+", shape=(reader.features.count, 16))
    matrix[reader.features.rows("val3")[1], 4] = np.nan
    matrix.flush()
    again = reader_of(tiny_config, tiny_collection)
    again.pairs()  # no training video is hurt
    with pytest.raises(UserError, match="first val3_1"):
        again.split("val")
