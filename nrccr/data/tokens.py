"""Captions -> token ids, once per caption, with the paper's cleaning.

N captions, L tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nrccr.data.batch import TextBatch
from nrccr.errors import UserError, first_line

_NOT_ENGLISH = re.compile(r"[^A-Za-z0-9]+")


def clean_english(text: str) -> str:
    """The published cleaning of English: letters and digits only, lower case, one sentence with capital and full stop.

    A caption without any ASCII letter or digit becomes the empty sentence.
    """
    words = _NOT_ENGLISH.sub(" ", text).lower().strip()
    return f"{words.capitalize()}." if words else ""


class CaptionTokenizer:
    """The backbone's tokeniser with lower-casing forced on, although the multilingual vocabulary is cased.

    Args:
        model: hub name or folder of the backbone, as `text.model`.
        max_tokens: longest caption kept, special tokens included; fewer where the backbone has fewer positions.

    Attributes:
        special: how many special tokens every caption gets.

    Raises:
        UserError: no tokeniser there.
    """

    def __init__(self, model: str, max_tokens: int) -> None:
        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            kind = str(config.model_type)
            if kind == "bert":  # its lower-casing also strips accents, which lower() alone does not
                self.tokenizer: PreTrainedTokenizerBase = BertTokenizer.from_pretrained(model, do_lower_case=True)
            else:
                self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
            reason = first_line(error)
            raise UserError(f"text.model={model}: no tokeniser there ({reason}); give a folder or hub name") from error
        self._lower = kind != "bert"
        # RoBERTa and its kin number positions from the padding id on.
        taken = config.pad_token_id + 1 if "roberta" in kind else 0
        positions = getattr(config, "max_position_embeddings", None)
        if not isinstance(positions, int):
            raise UserError(f"text.model={model}: a {kind} model is no text encoder with position embeddings")
        self.max_tokens = min(max_tokens, positions - taken)
        # A BERT folder without vocabulary would otherwise give a tokeniser that maps every word to [UNK].
        if len(self.tokenizer) < 10:
            pieces = len(self.tokenizer)
            raise UserError(f"text.model={model}: its vocabulary holds {pieces} pieces; is vocab.txt missing?")
        self.special = int(self.tokenizer.num_special_tokens_to_add())
        self._model = model

    @property
    def mask_id(self) -> int:
        """The vocabulary's [MASK], 103 in the multilingual BERT.

        Raises:
            UserError: it has none.
        """
        if self.tokenizer.mask_token_id is None:
            raise UserError(f"text.model={self._model}: its vocabulary has no mask token; give another backbone")
        return int(self.tokenizer.mask_token_id)

    def encode(self, texts: Sequence[str]) -> TokenTable:
        """Token ids of all captions, special tokens included, cut at `max_tokens` (the table counts how many were)."""
        given = [text.lower() for text in texts] if self._lower else list(texts)
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # it would warn of captions longer than the backbone, which we cut
        try:
            rows: list[list[int]] = self.tokenizer(given, add_special_tokens=True)["input_ids"] if given else []
            cut = sum(len(row) > self.max_tokens for row in rows)
            if cut:
                rows = self.tokenizer(given, truncation=True, max_length=self.max_tokens)["input_ids"]
        finally:
            transformers_logging.set_verbosity(verbosity)
        return TokenTable(rows, pad=int(self.tokenizer.pad_token_id or 0), cut=cut)

    def save(self, folder: Path) -> None:
        """Write the tokeniser's files into a folder, from which `text.model` can read it again."""
        self.tokenizer.save_pretrained(folder)


class TokenTable:
    """Token ids of many captions in one flat array; a batch is a gather.

    Attributes:
        lengths: (captions,) tokens of each.
        cut: how many captions were shortened.
    """

    def __init__(self, rows: Sequence[Sequence[int]], pad: int, cut: int = 0) -> None:
        self.lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        self.cut = cut
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(self._starts[-1]))
        self._pad = pad

    def __len__(self) -> int:
        return len(self.lengths)

    def content(self) -> bytes:
        """All tokens and lengths as bytes."""
        return self.lengths.tobytes() + self._flat.tobytes()

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> TextBatch:
        """The captions at `indices`, padded to the longest of them: tokens and mask (N, L)."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]  # (N,)
        columns = np.arange(lengths.max())  # (L,)
        mask = columns < lengths[:, None]  # (N, L)
        places = np.where(mask, self._starts[chosen, None] + columns, 0)
        tokens = np.where(mask, self._flat[places], self._pad).astype(np.int64)  # (N, L)
        return TextBatch(torch.from_numpy(tokens), torch.from_numpy(mask))
