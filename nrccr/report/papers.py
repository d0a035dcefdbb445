"""The papers' tables: their rows, the configuration file of each, and the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrccr.config.choices import TEXT_TO_TEXT
from nrccr.config.schema import Config, plain
from nrccr.config.yaml import flatten
from nrccr.systems.nrccr.settings import TERMS
from nrccr.systems.settings import config_type

# Direction and metric as in metrics.json, or language and metric of text to visual; ("SumR", "") for the sum.
Column = tuple[str, str]
Figures = Mapping[Column, str]  # as printed

METRICS = ("R@1", "R@5", "R@10", "MedR", "mAP")
MEAN = "mean"  # in place of a language


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: its name in the table.
        config: its configuration, a file in the folder of its model in `configs`.
        settings: what differs from VATEX's row, by key of the configuration; of a loss only whether it is used.
        figures: published figures by who published them; empty where the paper has a curve or nothing.
    """

    label: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figures] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Its configuration, under `configs`."""
        return f"{self.settings.get('model', 'nrccr')}/{self.config}.yaml"


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        title: its caption.
        directions: the two directions of its metrics, by their short names in the head.
        folder: where in a run folder its `metrics.json` lies.
        rows: its rows.
        languages: of a table of C2KD, which has metrics by language; none of the others.
    """

    title: str
    rows: Sequence[TableRow]
    directions: Mapping[str, str] = field(
        default_factory=lambda: {"text_to_visual": "T2V", "visual_to_text": "V2T"},
    )
    folder: str = "test"
    languages: Sequence[str] | None = None

    @property
    def columns(self) -> list[Column]:
        """Metrics of both directions, then SumR where it is defined; of C2KD R@1 of each language, then means."""
        if self.languages is not None:
            return [*((language, "R@1") for language in self.languages), *((MEAN, name) for name in MEANS)]
        both = [(direction, name) for direction in self.directions for name in METRICS]
        return [*both, SUMR] if self.folder == "test" else both


SUMR: Column = ("SumR", "")
MEANS = ("R@1", "R@5", "R@10", "MedR", "geometric_mean")


def _figures(rsum: str, text_to_visual: str = "", visual_to_text: str = "", names: str = " ".join(METRICS)) -> Figures:
    directions = {"text_to_visual": text_to_visual, "visual_to_text": visual_to_text}
    given = {
        (direction, name): value
        for direction, values in directions.items()
        if values
        for name, value in zip(names.split(), values.split(), strict=True)
    }
    return {**given, SUMR: rsum}


def _ablation(rsum: str, text_to_visual: str, visual_to_text: str) -> Mapping[str, Figures]:
    return {"paper": _figures(rsum, text_to_visual, visual_to_text, "R@10 mAP")}


def _without(*terms: str) -> Mapping[str, Any]:
    return {f"loss.{term}": False for term in terms}


def _multi30k(target: str, task: int, kind: str) -> Mapping[str, Any]:
    return {"data.collection": "multi30k", "data.target": target, "data.task": task, "visual.kind": kind}


def _mscoco(target: str) -> Mapping[str, Any]:
    return {"data.collection": "mscoco", "data.target": target, "visual.kind": "clip"}


def _mlcmr(collection: str, scenario: str, target: str, rsum: str, forward: str, backward: str) -> TableRow:
    settings = {"model": "mlcmr", "data.collection": collection, "data.scenario": scenario, "data.target": target}
    language = {"zh": "Chinese", "en": "English"}[target]
    label = f"{'VATEX' if collection == 'vatex' else 'MSR-VTT'}, {scenario}, {language} queries"
    figures = _figures(rsum, forward, backward, "R@1 R@5 R@10")
    return TableRow(label, f"{collection}-{scenario}-{target}", settings, {"published": figures})


def _c2kd(title: str, published: str, collection: str, languages: str) -> PaperTable:
    """C2KD's table of a collection; the paper's figures are not known."""
    rows = [
        ("zero-shot", "zero-shot", "zero_shot", "LaBSE"),
        ("translate-train", "translate-train", "translate_train", "LaBSE"),
        *(
            (f"teacher, {encoder}", f"teacher-{name}", "translate_train", model)
            for encoder, name, model in (
                ("XLM-R", "xlmr", "xlm-roberta-base"),
                ("mBERT", "mbert", "bert-base-multilingual-uncased"),
                ("distiluse", "distil", "distiluse-base-multilingual-cased-v2"),
            )
        ),
        ("C2KD", "student", "distill", "LaBSE"),
    ]
    return PaperTable(
        f"C2KD on {title}, text to video",
        [
            TableRow(
                label,
                f"{published}-{config}",
                {"model": "c2kd", "data.collection": collection, "c2kd.stage": stage, "text.model": model},
            )
            for label, config, stage, model in rows
        ],
        languages=languages.split(),
    )


