"""The model card: what a model was trained on, what it reached, and how it is used, for people and for a hub.

Nothing in it is guessed: what a run did not record is left out, or said to be unknown.
The same run gives the same bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from nrccr.systems.cardtext import TYPES, body
from nrccr.systems.markdown import on_one_line
from nrccr.systems.subject import Subject, Tested


def model_card(subject: Subject) -> str:
    """The card as Markdown with its metadata, read again by huggingface_hub before it is given."""
    metadata = _metadata(subject).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{metadata}\n---\n\n{body(subject)}").content)


def _metadata(subject: Subject) -> ModelCardData:
    config = subject.config
    kind = f"text-to-{subject.items[:-1]}-retrieval"
    text = config.text.model
    on_hub = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text, re.ASCII) and not Path(text).exists()
    results = [result for test in subject.tests for result in _eval_results(subject, test)]
    return ModelCardData(
        language=[code for code in subject.languages if re.fullmatch("[a-z]{2,3}", code)],
        license=None if subject.licence is None else on_one_line(subject.licence),
        library_name="nrccr",
        tags=["cross-lingual", "cross-modal-retrieval", kind, config.model],
        base_model=text if on_hub and config.text.pretrained and "/" in text else None,
        model_name=on_one_line(subject.name),
        eval_results=results or None,
    )


def _eval_results(subject: Subject, test: Tested) -> list[EvalResult]:
    single = subject.items[:-1]
    ways = {"text_to_visual": f"text to {single}", "visual_to_text": f"{single} to text"}
    return [
        EvalResult(
            task_type=f"text-to-{single}-retrieval",
            task_name=f"Cross-lingual retrieval, {way}",
            dataset_type=on_one_line(test.collection),
            dataset_name=on_one_line(f"{test.collection}, queries in {test.language}"),
            dataset_config=on_one_line(f"{test.language}, {way}"),
            dataset_split=on_one_line(test.split),
            metric_type=kind,
            metric_name=name,
            metric_value=round(test.values[direction, name][0], 2),
        )
        for direction, way in ways.items()
        for name, kind in TYPES.items()
    ]
