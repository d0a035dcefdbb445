"""MLCMR's objective: ranking, and contrast with masked views, for each of its three scenarios.

N pairs in the batch, J joint-space width.
"""

from __future__ import annotations

from torch import Tensor

from nrccr.config.choices import Scenario
from nrccr.losses.infonce import InfoNCELoss
from nrccr.losses.triplet import TripletLoss
from nrccr.systems.mlcmr.network import ViewOutput


class MLCMRObjective:
    """The sum of one scenario, all weights 1, every term summed over the batch.

    `parallel` (human captions in both languages) and `translate` (pseudo-parallel: one language is machine-translated)
    have the same sum; `unparallel` (each caption in one language or the other) has one term fewer of each kind. No term
    compares the two languages with each other, nor a masked view with another modality.
    """

    def __init__(
        self, scenario: Scenario, *, margin: float = 0.2, temperature: float = 0.07, mask_same_item: bool = False
    ) -> None:
        """Choose the scenario.

        Args:
            scenario: which sum.
            margin: of the ranking loss, in cosine.
            temperature: of the contrast with views, divides cosines.
            mask_same_item: captions of one item are no negatives of each other in the ranking loss (not published).

        Raises:
            ValueError: an unknown scenario.
        """
        sums = {"parallel": self._parallel, "translate": self._parallel, "unparallel": self._unparallel}
        if scenario not in sums:
            raise ValueError(f"scenario is {scenario!r}: choose {', '.join(sums)}")
        self.scenario = scenario
        self.terms = sums[scenario]
        self.rank = TripletLoss(margin)
        self.contrast = InfoNCELoss(temperature)
        self.mask_same_item = mask_same_item

    def __call__(self, out: ViewOutput) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            out: the network's output for the batch, with a target unless the scenario is unparallel.

        Returns:
            Scalars by name; the total is the sum of those that end in `_loss`.

        Raises:
            ValueError: a batch of another scenario.
        """
        if (out.target is None) != (self.scenario == "unparallel"):
            raise ValueError(f"a batch {'without' if out.target is None else 'with'} target, scenario {self.scenario}")
        same = out.items[:, None] == out.items if self.mask_same_item else None  # (N, N)
        return self.terms(out, same)

    def _parallel(self, out: ViewOutput, same: Tensor | None) -> dict[str, Tensor]:
        assert out.target is not None and out.masked_target is not None
        return {
            "source_loss": self.rank(out.source, out.visual, same),
            "target_loss": self.rank(out.target, out.visual, same),
            "source_view_loss": self.contrast(out.source, out.masked_source),
            "target_view_loss": self.contrast(out.target, out.masked_target),
            "visual_view_loss": self.contrast(out.visual, out.masked_visual),
        }

    def _unparallel(self, out: ViewOutput, same: Tensor | None) -> dict[str, Tensor]:
        return {
            "text_loss": self.rank(out.source, out.visual, same),
            "text_view_loss": self.contrast(out.source, out.masked_source),
            "visual_view_loss": self.contrast(out.visual, out.masked_visual),
        }
