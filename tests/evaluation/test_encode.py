"""Encoding: batches that change nothing or are cut as published, captions of an item averaged, NaN told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.languages import locate_languages
from nrccr.data.queries import Queries, Split
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.evaluation import ranked
from nrccr.evaluation.banks import BankFolder, write_bank
from nrccr.evaluation.encode import averaged, encode_split, encode_texts, encode_visuals
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.normalise import Settings
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.tune import quality
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.c2kd.data import LanguageReader
from nrccr.systems.c2kd.network import C2KD
from nrccr.systems.nrccr.data import Reader
from nrccr.systems.nrccr.network import NRCCR, build_nrccr
from nrccr.systems.settings import load_config

CPU = torch.device("cpu")


def made(config_path: Path, root: Path, *overrides: str) -> tuple[NRCCR, Split]:
    config = load_config(config_path, overrides)
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    torch.manual_seed(0)
    backbone = build_backbone(backbone_config(config.text.model, config.text.backbone), pretrained=None)
    assert reader.features is not None
    return build_nrccr(config, backbone, reader.features.width).eval(), reader.split("test")


def test_corrected_embeddings_are_the_same_in_any_batch(tiny_config: Path, tiny_collection: Path) -> None:
    network, split = made(tiny_config, tiny_collection, "reading=corrected")
    captions, videos = split.headline.tokens, split.visuals
    one = torch.cat([network.embed_text(captions.batch([i])) for i in range(len(captions))])
    for size in (1, 3, 100):
        torch.testing.assert_close(encode_texts(network, captions, size, CPU), one, atol=1e-6, rtol=0)
    each = torch.cat([network.embed_visual(videos.batch([i])) for i in range(len(videos))])
    torch.testing.assert_close(encode_visuals(network, videos, 3, CPU), each, atol=1e-6, rtol=0)


def test_released_batches_are_cut_in_file_order(tiny_config: Path, tiny_collection: Path) -> None:
    network, split = made(tiny_config, tiny_collection)
    captions = split.headline.tokens
    count = len(captions)
    batches = [range(start, min(start + 5, count)) for start in range(0, count, 5)]
    byhand = torch.cat([network.embed_text(captions.batch(batch)) for batch in batches])
    assert torch.equal(encode_texts(network, captions, 5, CPU), byhand)
    assert not torch.allclose(encode_texts(network, captions, 1, CPU), byhand, atol=1e-5)  # padding counts


def test_file_order_and_order_of_length_agree(tiny_config: Path, tiny_collection: Path) -> None:
    network, split = made(tiny_config, tiny_collection, "reading=corrected")
    tokens = split.headline.tokens
    assert sorted(tokens.lengths) != tokens.lengths.tolist()  # so that batches by length are others
    inorder = [network.embed_text(tokens.batch(range(at, min(at + 4, len(tokens))))) for at in range(0, len(tokens), 4)]
    torch.testing.assert_close(encode_texts(network, tokens, 4, CPU), torch.cat(inorder), atol=1e-5, rtol=0)


def test_bf16_is_for_encoding_alone(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, split = made(tiny_config, tiny_collection, "reading=corrected")
    rule = Rule(4, CPU, kind="raw", precision="bf16")
    half: dict[str, bool] = {}

    def watch(owner: Any, name: str) -> None:
        before = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            half[name] = torch.is_autocast_enabled("cpu")
            return before(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    watch(network, "embed_text")
    watch(network, "embed_visual")
    watch(ranked, "ranks_and_precision")
    at_work = {"embed_text": True, "embed_visual": True, "ranks_and_precision": False}
    evaluate(network, split, rule)
    assert half == at_work
    half.clear()
    quality(network, split, rule, None)(Settings("dsl"))
    assert half == at_work
    half.clear()
    weights = tmp_path / "weights"
    weights.touch()
    write_bank(network, split, split, rule, BankFolder(tmp_path, weights), {})
    assert half == {"embed_text": True, "embed_visual": True}

    with rule.encoding():
        found = encode_texts(network, split.headline.tokens, 4, CPU)
    exact = encode_texts(network, split.headline.tokens, 4, CPU)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_a_split_has_queries_translations_and_gallery(tiny_config: Path, tiny_collection: Path) -> None:
    network, split = made(tiny_config, tiny_collection)
    ((language, encoded),) = encode_split(network, split, 5, CPU)
    assert language == split.language == "zh" and encoded.ids == split.headline.ids
    assert np.array_equal(encoded.item_of, split.headline.item_of) and split.headline.translations is not None
    assert encoded.embeddings.source is not None
    assert torch.equal(encoded.embeddings.source, encode_texts(network, split.headline.translations, 5, CPU))
    assert torch.equal(encoded.embeddings.target, encode_texts(network, split.headline.tokens, 5, CPU))
    assert torch.equal(encoded.embeddings.visual, encode_visuals(network, split.visuals, 5, CPU))


def test_captions_of_an_item_are_averaged_before_unit_length() -> None:
    vectors = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    queries = Queries(TokenTable([[1]] * 4, 0), ["b#de#0", "a#de#0", "b#de#1", "b#de#2"], np.array([5, 2, 5, 5]))
    visual = torch.zeros(6, 2)
    found = averaged(queries, vectors, visual)
    assert found.ids == ["a#de#0", "b#de#0"] and found.item_of.tolist() == [2, 5]
    mean = torch.tensor([4 / 3, 1 / 3])
    torch.testing.assert_close(found.embeddings.target, torch.stack([torch.tensor([0.0, 1.0]), mean / mean.norm()]))
    assert found.embeddings.source is None and found.embeddings.visual is visual


@pytest.fixture
def network(tiny_bert: Path) -> C2KD:
    torch.manual_seed(0)
    backbone = build_backbone(backbone_config(str(tiny_bert), {}), pretrained=None)
    return C2KD(backbone, 16, 12, width=8, heads=2, layers=1)


@pytest.fixture
def reader(tiny_languages: Path) -> LanguageReader:
    return LanguageReader.open(locate_languages(tiny_languages, "multi_msrvtt"), 30, "first")


def test_averaging_is_the_layouts(network: C2KD, reader: LanguageReader, tiny_bert: Path) -> None:
    split = reader.split("test", CaptionTokenizer(str(tiny_bert), 40))
    assert split.averaged
    own = dict(encode_split(network, split, 3, CPU))["de"].embeddings
    torch.testing.assert_close(own.target.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(own.visual.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(own.target, network.embed_text(split.queries["de"].tokens.batch(range(8))))


def test_nan_is_told_with_its_caption(network: C2KD, reader: LanguageReader, tiny_bert: Path) -> None:
    bias: Any = network.text.project.linear.bias
    bias.data[0] = torch.nan
    split = reader.split("val", CaptionTokenizer(str(tiny_bert), 40))
    with pytest.raises(UserError, match="the embedding of val0#en#0 and 7 others is not finite"):
        evaluate(network, split, Rule(4, CPU))
