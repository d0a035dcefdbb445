"""A trained model and what belongs to it: configuration, tokeniser, device.

N captions, videos or images, F frames, D joint-space width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from nrccr.config.schema import Config, build_config
from nrccr.config.yaml import read_layers
from nrccr.data.batch import ImageBatch, VideoBatch
from nrccr.data.bigfile import select_frames
from nrccr.data.images import Preprocessor, clip_preprocessor, load_picture, load_preprocessor
from nrccr.data.items import Visuals
from nrccr.data.sampling import Indices, ordered_batches
from nrccr.data.tokens import CaptionTokenizer, clean_english, language_tokenizer
from nrccr.distributed import choose_device
from nrccr.errors import UserError
from nrccr.evaluation.encode import encode_batches, encode_texts
from nrccr.models.backbone import configured_backbone
from nrccr.models.image import build_image_encoder, image_config
from nrccr.models.statedicts import backbone_for
from nrccr.safeload.unpickle import load_checkpoint, load_weights
from nrccr.systems.build import Network, build_network
from nrccr.systems.c2kd.published import CHECKPOINT_NAME as C2KD_NAME
from nrccr.systems.c2kd.published import is_c2kd, published_config, published_network
from nrccr.systems.mlcmr.published import is_mlcmr, read_mlcmr
from nrccr.systems.nrccr.data import Reader
from nrccr.systems.nrccr.published import CHECKPOINT_NAME, read_published

WEIGHTS_NAME = "model.safetensors"
CHECKPOINT_NAMES = (CHECKPOINT_NAME, C2KD_NAME)
Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Retriever:
    """A model ready to encode; made by `nrccr.load`.

    Attributes:
        network: `embed_text(TextBatch)` and `embed_visual(VideoBatch or ImageBatch)` give (N, D) of unit length.
        config: what it was trained with.
        tokenizer: its captions' tokeniser.
        device: where it computes.
        checkpoint: the file that its weights come from.
        preprocess: of raw images, where it has an encoder for those.
    """

    network: Network
    config: Config
    tokenizer: CaptionTokenizer
    device: torch.device
    checkpoint: Path
    preprocess: Preprocessor | None = None

    @property
    def feature_width(self) -> int:
        """Width of the features it was trained on; that of its image encoder's output where it has one."""
        return self.network.feature_width

    def reader(self, root: Path) -> Reader:
        """The reader of NRCCR's collection.

        Raises:
            UserError: a model of another system, no such collection under `root`, or damaged features.
        """
        if self.config.model != "nrccr":
            raise UserError(f"{self.checkpoint}: a model of {self.config.model}; this works with NRCCR's only")
        return Reader.open(self.config, root, self.tokenizer, self.preprocess)

    def require_fitting(self, videos: Visuals) -> None:
        """Make sure that a split's items have features as wide as those it was trained on.

        Raises:
            UserError: they have not.
        """
        if videos.width not in (None, self.feature_width):
            raise UserError(
                f"{videos.place}: features are {videos.width} wide, {self.checkpoint} was trained "
                f"on {self.feature_width}; give the features it was trained on as data.feature=NAME"
            )

    def encode_text(self, texts: Sequence[str], role: Literal["source", "target"] = "target") -> Embeddings:
        """Captions -> (N, D) float32, unit length.

        Args:
            texts: raw captions; in the released reading an embedding depends a little on the others of its batch.
            role: "source" for English, which is cleaned as translated queries of its collection are: on videos, not on
                images; "target" for target-language text, taken as it is, unless that is English (MLCMR). C2KD takes
                every language as it is, in either role.

        Raises:
            UserError: no captions, one without text, or an unknown role.

        Example:
            >>> import nrccr
            >>> model = nrccr.load("runs/vatex-s0")
            >>> chinese = model.encode_text(["狗在水里跑", "人唱"])
            >>> english = model.encode_text(["A dog runs in the water."], role="source")
            >>> (english @ chinese.T).shape  # cosines
            (1, 2)
        """
        if isinstance(texts, str):
            raise UserError("encode_text: give a list of captions, not one string")
        if role not in ("source", "target"):
            raise UserError(f"role={role!r}: give source or target")
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if not texts or empty:
            raise UserError(f"encode_text: {f'caption {empty[0]} is empty' if empty else 'no captions given'}")
        cleans = self.config.data.target == "en" if role == "target" else self.config.cleans_queries
        cleaned = [clean_english(text) for text in texts] if cleans else list(texts)
        table = self.tokenizer.encode(cleaned)
        if table.cut:
            warnings.warn(f"{table.cut} captions were cut to {self.tokenizer.max_tokens} tokens", stacklevel=2)
        return encode_texts(self.network, table, self.config.evaluation.batch_size, self.device).cpu().numpy()

    def encode_video(self, videos: Sequence[npt.NDArray[Any]]) -> Embeddings:
        """Videos -> (N, D) float32, unit length.

        Args:
            videos: frame features (F, feature width) of each; longer ones are cut as in training.

        Raises:
            UserError: no videos, one without frames, of another width, or with a NaN; a model of images.

        Example:
            >>> import nrccr, numpy as np
            >>> model = nrccr.load("runs/vatex-s0")
            >>> frames = np.random.default_rng(0).random((8, model.feature_width))  # of eight frames
            >>> videos = model.encode_video([frames, frames[:3]])
            >>> (model.encode_text(["狗在水里跑"]) @ videos.T).shape  # cosines
            (1, 2)
        """
        if self.config.visual.kind != "video":
            raise UserError("encode_video: this model takes images; use encode_image")
        whole = [self._checked(index, np.asarray(video, dtype=np.float32)) for index, video in enumerate(videos)]
        if not whole:
            raise UserError("encode_video: no videos given")
        means = [frames.mean(dim=0) for frames in whole]
        clips = [self._clip(frames) for frames in whole]
        lengths = np.array([len(clip) for clip in clips])

        def embed(chosen: Indices) -> torch.Tensor:
            frames = pad_sequence([clips[index] for index in chosen], batch_first=True)  # (batch, F, width)
            mask = torch.arange(frames.shape[1]) < torch.from_numpy(lengths[chosen])[:, None]
            mean = None
            if self.config.model == "mlcmr":  # whose first level is the mean of all frames
                mean = torch.stack([means[index] for index in chosen])  # (batch, width)
            return self.network.embed_visual(VideoBatch(frames, mask, mean).to(self.device))

        batches = ordered_batches(lengths, self.config.evaluation.batch_size, by_length=self.network.independent)
        return encode_batches(batches, len(clips), embed, "videos").cpu().numpy()

    def encode_image(self, images: Sequence[str | os.PathLike[str] | Image.Image | npt.NDArray[Any]]) -> Embeddings:
        """Images -> (N, D) float32, unit length.

        Args:
            images: vectors (feature width,) of each or, where the model has an image encoder, raw ones: files, pillow
                images or arrays (H, W, 3) of bytes.

        Raises:
            UserError: no images, one that cannot be read, a vector of another width or with a NaN; a model of videos.

        Example:
            >>> import nrccr, numpy as np
            >>> model = nrccr.load("runs/multi30k-s0")
            >>> vectors = np.random.default_rng(0).random((2, model.feature_width))
            >>> images = model.encode_image(list(vectors))  # with an image encoder: ["picture.jpg", ...]
            >>> (model.encode_text(["ein Hund rennt"]) @ images.T).shape  # cosines
            (1, 2)
        """
        if self.config.visual.kind == "video":
            raise UserError("encode_image: this model takes videos; use encode_video")
        if not len(images):
            raise UserError("encode_image: no images given")

        def embed(chosen: Indices) -> torch.Tensor:
            batch = [self._image(int(index), images[index]) for index in chosen]
            if len({values.shape for values in batch}) > 1:
                raise UserError("encode_image: give vectors or raw images, not both")
            return self.network.embed_visual(ImageBatch(torch.stack(batch)).to(self.device))

        batches = ordered_batches(
            np.ones(len(images), dtype=np.int64), self.config.evaluation.batch_size, by_length=False
        )
        return encode_batches(batches, len(images), embed, "images").cpu().numpy()

    def _image(self, index: int, image: Any) -> torch.Tensor:
        """Pixels (3, H, W) or a vector (feature width,)."""
        values = image if isinstance(image, np.ndarray) else None
        if values is not None and values.shape == (self.feature_width,):
            vector = values.astype(np.float32)
            if not np.isfinite(vector).all():
                raise UserError(f"encode_image: image {index} holds a NaN or an infinity")
            return torch.from_numpy(vector)
        if values is not None and (values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8):
            wanted = f"({self.feature_width},)" + (" or (height, width, 3) of bytes" if self.preprocess else "")
            raise UserError(f"encode_image: image {index} is {values.dtype} {values.shape}; it must be {wanted}")
        if self.preprocess is None:
            raise UserError(f"encode_image: image {index} is raw; this model takes vectors ({self.feature_width},)")
        raw = Image.fromarray(values) if values is not None else image
        return torch.from_numpy(self.preprocess(raw if isinstance(raw, Image.Image) else load_picture(Path(raw))))

    def _checked(self, index: int, frames: npt.NDArray[np.float32]) -> torch.Tensor:
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != self.feature_width:
            raise UserError(
                f"encode_video: video {index} has shape {frames.shape}; it must be (frames, {self.feature_width})"
            )
        if not np.isfinite(frames).all():
            raise UserError(f"encode_video: video {index} holds a NaN or an infinity")
        return torch.from_numpy(frames)

    def _clip(self, frames: torch.Tensor) -> torch.Tensor:
        kept = select_frames(np.arange(len(frames)), self.config.data.max_frames, self.config.switch("frames"))
        return frames[torch.from_numpy(kept)]


