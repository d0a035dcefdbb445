"""Which translations Quartet's own pair weights trust least, and whether those are the wrong ones.

T translations of the training, of all target languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nrccr.config.schema import Config
from nrccr.data.captions import CaptionKey, read_captions
from nrccr.data.collections import GENERATED
from nrccr.data.generated.errors import Known, read_known, spelt
from nrccr.evaluation.detection import detect
from nrccr.report.finished import ReportRun
from nrccr.report.part import Part, Value
from nrccr.systems.quartet.data import locate_all
from nrccr.systems.quartet.trusted import Trusted, read_trusted
from nrccr.training.runfolder import RunFolder

TOP = 12  # of the list
LEAST = 0.05  # the share of all translations whose lost words are told
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Checked:
    """The translations of a run with what is known of them.

    Attributes:
        label: the run's.
        rows: T translations, the least trusted first.
        sources: captions in the source language by item and number, as written.
        source_language: theirs.
        known: (T,) what each should have been; none where that is not known.
    """

    label: str
    rows: Sequence[Trusted]
    sources: dict[CaptionKey, str]
    source_language: str
    known: Sequence[Known | None]

    @property
    def complete(self) -> bool:
        """Whether it is known of every translation what it should have been."""
        return None not in self.known

    @property
    def languages(self) -> list[str]:
        """The target languages, in the order of their codes."""
        return sorted({row.language for row in self.rows})


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """How well trust finds wrong translations where they are known, and each run's list; none for runs without trust.

    Raises:
        UserError: a damaged file of trust or of captions, or no such collection.
    """
    found = [
        own
        for run in runs
        if RunFolder(run.folder).trust.is_file() and (own := _checked(run)) and own.rows
    ]  # fmt: skip
    known = [own for own in found if own.complete]
    lists = [_list_part(number, own) for number, own in enumerate(found, start=1)]
    return [_numbers_part(known), *lists] if known else lists


def _checked(run: ReportRun) -> Checked:
    rows = read_trusted(RunFolder(run.folder).trust)
    source = read_captions(next(iter(locate_all(run.config, run.root).values())).file("train", "source"))
    texts = dict(zip(source.keys, source.texts, strict=True))
    return Checked(run.label, rows, texts, run.config.data.source, known_of(run.config, run.root, rows))


def known_of(config: Config, root: Path, rows: Sequence[Trusted]) -> list[Known | None]:
    """What the translations of a run should have been; of a generated collection alone.

    Raises:
        UserError: no such collection under the root, or damaged data.
    """
    if config.data.collection not in GENERATED.names:
        return [None] * len(rows)
    collections = locate_all(config, root)
    known = {language: read_known(own.file("train", "target")) for language, own in collections.items()}
    return [known.get(row.language, {}).get(row.key) for row in rows]


def lost_of(known: Sequence[Known | None]) -> Floats:
    """Shares (T,) of the clean words that the translations lack, 0..1; NaN where that is not known."""
    return np.array([np.nan if own is None else own.lost() for own in known])


def _numbers_part(found: Sequence[Checked]) -> Part:
    rows: list[dict[str, Value]] = []
    for own in found:
        names = own.languages
        for name in ["all", *names] if len(names) > 1 else names:
            chosen = [at for at, row in enumerate(own.rows) if name in ("all", row.language)]
            rows.append({"run": own.label, "language": name, **_numbers(own, chosen)})
    text = (
        "How well the trust that weighed the translations in training finds the wrong ones, which the collection "
        f"knows: words lost are those of the clean sentence that a translation lacks, of the {LEAST:.0%} that are "
        "trusted least and of all. A translation counts as wrong if it lacks more of them than the median one; the "
        "chance is that of a wrong one and another, drawn from all, to be trusted in this order (area under the ROC "
        "curve, 0.5 is guessing)."
    )
    return Part("trust-numbers", "Trust in wrong translations", text, rows=rows, shown=True)


def _numbers(own: Checked, chosen: Sequence[int]) -> dict[str, Value]:
    """Of some of the translations, by their places, the least trusted first."""
    lost = lost_of([own.known[at] for at in chosen])
    trust = np.array([own.rows[at].trust for at in chosen])
    wrong = lost > np.median(lost)
    least = max(1, round(LEAST * len(chosen)))
    found = detect(-trust, wrong) if wrong.any() else None
    return {
        "translations": len(chosen),
        f"words lost by the least trusted {LEAST:.0%}, %": 100 * float(lost[:least].mean()),
        "words lost by all, %": 100 * float(lost.mean()),
        "wrong %": 100 * float(wrong.mean()),
        "average precision %": None if found is None else 100 * found.average_precision,
        "chance to trust the wrong one less": None if found is None else found.separation,
    }


def _list_part(number: int, own: Checked) -> Part:
    rows: list[dict[str, Value]] = []
    for row, known in zip(own.rows[:TOP], own.known, strict=False):
        shown: dict[str, Value] = {
            "caption": row.caption,
            "source": own.sources.get(row.key),
            "language": row.language,
            "translation": row.translation,
        }
        if own.complete and known is not None:
            shown |= {"clean sentence": spelt(known.clean, row.language), "words lost %": 100 * known.lost()}
        rows.append(shown | {"trust": row.trust})
    text = (
        f"The {len(rows)} of {len(own.rows):,} translations that {own.label} trusts least: trust is the moving average "
        "of the probability that caption and video belong together, 1 before a step has seen them; it weighed the "
        f"translations in training. The median is {np.median([row.trust for row in own.rows]):.3f}. All of them are in "
        "the run's trust.tsv."
    )
    languages = {"source": own.source_language}
    if len(own.languages) == 1:
        languages |= dict.fromkeys(("translation", "clean sentence"), own.languages[0])
    return Part(
        "trust" if number == 1 else f"trust-{number}", f"Least trusted translations: {own.label}", text,
        rows=rows, shown=True,
        languages={column: language for column, language in languages.items() if language and column in rows[0]},
    )  # fmt: skip
