"""The text side of a model as a module of sentence-transformers (extra `sentence-transformers`).

N texts, L tokens, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

import nrccr
from nrccr.data.batch import PooledTextBatch, TextBatch
from nrccr.errors import UserError
from nrccr.extras import need
from nrccr.systems.retriever import Retriever

InputModule: Any = need("sentence_transformers.base.modules", "sentence-transformers").InputModule
SAVED = "model"  # folder of our files in that of the module


class TextModule(InputModule):  # type: ignore[misc]
    """Texts -> vectors of unit length, as `Retriever.encode_text` gives them.

    In the released reading padding counts: the vectors are then equal where the same texts share a batch.
    sentence-transformers sorts texts by length; in the corrected reading that changes nothing.

    Args:
        retriever: a trained model; its network is this module's, and moves with it. Afterwards take this module's
            `retriever`, which knows where it went, and not the one that was given.
        role: "source" for English texts, "target" for those in the language of the queries; see `encode_text`.

    Examples:
        >>> from sentence_transformers import SentenceTransformer
        >>> import nrccr
        >>> from nrccr.integrations.sentence_transformers import TextModule
        >>> model = SentenceTransformer(modules=[TextModule(nrccr.load("runs/vatex-s0"))])
        >>> model.encode(["狗在水里跑"]).shape[0]
        1
    """

    config_keys = ["role", "max_seq_length"]
    save_in_root = False

    def __init__(self, retriever: Retriever, role: str = "target") -> None:
        super().__init__()
        # A tokeniser of its own: how it cuts is changed here alone.
        own = replace(retriever.model, tokenizer=copy(retriever.tokenizer))
        self.retriever = retriever = replace(retriever, model=own)
        self.network = retriever.network
        self.role = role
        self.tokenizer = retriever.tokenizer.tokenizer
        self.longest = retriever.tokenizer.max_tokens
        retriever.tokens_of([], role)  # refuses an unknown role now

    @property
    def max_seq_length(self) -> int:
        """Tokens of the longest text, special ones included; longer ones are cut."""
        return self.retriever.tokenizer.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, most: int) -> None:
        if type(most) is not int or not 3 <= most <= self.longest:
            raise ValueError(f"max_seq_length={most}: give 3 to {self.longest}, as the model was trained")
        self.retriever.tokenizer.max_tokens = most

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        moved: Self = super()._apply(fn, recurse)
        self.retriever = replace(self.retriever, device=next(self.network.parameters()).device)
        return moved

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.retriever.joint_width

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Texts -> token ids and mask, (N, L) each, cut and cleaned as in training; a prompt comes before each."""
        texts = [f"{prompt or ''}{text}" for text in inputs]
        batch = self.retriever.tokens_of(texts, self.role).batch(range(len(texts)))
        more = {"pool": batch.pool} if isinstance(batch, PooledTextBatch) else {}
        return {"input_ids": batch.tokens, "attention_mask": batch.mask, **more}

    def forward(self, features: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Adds `sentence_embedding` (N, D)."""
        batch = TextBatch(features["input_ids"], features["attention_mask"])
        if "pool" in features:
            batch = PooledTextBatch(batch.tokens, batch.mask, features["pool"])
        return {**features, "sentence_embedding": self.network.embed_text(batch)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the whole model, videos' or images' side too, into a folder."""
        self.retriever.save_pretrained(Path(output_path) / SAVED)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        """Read what `save` wrote, here or on a hub.

        sentence-transformers asks for `trust_remote_code=True` before it lets a class that is not its own read
        anything; this one executes nothing that it reads.

        Raises:
            UserError: damaged files.
        """
        places = ("token", "cache_folder", "revision", "local_files_only")
        known = {name: kwargs[name] for name in places if name in kwargs}
        folder = cls.load_dir_path(model_name_or_path, subfolder, **known)
        settings = cls.load_config(model_name_or_path, subfolder, **known)
        made = cls(nrccr.load(Path(folder) / SAVED), str(settings.get("role", "target")))
        try:
            made.max_seq_length = settings.get("max_seq_length", made.longest)
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from error
        return made
