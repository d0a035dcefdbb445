"""A model as an encoder of MTEB, for its retrieval tasks from text to images or videos and back (extra `mteb`).

N inputs, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.errors import UserError
from nrccr.extras import need
from nrccr.files import digest_of
from nrccr.systems.retriever import Retriever

AbsEncoder: Any = need("mteb.models.abs_encoder", "mteb").AbsEncoder
_meta: Any = need("mteb.models.model_meta", "mteb")
VISUAL = {"video": "video", "vectors": "image", "clip": "image"}  # what a task calls the model's items
Features = Callable[[Any], Any]


class Encoder(AbsEncoder):  # type: ignore[misc]
    """Texts, images and videos -> vectors of unit length, as `nrccr.load` gives them; scores are cosines.

    MTEB gives an image as a pillow image and a video as its dataset decodes it. A model with an image encoder takes
    these images; any other takes features, which a task brings in its column `image` (a vector) or `video` (a list of
    vectors, one a frame), or `features` makes of what it brings.

    Args:
        retriever: a trained model.
        role: of the task's texts, see `encode_text`: "source" for English, "target" for the language of the queries.
        features: one image or video as the task has it -> its features; none takes it as it is.

    Examples:
        >>> import mteb, nrccr
        >>> from nrccr.integrations.mteb import Encoder
        >>> encoder = Encoder(nrccr.load("runs/vatex-s0"))
        >>> encoder.mteb_model_meta.modalities
        ['text', 'video']
    """

    def __init__(self, retriever: Retriever, role: str = "target", features: Features | None = None) -> None:
        self.retriever = retriever
        self.model = retriever
        self.role = role
        self.features = features
        retriever.tokens_of([], role)  # refuses an unknown role now
        facts = {
            "name": f"nrccr/{retriever.checkpoint.absolute().parent.name}",
            "revision": digest_of(retriever.checkpoint)[:40],  # results are cached by it
            "embed_dim": retriever.joint_width,
            "max_tokens": retriever.tokenizer.max_tokens,
            "n_parameters": sum(own.numel() for own in retriever.network.parameters()),
            "modalities": ["text", VISUAL[retriever.config.visual.kind]],
            "similarity_fn_name": _meta.ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "use_instructions": False,
        }
        self.mteb_model_meta = _meta.ModelMeta.create_empty(overwrites=facts)

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any
    ) -> npt.NDArray[np.float32]:
        """The inputs of a task -> (N, D), in batches of `evaluation.batch_size`, as in `nrccr test`.

        Args:
            inputs: batches, each with a list of texts, images or videos.
            task_metadata: tells which of them.
            prompt_type: whether they are queries or documents.
            kwargs: split, subset and batch size of MTEB, which change nothing.

        Raises:
            UserError: a task that needs another kind of input, or several at once; inputs that do not fit the model.
        """
        visual = VISUAL[self.retriever.config.visual.kind]
        kinds = list(task_metadata.get_modalities(prompt_type))
        if len(kinds) != 1 or kinds[0] not in ("text", visual):
            raise UserError(
                f"{task_metadata.name}: its inputs are {' with '.join(kinds)}; this model takes text or {visual}"
            )
        size = self.retriever.config.evaluation.batch_size
        given = (one for batch in inputs for one in batch[kinds[0]])
        parts = [self._encoded(kinds[0], chunk) for chunk in _chunks(given, size)]
        return np.concatenate(parts) if parts else np.empty((0, self.retriever.joint_width), np.float32)

    def _encoded(self, kind: str, inputs: list[Any]) -> npt.NDArray[np.float32]:
        if kind == "text":
            return self.retriever.encode_text(inputs, "source" if self.role == "source" else "target")
        taken = inputs if self.features is None else [self.features(one) for one in inputs]
        return self.retriever.encode_video(taken) if kind == "video" else self.retriever.encode_image(taken)


def _chunks(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(values, size)):
        yield chunk
