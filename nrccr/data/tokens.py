"""Captions -> token ids, once per caption.

N captions, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nrccr.data.batch import TextBatch
from nrccr.errors import UserError, first_line

AT_ONCE = 10_000  # captions tokenised together: the tokeniser takes some 6 KB for each while it works


class Tokenizer(Protocol):
    """What turns captions into token ids."""

    max_tokens: int

    def encode(self, texts: Sequence[str]) -> TokenTable:
        """Token ids of all captions, special tokens included."""


class CaptionTokenizer:
    """The backbone's tokeniser, with lower-casing forced on, or as published.

    Args:
        model: hub name or folder of the backbone, as `text.model`.
        max_tokens: longest caption kept, special tokens included; fewer where the backbone has fewer positions.
        lower_case: force it, although the multilingual vocabulary is cased (NRCCR, MLCMR); false leaves the tokeniser
            as it was published (C2KD, unless `c2kd.lower_case`).

    Attributes:
        special: how many special tokens every caption gets.
        config: of the backbone.

    Raises:
        UserError: no tokeniser there.
    """

    def __init__(self, model: str, max_tokens: int, *, lower_case: bool = True) -> None:
        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            kind = str(config.model_type)
            if kind == "bert" and lower_case:  # its lower-casing also strips accents, which lower() alone does not
                self.tokenizer: PreTrainedTokenizerBase = BertTokenizer.from_pretrained(model, do_lower_case=True)
            else:
                self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
            reason = first_line(error)
            raise UserError(f"text.model={model}: no tokeniser there ({reason}); give a folder or hub name") from error
        self._lower = lower_case and kind != "bert"
        self.config = config
        # RoBERTa and its relatives number positions from the padding id on.
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
        parts: list[TokenTable] = []
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # it would warn of captions longer than the backbone, which we cut
        try:
            with tqdm(total=len(texts), desc="captions", unit="", disable=None, leave=False, delay=1) as progress:
                for start in range(0, len(texts), AT_ONCE):
                    parts.append(self._encode_part(texts[start : start + AT_ONCE]))
                    progress.update(len(parts[-1]))
        finally:
            transformers_logging.set_verbosity(verbosity)
        return TokenTable.joined(parts, self._pad, self.special)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def _encode_part(self, texts: Sequence[str]) -> TokenTable:
        captions = [text.lower() for text in texts] if self._lower else list(texts)
        rows: list[list[int]] = self.tokenizer(captions, add_special_tokens=True)["input_ids"]
        long = [index for index, row in enumerate(rows) if len(row) > self.max_tokens]
        if long:  # the tokeniser cuts them, as it knows where its special tokens go
            cut = self.tokenizer([captions[index] for index in long], truncation=True, max_length=self.max_tokens)
            for index, row in zip(long, cut["input_ids"], strict=True):
                rows[index] = row
        return TokenTable(rows, self._pad, cut=len(long))

    def save(self, folder: Path) -> None:
        """Write the tokeniser's files into a folder; beside the backbone's configuration they can be read again."""
        self.tokenizer.save_pretrained(folder)


class TokenTable:
    """Token ids of many captions in one flat array; a batch is a gather.

    Attributes:
        lengths: (captions,) tokens of each.
        cut: how many captions were shortened.
        special: how many special tokens every caption has.
        pad: the id of padded tokens.
    """

    def __init__(self, rows: Sequence[Sequence[int]], pad: int, cut: int = 0, special: int = 0) -> None:
        self.lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        self.cut = cut
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(self._starts[-1]))
        self.pad = pad
        self.special = special

    @classmethod
    def joined(cls, parts: Sequence[TokenTable], pad: int, special: int = 0) -> TokenTable:
        """The captions of several tables in one, in order."""
        table = cls([], pad, cut=sum(part.cut for part in parts), special=special)
        if parts:
            table.lengths = np.concatenate([part.lengths for part in parts])
            table._starts = np.concatenate([[0], np.cumsum(table.lengths)])
            table._flat = np.concatenate([part._flat for part in parts])
        return table

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """(captions,) tokens of each without special ones."""
        return self.lengths - self.special

    def content(self) -> bytes:
        """All tokens and lengths as bytes."""
        return self.lengths.tobytes() + self._flat.tobytes()

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> TextBatch:
        """The captions at `indices`, padded to the longest of them: tokens and mask (N, L)."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._padded(chosen, int(self.lengths[chosen].max(initial=1)))

    def _padded(self, chosen: npt.NDArray[np.int64], longest: int) -> TextBatch:
        columns = np.arange(longest)  # (L,)
        mask = columns < self.lengths[chosen, None]  # (N, L)
        places = np.where(mask, self._starts[chosen, None] + columns, 0)
        tokens = np.where(mask, self._flat[places], self.pad).astype(np.int64)  # (N, L)
        return TextBatch(torch.from_numpy(tokens), torch.from_numpy(mask))
