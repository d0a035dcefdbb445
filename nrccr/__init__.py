"""NRCCR: cross-lingual cross-modal retrieval with noise-robust learning.

`nrccr.load(path)` gives a trained model; `nrccr --help` lists the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import ModuleType

    import torch

    from nrccr.systems.retriever import Retriever

__version__ = "1.0.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> ModuleType:
    """`nrccr.evaluation.metrics` and `.normalise` without a further import; torch is loaded only then."""
    if name != "evaluation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    importlib.import_module("nrccr.evaluation.metrics")
    importlib.import_module("nrccr.evaluation.normalise")
    return importlib.import_module("nrccr.evaluation")


def load(
    path: str | os.PathLike[str],
    text_model: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    overrides: Sequence[str] = (),
    revision: str | None = None,
) -> Retriever:
    """Load a trained model: a run folder, a saved one, a published checkpoint file or its folder, or from a hub.

    Args:
        path: what to load. Nothing in it is executed. `owner/name`, where there is no folder `owner` here, is fetched
            from the hub, as huggingface_hub is set up.
        text_model: the backbone's name or folder (configuration and tokeniser), if not the one recorded there.
        device: `cpu`, `cuda` or `cuda:1`, as text or a torch device.
        overrides: `key=value` each, as on the command line, applied after `text_model`: for instance
            `c2kd.labse=FOLDER` for a published checkpoint of C2KD on a machine without network.
        revision: branch, tag or commit of a model on the hub.

    Returns:
        The model in evaluation mode.

    Raises:
        nrccr.errors.UserError: no model there, a damaged or refused file, a backbone that does not fit, an override
            that the configuration does not have.

    Examples:
        >>> import nrccr
        >>> model = nrccr.load("runs/vatex-s0", overrides=["evaluation.batch_size=16"])
        >>> queries = model.encode_text(["狗在水里跑"])
        >>> queries.shape == (1, model.config.joint.width)
        True
    """
    import json
    import os

    from nrccr.errors import UserError
    from nrccr.systems.loading import found, load_retriever

    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r}: give a list of key=value, not one string")
    try:
        overrides = list(overrides)
    except TypeError:
        raise UserError(f"overrides is of type {type(overrides).__name__}; give a list of key=value") from None
    for index, override in enumerate(overrides):
        if not isinstance(override, str):
            raise UserError(f"overrides: entry {index} is of type {type(override).__name__}; give key=value as text")
    for name, value in (("path", path), ("text_model", "" if text_model is None else text_model)):
        if not isinstance(value, str | os.PathLike):
            raise UserError(f"{name} is of type {type(value).__name__}; give a path as text")
    backbone = [f"text.model={json.dumps(os.fspath(text_model))}"] if text_model is not None else []
    return load_retriever(found(os.fspath(path), revision), [*backbone, *overrides], str(device))