def load_retriever(path: Path, overrides: Sequence[str], device: str | None) -> Retriever:
    """Load a run folder, a published checkpoint, or the folder of one.

    Args:
        path: what to load.
        overrides: `key=value`, over the configuration found there.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: no model there, a damaged or refused file, a backbone that does not fit.
    """
    chosen = choose_device(device)
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint")
    run = run_of(path)
    if run is not None:
        return _load_run(run, overrides, chosen)
    if path.is_file() and path.name != WEIGHTS_NAME:
        return _load_published(path, overrides, chosen)
    folder = path.parent if path.is_file() else path
    for name in CHECKPOINT_NAMES:
        if (folder / name).is_file():
            return _load_published(folder / name, overrides, chosen)
    names = " or ".join(CHECKPOINT_NAMES)
    raise UserError(f"{path}: neither a run folder (config.yaml) nor the folder of a published {names}")


def run_of(path: Path) -> Path | None:
    """The run folder that a path names, by itself or by its weights; none for a published checkpoint."""
    folder = path.parent if path.name == WEIGHTS_NAME else path
    return folder if (folder / "config.yaml").is_file() else None


def _load_run(folder: Path, overrides: Sequence[str], device: torch.device) -> Retriever:
    layers = read_layers(folder / "config.yaml")
    if (folder / "backbone").is_dir():  # the run's own copy; text.model may be a path of another machine
        layers.append((str(folder), {"text": {"model": str(folder / "backbone")}}))
    if (folder / "image_encoder").is_dir():
        layers.append((str(folder), {"image": {"model": str(folder / "image_encoder")}}))
    if (folder / "labse").is_dir():
        layers.append((str(folder), {"c2kd": {"labse": str(folder / "labse")}}))
    config = build_config(layers, overrides)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise UserError(f"{folder}: no {WEIGHTS_NAME} yet, the run has not finished an epoch; resume or restart it")
    state = load_weights(weights)
    backbone = configured_backbone(config, config.text.model, trained=True)
    encoder = None
    if config.visual.kind == "clip":
        encoder = build_image_encoder(image_config(config.image.model), None)
    network = build_network(config, backbone, _feature_width(config, state), encoder)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights}: does not fit its configuration or text.model ({reason})") from error
    preprocess = load_preprocessor(config.image.model) if encoder is not None else None
    return _ready(network, config, device, weights, preprocess)


