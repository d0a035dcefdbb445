"""A trained model with its configuration, tokeniser and device.

N captions, videos or images, F frames, D joint-space width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH, ImageBatch, VideoBatch
from nrccr.data.bigfile import select_frames
from nrccr.data.captions import is_blank
from nrccr.data.pixels import Preprocessor, as_shown, load_picture
from nrccr.data.sampling import Indices, ordered_batches
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError, first_line
from nrccr.evaluation.encode import encode_batches, encode_texts
from nrccr.systems.model import Model

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Retriever:
    """A model ready to encode; made by `nrccr.load`.

    Attributes:
        model: its network, tokeniser, cleaning and pre-processing.
        config: what it was trained with.
        device: where it computes.
        checkpoint: the file that its weights come from.
    """

    model: Model
    config: Config
    device: torch.device
    checkpoint: Path

    @property
    def network(self) -> Any:
        """`embed_text(TextBatch)` and `embed_visual(VideoBatch or ImageBatch)` give (N, D) of unit length."""
        return self.model.network

    @property
    def tokenizer(self) -> CaptionTokenizer:
        """Its captions' tokeniser."""
        return self.model.tokenizer

    @property
    def preprocess(self) -> Preprocessor | None:
        """Pre-processing of raw images, if it has an image encoder."""
        return self.model.preprocess

    @property
    def feature_width(self) -> int:
        """Width of the features it was trained on; that of its image encoder's output where it has one."""
        return int(self.network.feature_width)

    @property
    def joint_width(self) -> int:
        """Width D of its vectors: `joint.width`, of a baseline that of the features."""
        return int(getattr(self.network, "joint_width", self.config.joint.width))

    def encode_text(self, texts: Iterable[str], role: Literal["source", "target"] = "target") -> Floats:
        """Captions -> (N, D) float32, unit length.

        Args:
            texts: raw captions, in a list, an array or what else can be iterated over; in the released reading an
                embedding depends a little on the others of its batch.
            role: "source" for English, which is cleaned as translated queries of its collection are: on videos, not on
                images; "target" for target-language text, not cleaned unless that is English (MLCMR). C2KD cleans
                no language, in either role.

        Raises:
            UserError: no captions, one that is no text or has none, or an unknown role.

        Examples:
            >>> import nrccr
            >>> model = nrccr.load("runs/vatex-s0")
            >>> chinese = model.encode_text(["狗在水里跑", "人唱"])
            >>> english = model.encode_text(["A dog runs in the water."], role="source")
            >>> (english @ chinese.T).shape  # cosines
            (1, 2)
        """
        captions = _listed(texts, "encode_text", "captions")
        for index, text in enumerate(captions):
            problem = _problem_of_text(text)
            if problem:
                raise UserError(f"encode_text: caption {index} {problem}")
        table = self.tokens_of(captions, role)
        if table.cut:
            warnings.warn(f"{table.cut} captions were cut to {self.tokenizer.max_tokens} tokens", stacklevel=2)
        return encode_texts(self.network, table, self.config.evaluation.batch_size, self.device).cpu().numpy()

    def tokens_of(self, texts: Sequence[str], role: str) -> TokenTable:
        """Texts as token ids, cleaned as their role asks, see `encode_text`.

        Raises:
            UserError: an unknown role.
        """
        if role not in ("source", "target"):
            raise UserError(f"role={role!r}: give source or target")
        language = ENGLISH if role == "source" else self.config.data.target
        return self.tokenizer.encode(self.model.cleaning.of_queries(list(texts), language))

    def encode_video(self, videos: Iterable[Any]) -> Floats:
        """Videos -> (N, D) float32, unit length.

        Args:
            videos: frame features (F, feature width) of each, as arrays, tensors or lists; longer ones are cut as in
                training.

        Raises:
            UserError: no videos, one without frames, of another width, or with a NaN; a model of images.

        Examples:
            >>> import nrccr, numpy as np
            >>> model = nrccr.load("runs/vatex-s0")
            >>> frames = np.random.default_rng(0).random((8, model.feature_width))  # of eight frames
            >>> videos = model.encode_video([frames, frames[:3]])
            >>> (model.encode_text(["狗在水里跑"]) @ videos.T).shape  # cosines
            (1, 2)
        """
        if self.config.visual.kind != "video":
            raise UserError("encode_video: this model takes images; use encode_image")
        given = _listed(videos, "encode_video", "videos")
        whole = [self._checked(index, video) for index, video in enumerate(given)]
        means = [frames.mean(dim=0) for frames in whole]
        clips = [self._clip(frames) for frames in whole]
        lengths = np.array([len(clip) for clip in clips])

        def embed(chosen: Indices) -> torch.Tensor:
            frames = pad_sequence([clips[index] for index in chosen], batch_first=True)  # (batch, F, width)
            mask = torch.arange(frames.shape[1]) < torch.from_numpy(lengths[chosen])[:, None]
            # (batch, width), for networks that use all frames
            mean = torch.stack([means[index] for index in chosen])
            embedded: torch.Tensor = self.network.embed_visual(VideoBatch(frames, mask, mean).to(self.device))
            return embedded

        batches = ordered_batches(lengths, self.config.evaluation.batch_size, by_length=self.network.independent)
        return encode_batches(batches, len(clips), embed, "videos").cpu().numpy()

    def encode_image(self, images: Iterable[Any]) -> Floats:
        """Images -> (N, D) float32, unit length.

        Args:
            images: vectors (feature width,) of each, as arrays, tensors or lists, or, where the model has an image
                encoder, raw ones: files, pillow images or arrays (H, W, 3) of bytes. Files and pillow images are taken
                as a viewer shows them: turned as their EXIF data says, transparency over white.

        Raises:
            UserError: no images, one that cannot be read, a vector of another width or with a NaN; a model of videos.

        Examples:
            >>> import nrccr, numpy as np
            >>> model = nrccr.load("runs/multi30k-s0")
            >>> vectors = np.random.default_rng(0).random((2, model.feature_width))
            >>> images = model.encode_image(list(vectors))  # with an image encoder: ["picture.jpg", ...]
            >>> (model.encode_text(["ein Hund rennt"]) @ images.T).shape  # cosines
            (1, 2)
        """
        if self.config.visual.kind == "video":
            raise UserError("encode_image: this model takes videos; use encode_video")
        given = _listed(images, "encode_image", "images")

        def embed(chosen: Indices) -> torch.Tensor:
            batch = [self._image(int(index), given[index]) for index in chosen]
            if len({values.shape for values in batch}) > 1:
                raise UserError("encode_image: give vectors or raw images, not both")
            embedded: torch.Tensor = self.network.embed_visual(ImageBatch(torch.stack(batch)).to(self.device))
            return embedded

        batches = ordered_batches(
            np.ones(len(given), dtype=np.int64), self.config.evaluation.batch_size, by_length=False
        )
        return encode_batches(batches, len(given), embed, "images").cpu().numpy()

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        push_to_hub: bool = False,
        repo_id: str | None = None,
        license: str | None = None,
        private: bool = True,
    ) -> None:
        """Write a folder that `nrccr.load` and every command takes like a run folder, with a model card.

        The card has the results of a test that lies beside the weights. Folders of this machine are left out of all
        files but for their names; the same model gives the same bytes.

        Args:
            folder: to write; one that was saved before is replaced, any other must be empty.
            push_to_hub: whether it is then uploaded by huggingface_hub, with the login that it has.
            repo_id: `owner/name` there.
            license: of the weights, such as `cc-by-4.0`; the card says that it is not stated where there is none.
            private: whether a new repository is hidden from others; one that is there stays as it is.

        Raises:
            UserError: the folder holds something else or cannot be written, or the upload is refused.

        Examples:
            >>> import nrccr
            >>> nrccr.load("runs/vatex-s0").save_pretrained("vatex-en-zh")
            >>> nrccr.load("vatex-en-zh").encode_text(["狗在水里跑"]).shape[0]
            1
        """
        from nrccr.systems.hub import publish, require_hub_name
        from nrccr.systems.saving import save

        if not isinstance(folder, str | os.PathLike):
            raise UserError(f"folder is of type {type(folder).__name__}; give a path as text")
        if push_to_hub != (repo_id is not None):
            raise UserError("save_pretrained: give push_to_hub=True and repo_id='owner/name' together, or neither")
        if repo_id is not None:
            require_hub_name(repo_id)
        path = Path(os.path.expanduser(folder))
        save(path, self.config, self.model, self.checkpoint, license, repo_id)
        if repo_id is not None:
            publish(path, repo_id, private=private)

    def _image(self, index: int, image: Any) -> torch.Tensor:
        """Pixels (3, H, W) or a vector (feature width,)."""
        where = f"encode_image: image {index}"
        values = _numbers(image, where) if isinstance(image, np.ndarray | torch.Tensor | list | tuple) else None
        if values is not None and values.shape == (self.feature_width,):
            return _finite(values, where)
        if values is not None and (values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8):
            expected = f"({self.feature_width},)" + (" or (height, width, 3) of bytes" if self.preprocess else "")
            raise UserError(f"{where} is {values.dtype} {values.shape}; it must be {expected}")
        if values is None and not isinstance(image, str | os.PathLike | Image.Image):
            raise UserError(f"{where} is of type {type(image).__name__}; give a vector, a file or an image")
        if self.preprocess is None:
            raise UserError(f"{where} is raw; this model takes vectors ({self.feature_width},)")
        if values is not None:
            shown = Image.fromarray(values)
        elif isinstance(image, Image.Image):
            try:
                shown = as_shown(image)
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(f"{where} cannot be read ({first_line(error)}); give another") from error
        else:
            shown = load_picture(Path(image), "shown")
        return torch.from_numpy(self.preprocess(shown))

    def _checked(self, index: int, video: Any) -> torch.Tensor:
        where = f"encode_video: video {index}"
        frames = _numbers(video, where)
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != self.feature_width:
            raise UserError(f"{where} has shape {frames.shape}; it must be (frames, {self.feature_width})")
        return _finite(frames, where)

    def _clip(self, frames: torch.Tensor) -> torch.Tensor:
        chosen = select_frames(np.arange(len(frames)), self.config.data.max_frames, self.config.switch("frames"))
        return frames[torch.from_numpy(chosen)]


