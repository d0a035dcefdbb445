"""What the frozen lower layers of a text backbone give of captions, computed once and kept on disk.

L tokens, T real tokens, H backbone width.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.queries import Queries, Split
from nrccr.data.sampling import ordered_batches
from nrccr.data.states import FILE, StatesTable
from nrccr.data.tokens import TokenTable
from nrccr.errors import UserError
from nrccr.features.cache import make_once
from nrccr.features.fingerprint import hash_encoder
from nrccr.features.store import Store, Vectors
from nrccr.models.backbone import lower_states
from nrccr.models.lower import cut
from nrccr.processes import as_first, own_part

BLOCK = 512  # captions kept together: what a kill costs at most


class TextCache:
    """Folders `NAME-FINGERPRINT` of states; the fingerprint covers the frozen layers' weights and all tokens.

    The tokens are what tokeniser, cleaning, prefix and longest length make of the captions. States are float32; those
    of padding are not kept, so nothing may read them.

    Args:
        folder: where they lie; made when it is needed.
        backbone: with layers that do not train, on `device`.
        device: where to compute.
        batch_size: captions computed together.

    Raises:
        UserError: no layer is frozen, or they cannot be computed apart.
    """

    def __init__(self, folder: Path, backbone: PreTrainedModel, device: torch.device, batch_size: int) -> None:
        self.folder = folder
        self.device = device
        self.batch_size = batch_size
        self.lower, _, self.layers = cut(backbone)
        self.width = int(backbone.config.hidden_size)
        for value in self.lower.state_dict().values():
            as_first(value)  # another processor may have drawn other random weights
        self._weights = hash_encoder(self.lower)

    @classmethod
    def of(cls, config: Config, backbone: PreTrainedModel, device: torch.device) -> TextCache | None:
        """The cache that a configuration asks for; none where it asks for none.

        Raises:
            UserError: see TextCache.
        """
        if config.text.cache is None:
            return None
        return cls(Path(config.text.cache), backbone.to(device), device, config.evaluation.batch_size)

    def describe(self) -> dict[str, Any]:
        """What the states follow from beside captions."""
        return {"layers": self.layers, "weights": self._weights}

    def read(self, name: str, tokens: TokenTable) -> TokenTable:
        """The captions with their states: read from their folder, or computed and written first.

        Args:
            name: of collection, split and role, for the folder's name; the same states under another name are read.
            tokens: the captions.

        Raises:
            UserError: damaged states or weights, or a folder that cannot be written.
        """
        digest = hashlib.sha256(f"{self._weights} {self.layers} float32 ".encode() + tokens.content())
        mark = digest.hexdigest()[:16]
        known = self.folder.glob(f"*-{mark}")  # another system calls the same captions otherwise
        place = min(known, default=self.folder / f"{name}-{mark}")
        blocks = [np.arange(start, min(start + BLOCK, len(tokens))) for start in range(0, len(tokens), BLOCK)]
        make_once(
            place,
            {"weights": self._weights, "layers": self.layers, "batch_size": self.batch_size, "block": BLOCK},
            encode=lambda store: self._encode(store, name, tokens, blocks),
            finish=lambda store: store.finish_flat(map(str, range(len(blocks))), FILE),
            key="text.cache",
        )
        return StatesTable(tokens, place, self.width)

    def of_split(self, split: Split) -> Split:
        """A split whose queries, and their translations, bring their states."""
        queries = {
            language: self._of_queries(f"{split.collection}-{split.name}-{language}", own)
            for language, own in split.queries.items()
        }
        return replace(split, queries=queries)

    def _of_queries(self, name: str, queries: Queries) -> Queries:
        translations = queries.translations
        if translations is not None:
            translations = self.read(f"{name}-translated", translations)
        return replace(queries, tokens=self.read(name, queries.tokens), translations=translations)

    def _encode(self, store: Store, name: str, tokens: TokenTable, blocks: list[np.ndarray[Any, Any]]) -> None:
        """Compute what nobody has kept; of several processes each has some blocks, in files of its own."""
        kept = store.parts()
        lacks = as_first(torch.tensor([int(str(block) not in kept) for block in range(len(blocks))])).tolist()
        own = own_part([block for block, lacking in enumerate(lacks) if lacking])
        total = sum(len(blocks[block]) for block in own)
        bar = tqdm(total=total, desc=f"frozen layers, {name}", unit="", disable=None, leave=False)
        with bar as progress:
            for block in own:
                states = self._states(tokens, blocks[block])  # (T, H)
                if not np.isfinite(states).all():
                    raise UserError(
                        f"text.cache: the backbone gives a NaN or an infinity for captions of {name}; look for a "
                        "damaged text.model"
                    )
                store.add([(str(block), [], states)])
                progress.update(len(blocks[block]))

    def _states(self, tokens: TokenTable, block: np.ndarray[Any, Any]) -> Vectors:
        """The states (T, H) of captions, one after the other; those of like length are computed together."""
        begins = np.cumsum(tokens.lengths[block]) - tokens.lengths[block]  # of each caption among the T
        states = np.empty((int(tokens.lengths[block].sum()), self.width), dtype=np.float32)
        for chosen in ordered_batches(tokens.lengths[block], self.batch_size, by_length=True):
            text = tokens.batch(block[chosen]).to(self.device)
            (found,) = lower_states(self.lower, [text])  # (N, L, H)
            for begin, length, row in zip(
                begins[chosen], tokens.lengths[block[chosen]], found.float().cpu().numpy(), strict=True
            ):
                states[begin : begin + length] = row[:length]
        return states


def recorded(cache: TextCache | None) -> dict[str, Any]:
    """For `run.json`: a run that is resumed finds the frozen layers that its states were computed with."""
    return {} if cache is None else {"frozen_layers": cache.describe()}
