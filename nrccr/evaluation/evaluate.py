"""Encode, score and rank a split, and write the results: the one evaluation of validation and test.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nrccr.config.choices import TEXT_TO_TEXT, ScoreKind
from nrccr.data.queries import Split, TextGallery
from nrccr.errors import UserError
from nrccr.evaluation.blocks import Blocks, fits
from nrccr.evaluation.directions import Directions, Normalisation
from nrccr.evaluation.encode import EncodedQueries, Encoder, encode_split
from nrccr.evaluation.languages import mean_metrics, variance_across
from nrccr.evaluation.metrics import recalls_by_length
from nrccr.evaluation.outputs import forget, write_ranks, write_scores
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.trec import write_trec
from nrccr.files import write_json

SWEEP = (1.0, 0.8, 0.5, 0.2, 0.0)  # weights of the source side, as the published test prints them
AMONG_TEXTS = {"text_to_visual": "target_to_source", "visual_to_text": "source_to_target"}


@torch.inference_mode()
def evaluate(
    network: Encoder, split: Split, rule: Rule, folder: Path | None = None, header: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Metrics of a split: of its one language, or language by language with their mean; of captions among texts.

    Args:
        network: the model; it is put into evaluation mode while it encodes.
        split: queries and gallery.
        rule: how scores are made.
        folder: gets `ranks.tsv`, `ranks_visual.tsv`, perhaps `scores.npz`, and last `metrics.json`; by language, ranks
            in a folder a language. None in validation: nothing is written, and only headline metrics are computed.
        header: first entries of `metrics.json`.

    Returns:
        what `metrics.json` holds (docs/data-format.md).

    Raises:
        UserError: an embedding is not finite, or an option that this split does not offer.
    """
    _require_offered(split, rule)
    evaluation = _Evaluation(split, rule, folder)
    # All of it, before anything of an earlier test is deleted.
    with rule.encoding():
        encoded = dict(encode_split(network, split, rule.batch_size, rule.device))
    if split.by_language:
        found = evaluation.by_language(encoded)
    else:
        found = evaluation.of_one_language(encoded[split.language])
    metrics = {**(header or {}), **found}
    if folder is not None:
        write_json(folder / "metrics.json", metrics)  # the last of a test's files
    return metrics


