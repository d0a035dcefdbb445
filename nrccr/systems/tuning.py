"""Weight and normalisation of a test, chosen on the validation split before any test query is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nrccr.data.queries import Sample, Split
from nrccr.errors import UserError
from nrccr.evaluation.banks import read_bank, require_apart, sampled_banks
from nrccr.evaluation.choice import Choice
from nrccr.evaluation.directions import Bank
from nrccr.evaluation.encode import encode_split
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.tune import choose_both
from nrccr.systems.base import splits_of
from nrccr.systems.retriever import Retriever

SIZE, SEED = 5000, 0  # captions of a bank that is drawn for the occasion


def choose_on_validation(retriever: Retriever, root: Path, rule: Rule, banks: Path | None) -> list[dict[str, Choice]]:
    """What is best on the validation split: for each folder of a test, by query language.

    The bank holds training queries alone.

    Args:
        retriever: the trained model.
        root: folder of the collections.
        rule: how scores are made, with the configured weight.
        banks: folder of the run's banks; none to draw captions of the training split now.

    Raises:
        UserError: no validation or training split, damaged data, or a bank that holds other than training queries.
    """
    held_out = list(splits_of(retriever, root, "val"))
    if banks is None:
        found = _drawn(retriever, root, rule, held_out)
    else:
        found = [_read(banks / split.folder, retriever, split) for split in held_out]
    return [_chosen(retriever, rule, *both) for both in zip(held_out, found, strict=True)]


def _drawn(retriever: Retriever, root: Path, rule: Rule, held_out: list[Split]) -> list[dict[str, Bank]]:
    """Banks of training captions; empty where these have no translations."""
    if retriever.config.data.scenario == "unparallel":
        return [{}] * len(held_out)
    drawn = splits_of(retriever, root, "train", Sample(SIZE, SEED, at_most=True))
    return [
        sampled_banks(retriever.network, one, other, rule, SEED) for one, other in zip(drawn, held_out, strict=True)
    ]


def _read(folder: Path, retriever: Retriever, held_out: Split) -> dict[str, Bank]:
    bank = read_bank(folder, retriever.checkpoint, retriever.device)
    if bank.transductive or bank.split != "train":
        raise UserError(
            f"{folder}: the bank comes from split {bank.split}{', with --transductive' if bank.transductive else ''}; "
            "--tune takes one of training queries; make it with `nrccr bank --split train`, or name another with --bank"
        )
    require_apart({held_out.language: bank.query_ids}, bank.split, held_out)
    return {held_out.language: bank}


def _chosen(retriever: Retriever, rule: Rule, held_out: Split, banks: Mapping[str, Bank]) -> dict[str, Choice]:
    with rule.encoding():
        encoded = dict(encode_split(retriever.network, held_out, rule.batch_size, rule.device))
    return {
        language: choose_both(queries, rule, banks.get(language), held_out.name)
        for language, queries in encoded.items()
    }