def _listed(values: Iterable[Any], function: str, what: str) -> list[Any]:
    """What a user gives for several things, as a list.

    Raises:
        UserError: a single thing, or none.
    """
    if isinstance(values, str | bytes | os.PathLike | Image.Image):
        raise UserError(
            f"{function}: give a list of {what}, not one {'string' if isinstance(values, str) else 'alone'}"
        )
    try:
        listed = list(values)
    except TypeError as error:
        raise UserError(f"{function}: give a list of {what}, not {type(values).__name__}") from error
    if not listed:
        raise UserError(f"{function}: no {what} given; give at least one")
    return listed


def _problem_of_text(text: Any) -> str | None:
    """What is wrong with a caption, or none."""
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}; give text"
    if is_blank(text):
        return "is empty"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "is no valid Unicode (a lone surrogate); read its file as the encoding that it has"
    return None


def _numbers(values: Any, where: str) -> npt.NDArray[Any]:
    """An array, a tensor or lists as an array of numbers.

    Raises:
        UserError: anything else.
    """
    try:
        # float() first: numpy has no bfloat16.
        array = values.detach().cpu() if isinstance(values, torch.Tensor) else np.asarray(values)
        if isinstance(array, torch.Tensor):
            array = (array.float() if array.is_floating_point() else array).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where} is no array of numbers ({first_line(error)}); give arrays, tensors or lists"
        ) from error
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where} holds values of type {array.dtype}; give numbers")
    return array


def _finite(values: npt.NDArray[Any], where: str) -> torch.Tensor:
    """Numbers as float32.

    Raises:
        UserError: a NaN, an infinity, or a number that float32 does not hold.
    """
    with np.errstate(over="ignore"):
        floats = np.require(values, np.float32, ["C", "W"])
    if not np.isfinite(floats).all():
        raise UserError(f"{where} holds a NaN or an infinity; extract it again")
    return torch.from_numpy(floats)
