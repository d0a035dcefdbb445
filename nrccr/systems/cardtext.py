"""The text of a model card, in Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from nrccr.data.batch import ENGLISH
from nrccr.data.collections import GENERATED
from nrccr.data.generated.collection import rate_of
from nrccr.systems.markdown import literal, on_one_line, table, without_folders
from nrccr.systems.subject import RESAMPLES, SEED, Subject, Value
from nrccr.training.runfolder import version_of

TYPES = {"R@1": "recall_at_1", "R@5": "recall_at_5", "R@10": "recall_at_10", "MedR": "median_rank", "mAP": "map"}
EXAMPLES = {
    "zh": "一个男人在跑步",
    "de": "Ein Mann läuft.",
    "fr": "Un homme court.",
    "cs": "Muž běží.",
    "en": "A man runs.",
}
GIVEN = {
    "video": "`videos` are frame features, an array (frames, `model.feature_width`) each, made as those of training",
    "vectors": "`images` are vectors (`model.feature_width`,), made as those of training",
    "clip": "`images` are files, pillow images or arrays of bytes",
}


def body(subject: Subject) -> str:
    """All that follows the metadata."""
    parts = {
        f"# {literal(subject.name)}": _lead(subject),
        "## Use": _use(subject),
        "## Training data": _training(subject),
        "## Results": _results(subject),
        "## Limits": _limits(subject),
        "## Licence": _licence(subject),
        "## How it was made": _making(subject),
    }
    return "\n\n".join(f"{heading}\n\n{text}" for heading, text in parts.items()) + "\n"


def _lead(subject: Subject) -> str:
    config = subject.config
    languages = ", ".join(literal(name) for name in subject.languages)
    return (
        f"Ranks {subject.items} for a query in one of several languages. System {literal(config.model)} of nrccr, "
        f"in the {literal(config.reading)} reading, from {literal(config.data.collection)}. Languages: {languages}."
    )


def _use(subject: Subject) -> str:
    place = json.dumps(on_one_line(subject.place or subject.name), ensure_ascii=False)
    language = next((name for name in subject.languages if name != ENGLISH), ENGLISH)
    query = json.dumps(EXAMPLES.get(language, "..."), ensure_ascii=False)
    encode = "encode_video(videos)" if subject.items == "videos" else "encode_image(images)"
    return (
        "```python\nimport nrccr\n\n"
        f"model = nrccr.load({place})\n"
        f"queries = model.encode_text([{query}])  # (1, D), unit length\n"
        f"ranked = (-queries @ model.{encode}.T).argsort(axis=1)  # the best first\n"
        f"```\n\n{GIVEN[subject.config.visual.kind]}. Nothing in the files is executed."
    )


def _training(subject: Subject) -> str:
    config, record = subject.config, subject.record
    rows = [["collection", literal(config.data.collection)], ["captions by people in", literal(config.data.source)]]
    if subject.translated:
        rate = rate_of(config.data.translator) if config.data.collection in GENERATED.names else None
        rows.append(["translator of the training captions", literal(config.data.translator)])
        rows.append(["wrong words in the translations", "unknown" if rate is None else f"{rate} %, made on purpose"])
    if subject.value("data.scenario") is not None:
        rows.append(["scenario", literal(config.data.scenario)])
    features = record.get("features")
    if isinstance(features, Mapping) and features:
        rows.append(["features", ", ".join(literal(Path(str(name)).parent) for name in sorted(features, key=str))])
    counts = record.get("data")
    for split, own in counts.items() if isinstance(counts, Mapping) else ():
        if isinstance(own, Mapping):
            told = [f"{own[name]:,} {name}" for name in ("captions", "items") if type(own.get(name)) is int]
            rows += [[f"split {literal(split)}", ", ".join(told)]] if told else []
    begun = "pre-trained" if config.text.pretrained else "from random weights"
    changed = [f"{name}={value}" for name, value in config.text.backbone.items()]
    sizes = f", with {literal(', '.join(changed))}" if changed else ""
    rows.append(["text encoder", f"{literal(Path(config.text.model).name)}, {begun}{sizes}"])
    return table(["what", "which"], rows)


def _results(subject: Subject) -> str:
    if not subject.tests:
        return "Not tested, or the results are not beside the weights."
    single = subject.items[:-1]
    rows = []
    for test in subject.tests:
        for direction, way in (("text_to_visual", f"text to {single}"), ("visual_to_text", f"{single} to text")):
            cells = [_cell(test.values[direction, name]) for name in TYPES]
            total = _cell(test.values["both", "SumR"]) if direction == "text_to_visual" else ""
            rows.append([literal(test.language), way, *cells, total])
    first = subject.tests[0]
    sizes = {test.language: f"{test.counts[0]:,} queries in {literal(test.language)}" for test in subject.tests}
    notes = dict.fromkeys(test.note for test in subject.tests if test.note)
    said = "".join(f" Note: {note}." for note in notes)
    return (
        f"{table(['queries in', 'direction', *TYPES, 'SumR'], rows)}\n\n"
        f"Split {literal(first.split)} of {literal(first.collection)}: {', '.join(sizes.values())}, "
        f"{first.counts[1]:,} {subject.items}. Recalls and mAP in percent, MedR a rank, SumR the sum of six recalls. "
        f"In brackets the 95 % interval of a bootstrap over {subject.items} ({RESAMPLES:,} resamples, seed {SEED}); it "
        f"says nothing of other seeds or other data.{said}"
    )


def _cell(value: Value) -> str:
    return f"{value[0]:.1f} [{value[1]:.1f}, {value[2]:.1f}]"


def _limits(subject: Subject) -> str:
    config = subject.config
    tested = ", ".join(dict.fromkeys(literal(test.language) for test in subject.tests))
    lines = [
        f"Measured {f'with queries in {tested}' if tested else 'with no queries'} on no more than the above: what it "
        "does in other languages, domains or lengths of text is not known.",
        "It learns what captions take for granted of people and places; nothing was done against that.",
        f"Captions are cut to {config.text.max_tokens} tokens"
        + (f", videos to {config.data.max_frames} frames." if subject.items == "videos" else "."),
    ]
    if subject.translated:
        lines.append("A machine translated its training captions, with errors that it learns in part.")
    if not config.text.pretrained:
        lines.append("Its text encoder began from random weights: it knows the words of its training captions alone.")
    if config.reading == "released":
        lines.append("As in the published code padding counts: an embedding depends a little on others of its batch.")
    return "\n".join(f"- {line}" for line in lines)


def _licence(subject: Subject) -> str:
    code = "The code of nrccr is under Apache-2.0."
    if subject.licence is not None:
        return f"The weights are under {literal(subject.licence)}, as whoever made this card says. {code}"
    return (
        f"That of the weights is not stated. {code} Data, features, translations and the text encoder have licences of "
        "their own; whoever publishes the weights must look them up."
    )


def _making(subject: Subject) -> str:
    record = subject.record
    rows = [["nrccr", literal(version_of("nrccr")) + " wrote this card"], ["seed", str(subject.config.seed)]]
    commit, device = record.get("commit"), record.get("device")
    rows += [["commit", literal(commit)]] if isinstance(commit, str) else []
    rows += [["device", literal(device)]] if isinstance(device, str) else []
    finished = record.get("finished")
    if isinstance(finished, Mapping):
        told = {"step": "steps", "best_epoch": "best epoch"}
        rows += [[name, str(finished[key])] for key, name in told.items() if type(finished.get(key)) is int]
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        rows.append(["versions", ", ".join(f"{literal(name)} {literal(own)}" for name, own in versions.items())])
    command = record.get("command")
    said = ""
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        words = ["nrccr", *(without_folders(word) for word in command[1:])]
        said = f"```bash\n{on_one_line(shlex.join(words), 2000)}\n```\n\n"
    return f"{said}{table(['what', 'which'], rows)}"
