"""A word table of which only the rows that a training set uses train.

Adam leaves a row without any gradient as it is, so this is exact, but for a decay, which shrinks the used rows alone; a
table of 100,000 words costs no more than its few thousand used ones. V words in the vocabulary, R of them used, W width
of a word vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.data.sampling import Indices

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, as large as the parameter


class UsedRows(nn.Embedding):
    """A word table (V, W) with its used rows apart, as a parameter `own` (R, W) that trains in its place.

    `weight` stays the whole table, the one that is saved and that evaluation reads; `write_back` keeps it up to date.
    Make one with `train_used_rows`.
    """

    rows: Tensor  # (R,) ids of the used words, in order
    place: Tensor  # (V,) of each word among the rows; R, which no row has, where it is not used
    own: nn.Parameter | None  # (R, W) once `part` was called
    own_padding: int | None

    def part(self) -> None:
        """Take the used rows apart, on the table's device."""
        self._keep(nn.Parameter(self.weight.detach()[self.rows]))

    def _keep(self, own: nn.Parameter | None) -> None:
        object.__setattr__(self, "own", own)  # no parameter of the module, or it would be saved beside the table

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> vectors (..., W); with gradients only of used words."""
        if self.own is None or not torch.is_grad_enabled():
            return super().forward(ids)
        return functional.embedding(self.place[ids], self.own, self.own_padding)

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the trained rows into the whole table."""
        if self.own is not None:
            self.weight.index_copy_(0, self.rows, self.own)

    @torch.no_grad()
    def reload(self) -> None:
        """Take the rows anew from the whole table."""
        if self.own is not None:
            self.own.copy_(self.weight.index_select(0, self.rows))

    def whole(self, moments: Tensor) -> Tensor:
        """Moments of the rows (R, W) as moments of the table (V, W)."""
        table = torch.zeros_like(self.weight, device=moments.device)
        table[self.rows.to(moments.device)] = moments
        return table

    def cut(self, moments: Tensor) -> Tensor:
        """Moments of the table (V, W) as moments of the rows (R, W).

        Raises:
            ValueError: another word has some.
        """
        rows = self.rows.to(moments.device)
        if moments.count_nonzero() != moments[rows].count_nonzero():
            raise ValueError("words were trained that the training set does not have")
        return moments[rows]


def train_used_rows(table: nn.Module, used: Indices) -> None:
    """Let a training take the used rows of a word table apart; nothing changes where the table does not train.

    Args:
        table: the word table of a backbone.
        used: ids of all tokens that the training set can show, each once, in order.
    """
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return
    rows = torch.from_numpy(used)
    place = torch.full((table.num_embeddings,), len(rows))
    place[rows] = torch.arange(len(rows))
    table.__class__ = UsedRows
    table.register_buffer("rows", rows, persistent=False)
    table.register_buffer("place", place, persistent=False)
    parted = cast(UsedRows, table)
    parted._keep(None)
    padding = len(rows) if table.padding_idx is None else int(place[table.padding_idx])
    parted.own_padding = padding if padding < len(rows) else None


def parted_tables(network: nn.Module) -> list[UsedRows]:
    """The word tables of a network whose used rows train apart, these taken anew."""
    tables = [module for module in network.modules() if isinstance(module, UsedRows)]
    for table in tables:
        table.part()
    return tables


def whole_moments(optimizer: torch.optim.Optimizer, tables: Sequence[UsedRows]) -> dict[str, Any]:
    """An optimiser's state, with moments of whole tables."""
    state = optimizer.state_dict()
    moments = dict(state["state"])
    for index, table in _numbered(optimizer, tables):
        if index in moments:
            moments[index] = moments[index] | {key: table.whole(moments[index][key]) for key in MOMENTS}
    return state | {"state": moments}


def cut_moments(optimizer: torch.optim.Optimizer, tables: Sequence[UsedRows], found: Any) -> Any:
    """The reverse of `whole_moments`; a state of another form is left to `require_adam`.

    Raises:
        ValueError: moments of another shape than their table, or of words that the training set does not have.
    """
    if not tables or not isinstance(found, dict) or not isinstance(found.get("state"), dict):
        return found
    moments = dict(found["state"])
    for index, table in _numbered(optimizer, tables):
        own = moments.get(index)
        if isinstance(own, dict) and all(_is_dense(own.get(key)) for key in MOMENTS):
            for key in MOMENTS:
                _require_shape(f"{key} of {index}", own[key], table.weight)
            moments[index] = own | {key: table.cut(own[key]) for key in MOMENTS}
    return found | {"state": moments}


def _numbered(optimizer: torch.optim.Optimizer, tables: Sequence[UsedRows]) -> list[tuple[int, UsedRows]]:
    """Each table with its number among the optimiser's parameters."""
    parameters = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    return [(parameters.index(id(table.own)), table) for table in tables]


def _is_dense(found: Any) -> bool:
    return isinstance(found, Tensor) and found.layout == torch.strided


def _require_shape(name: str, found: Tensor, weight: Tensor) -> None:
    if found.shape != weight.shape:
        raise ValueError(f"{name} is {tuple(found.shape)}, not {tuple(weight.shape)}")