def _require_offered(split: Split, rule: Rule) -> None:
    """Refuse before hours of encoding what cannot be computed."""
    shape = (len(split.headline.ids), len(split.gallery))
    if rule.save_scores and not fits(shape, rule.memory_mb):
        raise UserError(
            f"evaluation.save_scores: {shape[0]:,} x {shape[1]:,} scores need more than "
            f"evaluation.memory_mb={rule.memory_mb:g}; raise it or leave save_scores out"
        )
    if split.by_language and (rule.save_scores or rule.normalisation is not None):
        key = "evaluation.save_scores" if rule.save_scores else "evaluation.normalise"
        raise UserError(f"{key}: not offered for queries in several languages at once; leave it out")
    if rule.by_length and split.averaged:
        raise UserError(
            f"--by-length: the captions of an item of {split.collection} are averaged into one query; leave it out"
        )


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation of a split."""

    split: Split
    rule: Rule
    folder: Path | None

    def of_one_language(self, encoded: EncodedQueries) -> dict[str, Any]:
        """Headline metrics and, in a test, the sweep of weights."""
        split, rule = self.split, self.rule
        target_weight, normalisation = self._chosen(split.language)
        at = self._scores(encoded, normalisation)
        scored = at(target_weight)
        ranked = scored.ranked(memory_mb=rule.memory_mb)
        if self.folder is None:
            return ranked.metrics()
        metrics: dict[str, Any] = {"queries": len(encoded.ids), "items": len(split.gallery)}
        if isinstance(split.gallery, TextGallery):
            named = {AMONG_TEXTS[name]: value for name, value in ranked.metrics().items() if name in AMONG_TEXTS}
            metrics = {"task": TEXT_TO_TEXT, "queries": len(encoded.ids), "batch_size": rule.batch_size, **named}
        else:
            metrics |= {"target_weight": target_weight, "batch_size": rule.batch_size}
            metrics |= {"normalisation": self._recorded(normalisation), **ranked.metrics()}
            if split.language in rule.choices:
                plain = self._scores(encoded, None)(rule.target_weight).ranked(memory_mb=rule.memory_mb)
                untuned = {"target_weight": rule.target_weight, "normalisation": self._recorded(None)}
                metrics |= {"tuned": rule.choices[split.language].record(), "untuned": untuned | plain.metrics()}
        if encoded.embeddings.source is not None:
            metrics["sweep"] = [
                {"source_weight": w, **at(1.0 - w).ranked(memory_mb=rule.memory_mb).metrics()} for w in SWEEP
            ]
        if rule.by_length:
            metrics["by_length"] = recalls_by_length(ranked.text_to_visual.best, split.headline.tokens.words)
        if rule.trec is not None:
            write_trec(rule.trec, scored, encoded.ids, split.gallery.ids, rule.memory_mb)
        forget(self.folder)
        if not isinstance(split.gallery, TextGallery):
            if rule.save_scores:
                write_scores(self.folder, scored.forward, encoded, split.visuals.ids, rule.memory_mb)
            write_ranks(self.folder, ranked, scored, encoded.ids, split.visuals.ids, rule.memory_mb)
        return metrics

    def by_language(self, encoded: Mapping[str, EncodedQueries]) -> dict[str, Any]:
        """Metrics of every language and their mean; in a test by both tie rules, with the rank variance."""
        split, rule = self.split, self.rule
        if self.folder is not None:
            forget(self.folder)
        metrics, optimistic, ranks, item_of, untuned = {}, {}, {}, {}, {}
        counts: dict[str, dict[str, Any]] = {}
        for language, own in encoded.items():
            target_weight, normalisation = self._chosen(language)
            scored = self._scores(own, normalisation)(target_weight)
            ranked = scored.ranked(memory_mb=rule.memory_mb)
            metrics[language] = ranked.language_metrics()
            if self.folder is None:
                continue
            counts[language] = {"queries": len(own.ids)}
            if language in rule.choices:
                counts[language] |= {
                    "normalisation": self._recorded(normalisation),
                    "tuned": rule.choices[language].record(),
                }
                plain = self._scores(own, None)(rule.target_weight).ranked(memory_mb=rule.memory_mb)
                untuned[language] = plain.language_metrics()
            if rule.by_length:
                lengths = split.queries[language].tokens.words
                counts[language]["by_length"] = recalls_by_length(ranked.text_to_visual.best, lengths)
            ranks[language], item_of[language] = ranked.text_to_visual.best, own.item_of
            optimistic[language] = scored.ranked("optimistic", rule.memory_mb).language_metrics()
            place = self.folder / language
            place.mkdir(parents=True, exist_ok=True)
            write_ranks(place, ranked, scored, own.ids, split.visuals.ids, rule.memory_mb)
            if rule.trec is not None:
                write_trec(rule.trec / language, scored, own.ids, split.visuals.ids, rule.memory_mb)
        mean = mean_metrics(metrics)
        if self.folder is None:
            return {"mean": mean, "languages": metrics}
        variance, compared = variance_across(ranks, item_of)
        return {
            "items": len(split.gallery),
            "batch_size": rule.batch_size,
            "captions_averaged": split.averaged,
            "languages": {
                language: {**counts[language], **own, "optimistic": optimistic[language]}
                for language, own in metrics.items()
            },
            "mean": {**mean, "optimistic": mean_metrics(optimistic)},
            **({"untuned": {"mean": mean_metrics(untuned), "languages": untuned}} if untuned else {}),
            "rank_variance": variance,
            "rank_variance_items": compared,
        }

    def _chosen(self, language: str) -> tuple[float, Normalisation | None]:
        """w_T and the normalisation of queries in a language."""
        choice = self.rule.choices.get(language)
        if choice is None:
            return self.rule.target_weight, self.rule.normalisation
        return choice.target_weight, choice.normalisation

    def _scores(self, encoded: EncodedQueries, normalisation: Normalisation | None) -> Callable[[float], Scored]:
        """A function of w_T: scores of both directions."""
        rule = self.rule
        kind: ScoreKind = "raw" if isinstance(self.split.gallery, TextGallery) else rule.kind
        bank = normalisation.bank if normalisation else None
        directions = Directions(encoded.embeddings, kind, rule.memory_mb, bank)

        def at(target_weight: float) -> Scored:
            both: tuple[Blocks, Blocks]
            if normalisation is None:
                both = directions.plain(target_weight)
            else:
                both = directions.normalised(target_weight, normalisation.settings)
            return Scored.of(both, encoded.item_of, rule.memory_mb)

        return at

    def _recorded(self, normalisation: Normalisation | None) -> dict[str, Any]:
        if normalisation is None:
            return {"method": "none", "scores": self.rule.kind}
        return normalisation.record(self.rule.kind)
