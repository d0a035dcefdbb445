"""C2KD's tokenisers: an encoder's own, and LaBSE's beside it where the mean is over LaBSE's tokens.

N captions, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nrccr.config.schema import Config
from nrccr.data.batch import PooledTextBatch
from nrccr.data.collections import find_backbone
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.systems.c2kd.settings import C2KDSection


class PooledTokenizer(CaptionTokenizer):
    """A backbone's tokeniser beside LaBSE's, over whose tokens C2KD's released reading averages.

    Args:
        own: the backbone's.
        labse: LaBSE's; the same where the backbone is LaBSE.
    """

    def __init__(self, own: CaptionTokenizer, labse: CaptionTokenizer) -> None:
        self.__dict__.update(own.__dict__)
        self.labse = labse
        self._same = labse is own

    def encode(self, texts: Sequence[str]) -> PooledTokenTable:
        """Token ids of the backbone with the mask of LaBSE's tokens, both cut at the backbone's `max_tokens`."""
        own = super().encode(texts)
        pool = own.lengths if self._same else self.labse.encode(texts).lengths
        return PooledTokenTable(own, np.minimum(pool, self.max_tokens))


def language_tokenizer(config: Config, max_tokens: int, root: Path | None = None) -> CaptionTokenizer:
    """C2KD's tokeniser of a configuration's encoder, with LaBSE's mask where the mean is over LaBSE's tokens.

    Args:
        config: names the encoder, the mask, LaBSE's tokeniser, and whether captions are lower-cased; if they are not,
            letter case is left to each tokeniser, as published.
        max_tokens: longest caption kept, special tokens included.
        root: folder that may hold the tokenisers, besides the hub.

    Raises:
        UserError: no such tokeniser.
    """
    section = config.section(C2KDSection)
    named = (config.text.model, section.labse)
    model, labse = (name if root is None else find_backbone(root, name) for name in named)
    own = CaptionTokenizer(model, max_tokens, lower_case=section.lower_case)
    if config.switch("pool_mask") == "own":
        return own
    if labse == model:
        return PooledTokenizer(own, own)
    try:
        return PooledTokenizer(own, CaptionTokenizer(labse, max_tokens, lower_case=section.lower_case))
    except UserError as error:
        reason = str(error).removeprefix(f"text.model={labse}: ")
        raise UserError(
            f"c2kd.labse={labse}: {reason}; where the encoder is LaBSE itself, switches.pool_mask=own is the same"
        ) from error


class PooledTokenTable(TokenTable):
    """Token ids pooled over other positions.

    Args:
        own: the tokens.
        pool: (captions,) how many of LaBSE's tokens each caption has.
    """

    def __init__(self, own: TokenTable, pool: npt.NDArray[np.int64]) -> None:
        self.lengths, self.cut, self.pool = own.lengths, own.cut, pool
        self._starts, self._flat, self.pad, self.special = own._starts, own._flat, own.pad, own.special

    def content(self) -> bytes:
        """All tokens and lengths as bytes."""
        return super().content() + self.pool.tobytes()

    def batch(
        self, indices: Sequence[int] | npt.NDArray[np.int64], among: Sequence[int] | npt.NDArray[np.int64] = ()
    ) -> PooledTextBatch:
        """The captions at `indices`, padded to the longest by either tokeniser: tokens, mask and pool (N, L).

        To the longest of them and of those `among` which they are.
        """
        chosen, others = np.asarray(indices, dtype=np.int64), np.asarray(among, dtype=np.int64)
        pool = self.pool[chosen]  # (N,)
        both = (self.lengths, self.pool)
        longest = max(lengths[part].max(initial=1) for lengths in both for part in (chosen, others))
        text = self._padded(chosen, int(longest))
        counted = torch.arange(text.mask.shape[1]) < torch.from_numpy(pool)[:, None]  # (N, L)
        return PooledTextBatch(text.tokens, text.mask, counted, lengths=text.lengths)
