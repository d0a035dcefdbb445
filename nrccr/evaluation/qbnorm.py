"""`nrccr qbnorm`: score matrices in files, normalised, with the metrics of the published script before and after.

Captions are grouped by item: with Q = c N, captions c g to c g + c - 1 are those of item g.

Q test captions, N items, M bank queries, c captions an item.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.config.choices import Method
from nrccr.errors import UserError
from nrccr.evaluation.metrics import geometric_mean, ranks, recalls
from nrccr.evaluation.normalise import DUAL, TRANSDUCTIVE, Settings, normalise
from nrccr.evaluation.tune import choose
from nrccr.safeload.unpickle import load_array

RECALLS = (1, 5, 10, 50)
Array = npt.NDArray[Any]
Metrics = dict[str, dict[str, float]]


def published_metrics(scores: Array, mask: Array | None = None) -> Metrics:
    """Metrics of both directions as the published script has them, unrounded.

    Ties share the mean of their places. Left-out captions are ranked and then dropped in text to visual; in visual to
    text they stand behind all others, and an item without a caption is a miss of infinite rank.

    Args:
        scores: (Q, N), captions grouped by item.
        mask: (N, c) booleans, false for a caption that is left out.

    Returns:
        Of `text_to_visual` and `visual_to_text` R@1, R@5, R@10, R@50 (percent), MedR, MeanR, and `geometric`, the
        geometric mean of the first three.

    Raises:
        ValueError: Q is no multiple of N, a mask of another shape or without a single caption, NaN.
    """
    count, items = scores.shape
    if not items or count % items or not count:
        raise ValueError(f"scores have shape {scores.shape}: give as many captions for every item, grouped by item")
    each = count // items
    kept = np.ones(count, dtype=np.bool_)
    if mask is not None:
        if mask.shape != (items, each) or mask.dtype != np.bool_:
            raise ValueError(f"the mask is {mask.dtype} of shape {mask.shape}: give booleans of shape {(items, each)}")
        kept = mask.reshape(-1)
        if not kept.any():
            raise ValueError("the mask leaves out every caption: keep at least one")
    forward = ranks(scores, np.arange(count) // each, "average")[kept]
    described = kept.reshape(items, each).any(axis=1)
    captions = [each * item + np.flatnonzero(kept[each * item : each * (item + 1)]) for item in range(items)]
    backward = np.full(items, np.inf)
    behind = scores.T.astype(np.float64)  # a copy
    behind[:, ~kept] = -np.inf
    backward[described] = ranks(behind[described], [list(own) for own in captions if len(own)], "average")
    return {"text_to_visual": _summary(forward), "visual_to_text": _summary(backward)}


def _summary(best: npt.NDArray[np.float64]) -> dict[str, float]:
    found = recalls(best, RECALLS)
    return found | {
        "MedR": float(np.median(best)),
        "MeanR": float(np.mean(best)),
        "geometric": geometric_mean(found),
    }


@dataclass(frozen=True)
class ScoreFiles:
    """Files of a normalisation: scores, banks against the same items, a mask."""

    scores: Path
    bank: Path | None = None
    gallery_bank: Path | None = None
    mask: Path | None = None

    def read(self) -> ScoreArrays:
        """Read all of them.

        Raises:
            UserError: a file that is missing, damaged or not an array of the right kind.
        """
        scores, bank, gallery_bank = (_matrix(path) for path in (self.scores, self.bank, self.gallery_bank))
        assert scores is not None
        mask = None if self.mask is None else load_array(self.mask).astype(np.bool_)
        for path, other in ((self.bank, bank), (self.gallery_bank, gallery_bank)):
            if other is not None and other.shape[1] != scores.shape[1]:
                raise UserError(
                    f"{path}: has {other.shape[1]} items, {self.scores} has {scores.shape[1]}; both need the same items"
                )
        try:
            published_metrics(scores, mask)
        except ValueError as error:
            raise UserError(f"{self.mask if 'mask' in str(error) else self.scores}: {error}") from error
        return ScoreArrays(scores, bank, gallery_bank, mask)


@dataclass(frozen=True)
class ScoreArrays:
    """The content of `ScoreFiles`."""

    scores: Array
    bank: Array | None
    gallery_bank: Array | None
    mask: Array | None

    def before(self) -> Metrics:
        """Metrics of the scores as they are."""
        return published_metrics(self.scores, self.mask)

    def after(self, settings: Settings) -> Metrics:
        """Metrics of the normalised scores, in their exact order.

        Rows of dis and dual_dis are on one scale here: text to visual is the same, visual to text is comparable.
        """
        made = normalise(
            self.scores,
            self.bank,
            gallery_bank_scores=self.gallery_bank,
            method=settings.method,
            beta=settings.beta,
            k=settings.k,
            alpha=settings.alpha,
            log=True,
            rankable=True,
        )
        return published_metrics(np.asarray(made), self.mask)


def normalised_metrics(
    test: ScoreFiles, validation: ScoreFiles | None, settings: Settings
) -> tuple[Metrics, Metrics, Settings, tuple[float, float] | None]:
    """Metrics of the published script before and after normalisation.

    Args:
        test: what to normalise.
        validation: where to choose the parameters, by the geometric mean of text to visual; None takes `settings`.
        settings: the method and its parameters.

    Returns:
        before, after, the settings in force, and on validation the geometric mean before and after.

    Raises:
        UserError: a bad file or a bank that is missing.
    """
    for files in (test, validation):
        if files is not None:
            _require_banks(files, settings.method)
    arrays, means = test.read(), None
    try:
        if validation is not None:
            held_out = validation.read()
            settings, quality = choose(
                settings.method, lambda tried: held_out.after(tried)["text_to_visual"]["geometric"]
            )
            means = held_out.before()["text_to_visual"]["geometric"], quality
        return arrays.before(), arrays.after(settings), settings, means
    except ValueError as error:
        raise UserError(f"{test.scores} or its bank: {error}") from error


def _require_banks(files: ScoreFiles, method: Method) -> None:
    if method not in TRANSDUCTIVE and files.bank is None:
        raise UserError(f"{method} needs a bank for {files.scores}; give its scores as --sims_train_test_path "
                        "(for --sims_val_path as --sims_train_val_path)")  # fmt: skip
    if method in DUAL and files.gallery_bank is None:
        raise UserError(f"{method} needs a gallery bank for {files.scores}; give its scores as --gallery_bank_path "
                        "(for --sims_val_path as --gallery_bank_val_path)")  # fmt: skip


def _matrix(path: Path | None) -> Array | None:
    if path is None:
        return None
    found = load_array(path)
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "fiu":
        raise UserError(f"{path}: holds {found.dtype} of shape {found.shape}; give a matrix of scores, queries x items")
    if not np.isfinite(found).all():
        raise UserError(f"{path}: holds NaN or an infinity; fix the embeddings that the scores come from")
    return found