def _feature_width(config: Config, state: Mapping[str, torch.Tensor]) -> int:
    """How wide the features were that weights were trained on."""
    seen_by = {"mlcmr": "visual.gru.weight_ih_l0", "c2kd": "video.embed.linear.weight"}.get(config.model)
    if seen_by is None:
        seen_by = "visual.project.linear.weight" if config.visual.kind == "video" else "visual.linear.weight"
    return state.get(seen_by, torch.empty(1, 1)).shape[-1]


def _load_published(path: Path, overrides: Sequence[str], device: torch.device) -> Retriever:
    checkpoint = load_checkpoint(path)
    if is_mlcmr(checkpoint):
        trained = read_mlcmr(path, checkpoint)
        config = trained.config(overrides)
        backbone = backbone_for(trained.text, config.text.model, path)
        return _ready(trained.network(backbone, config.switch("pooling")), config, device, path, None)
    if is_c2kd(checkpoint):
        config = published_config(path, checkpoint, overrides)
        mask = config.switch("pool_mask")
        return _ready(published_network(path, checkpoint, config.text.model, mask), config, device, path, None)
    published = read_published(path, checkpoint, list(overrides))
    preprocess = clip_preprocessor(published.image_size) if published.image_size else None
    return _ready(published.network(), published.config, device, path, preprocess)


def _ready(
    network: Network, config: Config, device: torch.device, checkpoint: Path, preprocess: Preprocessor | None
) -> Retriever:
    if config.model == "c2kd":
        tokenizer = language_tokenizer(config, config.c2kd.query_tokens)
    else:
        tokenizer = CaptionTokenizer(config.text.model, config.text.max_tokens)
    return Retriever(network.to(device).eval(), config, tokenizer, device, checkpoint, preprocess)
