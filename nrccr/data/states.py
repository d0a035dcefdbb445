"""Captions with what the frozen lower layers of a backbone give of them, read from a file.

N captions, L tokens, T real tokens, H backbone width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nrccr.data.batch import LowerStates, TextBatch
from nrccr.data.matrix import Matrix
from nrccr.data.tokens import TokenTable
from nrccr.errors import UserError

FILE = "states.bin"


class StatesTable(TokenTable):
    """A table of tokens whose batches bring the states of every real token.

    Args:
        tokens: the captions.
        folder: of the states, see nrccr.features.text_cache.
        width: H.

    Raises:
        UserError: no such file, or one of another length.
    """

    def __init__(self, tokens: TokenTable, folder: Path, width: int) -> None:
        super().__init__([], tokens.pad, tokens.cut, tokens.special)
        self.lengths, self._starts, self._flat = tokens.lengths, tokens._starts, tokens._flat
        self._states = Matrix(
            folder / FILE,
            (len(self._flat), width),
            source=", a row a token",
            advice=f"remove {folder}, it is then computed anew",
        )

    def batch(
        self, indices: Sequence[int] | npt.NDArray[np.int64], among: Sequence[int] | npt.NDArray[np.int64] = ()
    ) -> TextBatch:
        """As TokenTable's, with the states.

        Raises:
            UserError: the states are damaged.
        """
        text = super().batch(indices, among)
        rows = self.positions(indices)  # (T,)
        states = np.empty((len(rows), self._states.shape[1]), dtype=np.float32)
        self._states.take(rows, states)
        if not np.isfinite(states).all():
            raise UserError(f"{self._states.path}: holds a NaN or an infinity; {self._states.advice}")
        return replace(text, lower=LowerStates.of(torch.from_numpy(states), text.mask))
