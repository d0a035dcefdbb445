"""What pre-trained text encoders were trained with: the words before every text, and how its states become a vector.

The one table of them. A key that was declared with `encoder=` takes its value from here where it is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nrccr.config.keys import declared
from nrccr.config.schema import Config
from nrccr.data.collections import find_backbone
from nrccr.errors import UserError
from nrccr.files import read_json


@dataclass(frozen=True)
class Convention:
    """How an encoder is meant to be used.

    Attributes:
        prefix: before every caption and query.
        pooling: mean of the states, or the state of the first token.
    """

    prefix: str = ""
    pooling: Literal["mean", "first"] = "mean"


USUAL = Convention()  # also of an encoder that is not known
_E5 = Convention(prefix="query: ")
# By the last part of a hub name, in lower case. Source: the model cards and the pooling files beside the weights.
CONVENTIONS = {
    "bert-base-multilingual-cased": USUAL,
    "bert-base-multilingual-uncased": USUAL,
    "xlm-roberta-base": USUAL,
    "xlm-roberta-large": USUAL,
    "multilingual-e5-small": _E5,
    "multilingual-e5-base": _E5,
    "multilingual-e5-large": _E5,
    "labse": Convention(pooling="first"),
    "distiluse-base-multilingual-cased": USUAL,
    "distiluse-base-multilingual-cased-v1": USUAL,
    "distiluse-base-multilingual-cased-v2": USUAL,
    "paraphrase-multilingual-minilm-l12-v2": USUAL,
    "paraphrase-multilingual-mpnet-base-v2": USUAL,
}


def convention_of(model: str) -> Convention | None:
    """An encoder's entry, none for one that is not in the table.

    It is known by the name of its folder, by that of the hub's cache it lies in, or by the name in its `config.json`;
    sizes and kind would not tell (multilingual-e5-small and paraphrase-multilingual-MiniLM-L12-v2 are alike in both).

    Args:
        model: hub name or folder, as `text.model`.
    """
    names = [Path(model).name, *(part.rpartition("--")[2] for part in Path(model).parts if part.startswith("models--"))]
    if (Path(model) / "config.json").is_file():
        try:
            names.append(Path(str(read_json(Path(model) / "config.json", "").get("_name_or_path", ""))).name)
        except UserError:
            pass  # whoever reads the encoder tells what is wrong with it
    return next((CONVENTIONS[name.lower()] for name in names if name.lower() in CONVENTIONS), None)


def with_encoder(config: Config, root: Path | None = None) -> tuple[Config, str]:
    """The configuration with its null keys that the text encoder decides filled in, and a note about them.

    An encoder from random weights was trained with nothing.

    Args:
        config: of a run.
        root: folder of the collections, under which `text.model` may lie.

    Returns:
        The configuration, and one line for the user where an encoder is not known; else an empty one.
    """
    empty = [key for key in declared(type(config)).values() if key.encoder and config.value(key.name) is None]
    if not empty:
        return config, ""
    model = config.text.model if root is None else find_backbone(root, config.text.model)
    found = convention_of(model) if config.text.pretrained else USUAL
    values: dict[str, dict[str, Any]] = {}
    for key in empty:
        section, _, name = key.name.partition(".")
        values.setdefault(section, {})[name] = getattr(USUAL if found is None else found, key.encoder)
    filled = {section: getattr(config, section).model_copy(update=own) for section, own in values.items()}
    note = ""
    if found is None:
        taken = ", ".join(f"{key.name}={getattr(USUAL, key.encoder)!r}" for key in empty)
        note = f"note: text.model={config.text.model}: no encoder of our table, so {taken}; set them if it needs others"
    return config.model_copy(update=filled), note