VATEX_PAPER = _figures("364.7", "30.4 65.0 75.1 3 45.64", "40.6 72.7 80.9 2 32.40")
VATEX_CODE = _figures("366.5", "30.8 64.4 74.6 3 45.78", "43.1 72.3 81.4 2 32.57")
MSRVTTCN = _figures("307.3", "29.6 55.8 67.4 4 41.93", "31.3 56.0 67.2 4 43.00")
CLIP_DE = _figures("450.7", "53.8 81.8 88.3 1 66.60", "53.8 82.7 90.3 1 66.66")
CLIP_FR = _figures("452.9", "54.7 81.7 89.2 1 67.05", "54.9 82.7 89.7 1 67.29")
CLIP_CS = _figures("438.7", "52.6 79.4 87.9 1 65.26", "52.3 78.7 87.8 1 64.68")
RESNET_CS = _figures("303.6", "29.5 56.0 68.1 4 41.89", "27.5 55.1 67.4 4 40.59")

PAPER_TABLES = (
    PaperTable(
        "Video collections",
        [
            TableRow("VATEX", "vatex", figures={"paper": VATEX_PAPER, "published code": VATEX_CODE}),
            TableRow("MSR-VTT-CN", "msrvttcn", {"data.collection": "msrvttcn"}, {"published": MSRVTTCN}),
        ],
    ),
    PaperTable(
        "Ablation on VATEX",
        [
            TableRow("basic", "vatex-basic", _without(*TERMS), _ablation("352.2", "71.7 44.15", "79.1 31.43")),
            TableRow(
                "+ sim",
                "vatex-sim",
                _without("feature", "cycle", "adversary"),
                _ablation("354.6", "72.8 44.52", "79.9 31.10"),
            ),
            TableRow(
                "+ feat",
                "vatex-feat",
                _without("similarity", "cycle", "adversary"),
                _ablation("356.4", "73.8 44.30", "80.4 31.50"),
            ),
            TableRow(
                "+ sim + feat",
                "vatex-sim-feat",
                _without("cycle", "adversary"),
                _ablation("360.2", "74.2 44.85", "80.0 32.74"),
            ),
            TableRow(
                "+ sim + feat + cyc",
                "vatex-sim-feat-cyc",
                _without("adversary"),
                _ablation("361.4", "74.4 45.31", "80.6 31.83"),
            ),
            TableRow("all (NRCCR)", "vatex", {}, _ablation("364.7", "75.1 45.64", "80.9 32.40")),
        ],
    ),
    PaperTable(
        "Other training text on VATEX",
        [
            TableRow("Baidu", "vatex-baidu", {"data.translator": "baidu"}, {"paper": _figures("375.2")}),
            TableRow("noisier, NRCCR", "vatex-noisier", {"data.round_trips": 1}),
            TableRow("noisier, basic", "vatex-noisier-basic", {"data.round_trips": 1, **_without(*TERMS)}),
        ],
    ),
    PaperTable(
        "Multi30K, task 1",
        [
            TableRow("German, ResNet-152", "multi30k-de", _multi30k("de", 1, "vectors"), {"paper": _figures("306.8")}),
            TableRow("French, ResNet-152", "multi30k-fr", _multi30k("fr", 1, "vectors"), {"paper": _figures("306.1")}),
            TableRow(
                "Czech, ResNet-152",
                "multi30k-cs",
                _multi30k("cs", 1, "vectors"),
                {"paper": _figures("301.3"), "published code": RESNET_CS},
            ),
            TableRow("German, CLIP", "multi30k-clip-de", _multi30k("de", 1, "clip"), {"published": CLIP_DE}),
            TableRow("French, CLIP", "multi30k-clip-fr", _multi30k("fr", 1, "clip"), {"published": CLIP_FR}),
            TableRow("Czech, CLIP", "multi30k-clip-cs", _multi30k("cs", 1, "clip"), {"published": CLIP_CS}),
        ],
    ),
    PaperTable(
        "Multi30K, task 2",
        [
            TableRow("German, ResNet-152", "multi30k-de-task2", _multi30k("de", 2, "vectors")),
            TableRow("French, ResNet-152", "multi30k-fr-task2", _multi30k("fr", 2, "vectors")),
            TableRow("Czech, ResNet-152", "multi30k-cs-task2", _multi30k("cs", 2, "vectors")),
            TableRow(
                "German, CLIP", "multi30k-clip-de-task2", _multi30k("de", 2, "clip"), {"published": _figures("480.9")}
            ),
            TableRow(
                "French, CLIP", "multi30k-clip-fr-task2", _multi30k("fr", 2, "clip"), {"published": _figures("482.1")}
            ),
            TableRow(
                "Czech, CLIP", "multi30k-clip-cs-task2", _multi30k("cs", 2, "clip"), {"published": _figures("467.1")}
            ),
        ],
    ),
    PaperTable(
        "MSCOCO",
        [
            TableRow("Chinese, CLIP", "mscoco-zh", _mscoco("zh"), {"published": _figures("512.4")}),
            TableRow("Japanese, CLIP", "mscoco-ja", _mscoco("ja"), {"published": _figures("507.0")}),
        ],
    ),
    PaperTable(
        "MLCMR",
        [
            _mlcmr("vatex", "parallel", "zh", "405.9", "36.9 71.3 80.6", "51.1 79.1 86.7"),
            _mlcmr("vatex", "parallel", "en", "412.3", "39.6 74.4 83.3", "50.1 78.1 86.8"),
            _mlcmr("vatex", "translate", "zh", "383.5", "32.5 66.2 76.7", "48.1 75.5 84.5"),
            _mlcmr("vatex", "translate", "en", "407.9", "37.5 73.7 82.5", "49.4 78.3 86.5"),
            _mlcmr("vatex", "unparallel", "zh", "377.1", "31.6 64.7 76.0", "44.9 75.5 84.5"),
            _mlcmr("vatex", "unparallel", "en", "380.1", "32.8 66.7 77.4", "44.5 74.4 84.3"),
            _mlcmr("msrvtt10kyu", "translate", "zh", "311.5", "28.9 55.5 69.2", "30.4 57.8 69.7"),
            _mlcmr("msrvtt10kyu", "translate", "en", "303.1", "26.9 55.3 67.7", "29.8 55.7 67.7"),
        ],
    ),
    _c2kd("Multi-MSRVTT", "msrvtt", "multi_msrvtt", "en de fr cs zh ru vi sw es"),
    _c2kd("Multi-YouCook2", "youcook2", "multi_youcook2", "en de fr cs zh ru vi es ja"),
    _c2kd("VATEX", "vatex", "multi_vatex", "en zh"),
    _c2kd("RUDDER", "rudder", "multi_rudder", "en hi mr kn"),
    PaperTable(
        "Text to text on VATEX",
        [
            TableRow("basic", "vatex-basic", _without(*TERMS), {"paper": {("target_to_source", "mAP"): "61.84"}}),
            TableRow("NRCCR", "vatex", {}, {"paper": {("target_to_source", "mAP"): "81.28"}}),
        ],
        {"target_to_source": "zh→en", "source_to_target": "en→zh"},
        f"test-{TEXT_TO_TEXT}",
    ),
)

