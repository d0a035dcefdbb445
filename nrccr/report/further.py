"""What `nrccr test` records beyond one table of metrics: choices on validation, several query languages together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nrccr.errors import UserError
from nrccr.evaluation.outputs import TOGETHER
from nrccr.files import read_json
from nrccr.report.part import Value

Row = dict[str, Value]
Read = TypeVar("Read")
TESTED, TUNED = "test", "test-tuned"
ADVICE = "test the run again"


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Run folders at any depth below some folders, each once; half-written ones and those moved aside are left out."""
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("config.yaml")):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                found.setdefault(path.resolve(), path.parent)
    return list(found.values())


def tuned_rows(run: Path, label: str) -> list[Row]:
    """The test with weight and normalisation chosen on validation, by query language, beside the configured ones.

    Args:
        run: a run folder.
        label: its name.

    Raises:
        UserError: a file that is not of such a test.
    """
    folder = run / TUNED
    paths = [path for path in (folder / "metrics.json", *sorted(folder.glob("*/metrics.json"))) if path.is_file()]
    return [row for path in paths for row in _checked(path, lambda metrics: list(_tuned(metrics, label)))]


def _tuned(metrics: Mapping[str, Any], label: str) -> Iterator[Row]:
    if "languages" in metrics:
        plain = metrics["untuned"]["languages"]
        each = [(language, own, plain[language]) for language, own in metrics["languages"].items()]
    else:
        each = [(metrics.get("queries_in", ""), metrics, metrics["untuned"])]
    for language, own, untuned in each:
        weight, normalisation = own["tuned"]["target_weight"], dict(own["tuned"]["normalisation"]["chosen"])
        method = [str(normalisation.pop("method")), *(f"{key} {value:g}" for key, value in normalisation.items())]
        yield {
            "run": label,
            "queries in": str(language),
            "weight": float(weight["chosen"]),
            "normalisation": ", ".join(method),
            "SumR": float(own["SumR"]),
            "weight not tuned": float(weight["configured"]),
            "SumR not tuned": float(untuned["SumR"]),
        }


def language_rows(run: Path, label: str) -> list[Row]:
    """The tests of a run in several query languages: each, their mean with the rank variance; tuned ones likewise.

    Raises:
        UserError: a file that is not of such a test.
    """
    places = ((run / TESTED, label), (run / TUNED, f"{label}, tuned"))
    return [row for folder, name in places if (folder / TOGETHER).is_file() for row in _several(folder, name)]


def _several(folder: Path, label: str) -> Iterator[Row]:
    together = folder / TOGETHER
    for number, language in enumerate(_checked(together, lambda found: [str(own) for own in found["languages"]])):
        own = folder / ("" if number == 0 else Path(language).name) / "metrics.json"
        yield _checked(own, partial(_by_language, label=label, language=language))
    mean, variance = _checked(together, lambda found: (dict(found["mean"]), found["rank_variance"]))
    yield _checked(together, lambda _: _by_language(mean, label, "mean", variance))


def _by_language(metrics: Mapping[str, Any], label: str, language: str, variance: float | None = None) -> Row:
    recalls = {
        f"{short} R@{k}": float(metrics[direction][f"R@{k}"])
        for short, direction in (("T2V", "text_to_visual"), ("V2T", "visual_to_text"))
        for k in (1, 5, 10)
    }
    several = {"rank variance": None if variance is None else float(variance)}
    return {"run": label, "queries in": language, **recalls, "SumR": float(metrics["SumR"]), **several}


def _checked(path: Path, read: Callable[[Mapping[str, Any]], Read]) -> Read:
    """What a function makes of a file's content.

    Raises:
        UserError: the file is damaged, or lacks something.
    """
    try:
        return read(read_json(path, ADVICE))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what a test writes ({error!r}); {ADVICE}") from error
