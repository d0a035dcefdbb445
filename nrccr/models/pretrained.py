"""Pre-trained weights of an encoder: all that it needs, or a refusal that names what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from nrccr.data.captions import shortened
from nrccr.errors import UserError, first_line
from nrccr.files import encodable
from nrccr.models.statedicts import WRAPPED
from nrccr.terminal import without_hints


def load_pretrained(
    load: Callable[..., tuple[PreTrainedModel, dict[str, Any]]],
    model: str,
    key: str,
    unused: str = r"(?!)",
    instead: str | None = None,
) -> PreTrainedModel:
    """An encoder with the weights of a hub name or folder.

    Args:
        load: of transformers; takes the model and options, gives the encoder and what loading found.
        model: hub name or folder.
        key: for messages, the section of the configuration, `text` or `image`; or `--model`, of a command line.
        unused: pattern of the names of parameters that nothing reads, which the weights may lack.
        instead: what else to do, for messages; by default to begin with random weights.

    Raises:
        UserError: no weights there, or some that are missing or of another shape.
    """
    option = key.startswith("--")
    said = f"{key} {model}" if option else f"{key}.model={model}"
    advice = instead or f"or {'--random-weights SEED' if option else f'{key}.pretrained=false'} for random ones"
    try:
        # transformers would print a table of every head that the encoder does not have
        with without_hints(), encodable(model) as readable:
            encoder, found = load(
                readable, output_loading_info=True, ignore_mismatched_sizes=True, key_mapping=dict.fromkeys(WRAPPED, "")
            )
    except Exception as error:  # whatever a damaged file can break
        raise UserError(
            f"{said}: no weights there ({first_line(error)}); give a folder with weights, {advice}"
        ) from error
    shapes = sorted(found["mismatched_keys"])
    if shapes:
        name, theirs, ours = shapes[0]
        raise UserError(
            f"{said}: {len(shapes)} tensors of its weights have other shapes than the encoder ({name} is "
            f"{tuple(theirs)}, not {tuple(ours)}); give the sizes of the weights, {advice}"
        )
    missing = sorted(name for name in found["missing_keys"] if not re.match(unused, name))
    if missing:
        raise UserError(
            f"{said}: its weights lack {len(missing)} tensors of the encoder ({shortened(missing)}); "
            f"give weights of this encoder, {advice}"
        )
    return encoder