# What identifies a row.
_KEYS = (
    *("model", "data.collection", "data.target", "data.translator", "data.scenario", "data.round_trips", "data.task"),
    *("visual.kind", "c2kd.stage"),
)


def row_of(table: PaperTable, config: Config, collection: str) -> TableRow | None:
    """The row of a run: same data, same losses; sizes and readings are not compared.

    Args:
        table: the table.
        config: the run's.
        collection: our name for its collection.
    """
    values = flatten(plain(config)) | {"data.collection": collection}
    return next((row for row in table.rows if _matches(values, row.settings)), None)


def paper_figures(config: Config, collection: str, folder: str = "test") -> Figures:
    """The first published figures for this data and these losses; empty where there are none."""
    for table in PAPER_TABLES:
        row = row_of(table, config, collection) if table.folder == folder else None
        if row is not None and row.figures:
            return next(iter(row.figures.values()))
    return {}


def _matches(values: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a run's values are those of a row."""
    if _identity(values) != _identity(settings):
        return False
    # C2KD's teachers differ in nothing but their encoder, a hub name or a folder.
    named = settings.get("text.model")
    return named is None or Path(named).name == Path(values["text.model"]).name


def _identity(values: Mapping[str, Any]) -> tuple[Any, ...]:
    usual = flatten(plain(config_type()()))
    losses = (bool(values.get(f"loss.{term}", True)) for term in TERMS)
    return *(values.get(key, usual.get(key)) for key in _KEYS), *losses
