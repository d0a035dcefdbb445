"""Which translations of its training a model distrusts, and whether those are the wrong ones.

S pairs of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from nrccr.data.generated.errors import Known, spelt
from nrccr.data.sampling import Indices
from nrccr.evaluation.detection import Detection, detect
from nrccr.evaluation.encode import encode_texts
from nrccr.report import trusted
from nrccr.report.charts import run_style
from nrccr.report.finished import ReportRun
from nrccr.report.part import Part, Value
from nrccr.report.translations import Translations, read_translations
from nrccr.systems.retriever import Retriever

SAMPLE, SEED = 3000, 0  # pairs that are ranked
TOP = 12  # of the list
CURVE, FIRST = 100, 10  # points of a curve in its rows, about; of fewer sentences a precision is chance
AT = (0.01, 0.05, 0.2)  # shares of the list whose precision is told
WORSE, MIXED = "the worse translations", "translations among clean sentences"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Doubts:
    """How much a model distrusts its training translations.

    Attributes:
        label: the run's.
        translations: of its training.
        chosen: (S,) positions of the pairs.
        doubt: (S,) 1 - cosine of source and translation, 0..2.
        source_item, target_item: (S,) cosine of the source and of the translation with the item.
        lost: (S,) share of the clean words that the translation lacks, 0..1; none where that is not known of all.
        spelt: doubts of both sentences, spelt alike: the translation's (S,) and the clean one's (S,); none likewise.
    """

    label: str
    translations: Translations
    chosen: Indices
    doubt: Floats
    source_item: Floats
    target_item: Floats
    lost: Floats | None
    spelt: tuple[Floats, Floats] | None

    @property
    def worse(self) -> npt.NDArray[np.bool_] | None:
        """(S,) whether a translation lacks more words than the median one does; none where that tells none apart."""
        if self.lost is None:
            return None
        worse: npt.NDArray[np.bool_] = self.lost > np.median(self.lost)
        return worse if worse.any() else None

    def detections(self) -> dict[str, Detection]:
        """How well the doubt finds what is wrong, by task."""
        found = {}
        if self.worse is not None:
            found[WORSE] = detect(self.doubt, self.worse)
        if self.spelt is not None:
            found[MIXED] = detect(np.concatenate(self.spelt), np.repeat([True, False], len(self.chosen)))
        return found


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Curves of finding the wrong translations where they are known, their numbers, and each run's list.

    Runs whose training weighed its translations (Quartet) have that trust besides: numbers, and lists.

    Raises:
        UserError: no such collection, damaged data, or an embedding that is not finite.
    """
    found: list[Doubts] = []
    without: list[str] = []
    for run in runs:
        translations = read_translations(run.retriever, run.root)
        if translations is None:
            without.append(run.label)
        else:
            found.append(doubts_of(run.label, run.retriever, translations))
    note = f" Trained without translations: {', '.join(without)}." if without else ""
    if not found:
        return [Part("distrust", "Distrusted translations", f"No run has translations to distrust.{note}")]
    known = {own.label: own.detections() for own in found if own.lost is not None}
    made = [_curves_part(found, known, note), _numbers_part(found, known)] if any(known.values()) else []
    lists = [_list_part(number, own, "" if made else note) for number, own in enumerate(found, start=1)]
    return [*made, *lists, *trusted.parts(runs)]


@torch.inference_mode()
def doubts_of(label: str, retriever: Retriever, translations: Translations) -> Doubts:
    """Rank a sample of the training translations.

    Raises:
        UserError: an embedding is not finite.
    """
    chosen = translations.sample(SAMPLE, SEED)
    vectors = translations.embed(retriever, chosen)
    assert vectors.source is not None
    known = [own for at in chosen.tolist() if (own := translations.known[at]) is not None]
    complete = len(known) == len(chosen)

    def doubt_of(texts: Sequence[str]) -> Floats:
        table = retriever.tokenizer.encode(retriever.model.cleaning.of_queries(texts, translations.language))
        targets = encode_texts(retriever.network, table, retriever.config.evaluation.batch_size, retriever.device)
        assert vectors.source is not None
        return 1 - _cosines(vectors.source, targets)

    def spelt_as(sentences: Sequence[Sequence[str]]) -> Floats:
        return doubt_of([spelt(words, translations.language) for words in sentences])

    wrong = complete and any(own.clean != own.noisy for own in known)
    return Doubts(
        label,
        translations,
        chosen,
        doubt=1 - _cosines(vectors.source, vectors.target),
        source_item=_cosines(vectors.source, vectors.visual),
        target_item=_cosines(vectors.target, vectors.visual),
        lost=np.array([own.lost() for own in known]) if complete else None,
        spelt=(spelt_as([own.noisy for own in known]), spelt_as([own.clean for own in known])) if wrong else None,
    )


def _cosines(one: torch.Tensor, other: torch.Tensor) -> Floats:
    """Of rows (S, D) of unit length, (S,)."""
    cosines: Floats = (one.double() * other.double()).sum(dim=1).cpu().numpy()
    return cosines


def thinned(found: Detection) -> npt.NDArray[np.int64]:
    """Positions of about CURVE points of a curve, closer together at its beginning."""
    steps = np.geomspace(min(FIRST, found.first[-1]), found.first[-1], CURVE)
    return np.unique(np.searchsorted(found.first, steps))


