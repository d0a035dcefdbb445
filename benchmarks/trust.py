"""How well Quartet's `trust.tsv` finds bad translations, on the generated collection, where wrong words are known.

    python benchmarks/trust.py RUN --root ROOT [--out benchmarks/results]

A translation is wrong where it differs from what a perfect translator writes; how noisy it is, is the share of the
perfect translator's words that it lacks. At 20 % wrong words most captions have one, so what counts is whether the
least trusted are noisier than others: the mean share of lost words among them beside that of all, how many of the K
least trusted are among the K noisiest (ties at the K-th included) beside what chance gives, and Spearman's correlation
of distrust and noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, record
from scipy.stats import spearmanr

from nrccr.report.trusted import known_of
from nrccr.systems.quartet.trusted import read_trusted
from nrccr.systems.settings import load_config
from nrccr.training.runfolder import RunFolder

COUNTS, SHARES = (50, 100), (0.05, 0.2)


class Translation(NamedTuple):
    """A line of `trust.tsv` and what is known of it: whether it is wrong, and the share of words it lost, 0..1."""

    trust: float
    language: str
    wrong: bool
    lost: float


def read_trust(run: Path, root: Path) -> list[Translation]:
    """Every translation of a run, with what the collection knows of it."""
    config, rows = load_config(run / "config.yaml", alone=True), read_trusted(RunFolder(run).trust)
    known = known_of(config, root, rows)
    if None in known:
        raise SystemExit(f"{root}: does not know of every translation of {run} what it should have been")
    return [
        Translation(row.trust, row.language, own.clean != own.noisy, own.lost())
        for row, own in zip(rows, known, strict=True)
        if own is not None
    ]


def measured(translations: Sequence[Translation]) -> dict[str, Any]:
    """Precision of the least trusted, correlation of distrust and noise."""
    every = sorted(translations, key=lambda one: one.trust)
    trust, lost, wrong = (np.array([getattr(one, name) for one in every]) for name in ("trust", "lost", "wrong"))
    figures: dict[str, Any] = {
        "captions": len(every),
        "wrong": float(wrong.mean()),
        "lost": float(lost.mean()),
        "spearman": float(spearmanr(-trust, lost).statistic),
        "least_trusted": {},
    }
    names = {f"{count}": count for count in COUNTS} | {f"{share:.0%}": round(share * len(every)) for share in SHARES}
    for name, count in names.items():
        if 0 < count <= len(every):
            noisiest = lost >= np.sort(lost)[-count]
            figures["least_trusted"][name] = {
                "captions": count,
                "wrong": float(wrong[:count].mean()),
                "lost": float(lost[:count].mean()),
                "among_the_noisiest": float(noisiest[:count].mean()),
                "by_chance": float(noisiest.mean()),
            }
    return figures


def main() -> None:
    """Measure all languages together and each, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    every = read_trust(arguments.run, arguments.root)
    groups = {"all": every}
    for language in dict.fromkeys(one.language for one in every):
        groups[language] = [one for one in every if one.language == language]
    figures = {name: measured(group) for name, group in groups.items()}
    for name, own in figures.items():
        print(
            f"{name}: {own['captions']:,} translations, {own['wrong']:.1%} wrong, {own['lost']:.1%} of words lost; "
            f"Spearman {own['spearman']:.3f}"
        )
        for which, least in own["least_trusted"].items():
            print(
                f"  {which:>4s} least trusted: {least['wrong']:.1%} wrong, {least['lost']:.1%} of words lost, "
                f"{least['among_the_noisiest']:.1%} among the noisiest (by chance {least['by_chance']:.1%})"
            )
    print(record("trust", figures, arguments.out))


if __name__ == "__main__":
    main()
