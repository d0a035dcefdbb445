"""A network with all that turns captions and images into what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrccr.data.cleaning import Cleaning
from nrccr.data.pixels import Preprocessor
from nrccr.data.tokens import CaptionTokenizer
from nrccr.training.runfolder import RunFolder


@dataclass(frozen=True)
class Model:
    """A network with its tokeniser, cleaning and pre-processing.

    Attributes:
        network: a torch module.
        tokenizer: of captions.
        cleaning: which English is cleaned.
        preprocess: of raw images, if it has an image encoder.
        others: what writes the configurations and files of its encoders besides the backbone into a folder, by the
            names of these folders in a run folder (`FOLDERS` of its settings).
    """

    network: Any
    tokenizer: CaptionTokenizer
    cleaning: Cleaning
    preprocess: Preprocessor | None = None
    others: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)

    def save_encoders(self, run: RunFolder) -> None:
        """Write the encoders' configurations, tokeniser and pre-processing: the folder then needs no `text.model`."""
        self.network.text.backbone.config.save_pretrained(run.backbone)
        self.tokenizer.save(run.backbone)
        for name, save in self.others.items():
            save(run.path / name)