def _curves_part(found: Sequence[Doubts], known: Mapping[str, Mapping[str, Detection]], note: str) -> Part:
    rows: list[dict[str, Value]] = [
        {"run": label, "finding": task, "looked at": int(own.first[at]), "recall %": 100 * float(own.recall[at]),
         "precision %": 100 * float(own.precision[at])}
        for label, tasks in known.items()
        for task, own in tasks.items()
        for at in thinned(own).tolist()
    ]  # fmt: skip
    text = (
        f"Training translations, up to {SAMPLE:,} (drawn with seed {SEED}), ranked by the disagreement of source and "
        "translation, 1 - cosine of their vectors, the largest first; the collection knows the clean sentence of each. "
        f"Finding {WORSE}: a translation counts as wrong if it lacks more of the clean sentence's words than the "
        f"median translation does. Finding {MIXED}: every translation and its clean sentence are ranked together, both "
        "spelt alike, and the translation is the wrong one of the two; the model was trained on the translation, and "
        "never saw the clean sentence. The dotted line is the share of wrong ones, "
        f"which a list in any order has as precision; the curves begin at {FIRST} sentences.{note}"
    )
    told = [
        f"{label}, {task}: average precision {100 * own.average_precision:.1f} % against {100 * own.base_rate:.1f} %"
        for label, tasks in known.items()
        for task, own in tasks.items()
    ]
    alt = f"Precision in percent over recall in percent, a line for each run. {'; '.join(told)}."
    return Part("distrust", "Finding wrong translations", text, alt, _draw(found, known), rows)


def _numbers_part(found: Sequence[Doubts], known: Mapping[str, Mapping[str, Detection]]) -> Part:
    rows: list[dict[str, Value]] = [
        {"run": label, "finding": task, "ranked": int(own.first[-1]), "wrong %": 100 * own.base_rate,
         "average precision %": 100 * own.average_precision,
         **{f"precision of the first {share:.0%}, %": 100 * own.at(share) for share in AT},
         "chance to doubt the wrong one more": own.separation,
         "clean sentence preferred %": _preferred(found, label) if task == MIXED else None}
        for label, tasks in known.items()
        for task, own in tasks.items()
    ]  # fmt: skip
    text = (
        "The numbers of the curves. The chance is that of a wrong sentence and another one, drawn from all (area under "
        "the ROC curve, 0.5 is guessing); preferred is how often the clean sentence agrees more with the source than "
        "its own translation does."
    )
    return Part("distrust-numbers", "Finding wrong translations in numbers", text, rows=rows, shown=True)


def _preferred(found: Sequence[Doubts], label: str) -> float:
    own = next(each for each in found if each.label == label)
    assert own.spelt is not None
    return 100 * float((own.spelt[0] > own.spelt[1]).mean())


def _list_part(number: int, own: Doubts, note: str) -> Part:
    translations = own.translations
    order = np.argsort(-own.doubt, kind="stable")[:TOP].tolist()
    rows: list[dict[str, Value]] = []
    for at in order:
        pair = int(own.chosen[at])
        row: dict[str, Value] = {
            "caption": translations.ids[pair],
            "source": translations.sources[pair],
            "translation": translations.targets[pair],
        }
        if own.lost is not None:
            row |= {"clean sentence": _clean(translations.known[pair], translations.language)}
            row |= {"words lost %": 100 * float(own.lost[at])}
        row |= {
            "disagreement": float(own.doubt[at]),
            "source with item": float(own.source_item[at]),
            "translation with item": float(own.target_item[at]),
        }
        rows.append(row)
    text = (
        f"The {len(rows)} of {len(own.chosen):,} training translations whose vector is furthest from that of their "
        f"source in {own.label}: disagreement is 1 - cosine; beside it the cosines of both with the item, which do not "
        f"enter the order. The median disagreement is {np.median(own.doubt):.3f}.{note}"
    )
    languages = {
        "source": translations.source_language,
        "translation": translations.language,
        "clean sentence": translations.language,
    }
    name = "distrusted" if number == 1 else f"distrusted-{number}"
    return Part(
        name, f"Most distrusted translations: {own.label}", text, rows=rows, shown=True,
        languages={column: language for column, language in languages.items() if language and column in rows[0]},
    )  # fmt: skip


def _clean(known: Known | None, language: str) -> str:
    return "" if known is None else spelt(known.clean, language)


def _draw(found: Sequence[Doubts], known: Mapping[str, Mapping[str, Detection]]) -> Figure:
    tasks = [task for task in (WORSE, MIXED) if any(task in own for own in known.values())]
    labels = [own.label for own in found]
    figure = Figure(figsize=(max(5.5, 4.6 * len(tasks)), 4.2), layout="constrained")
    drawn = {}
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks, strict=True):
        for label, own in known.items():
            if task in own:
                curve, at = own[task], thinned(own[task])
                style = run_style(labels.index(label))
                (drawn[label],) = axes.plot(
                    100 * curve.recall[at], 100 * curve.precision[at], markevery=max(1, len(at) // 8), markersize=4,
                    **style,
                )  # fmt: skip
                axes.axhline(100 * curve.base_rate, color="black", linewidth=1, linestyle=":")
        axes.set_title(f"finding {task}", fontsize=10)
        axes.set_xlabel("recall (%)")
        axes.set_ylabel("precision (%)")
        axes.set_ylim(0, 102)
        axes.grid(alpha=0.3)
    figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=min(4, len(drawn)))
    return figure
