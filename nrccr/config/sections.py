"""The sections of a configuration that more than one system may read, and what each of their keys is.

Sections of one system alone are declared in its own `settings.py`. A section's docstring and the meanings of its keys
are the comments of `configs/base.yaml`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nrccr.config.choices import (
    AdversaryKind,
    AttentionMask,
    AttentionScale,
    EnglishCleaning,
    FeatureKind,
    FrameSampling,
    Freeze,
    LearningRates,
    Method,
    Pixels,
    Pooling,
    PoolMask,
    Precision,
    Scenario,
    ScoreKind,
    SimilarityKind,
    Strength,
    TeacherKind,
    Tracker,
    ValidationEnglish,
    VisualKind,
)
from nrccr.config.keys import FileName, Section, key, switch

A_MODEL = "a folder or a hub name"


class Switches(Section):
    """Where readings differ; null: the reading's value, see docs/deviations.md."""

    own: ClassVar[bool] = True

    pooling: Pooling | None = switch(
        "padded: means run over the batch's padded width | masked: over real tokens and frames",
        released="padded",
        paper="masked",
        corrected="masked",
    )
    attention_mask: AttentionMask | None = switch(
        "outer: a padded query attends to everything | key: padded keys are hidden from all",
        released="outer",
        paper="key",
        corrected="key",
    )
    teacher: TeacherKind | None = switch(
        "cross_and_target: mean over the cross output and the target states | cross: the former alone",
        released="cross_and_target",
        paper="cross",
        corrected="cross_and_target",
    )
    feed_forward: bool | None = switch(
        "false | true: a feed-forward sub-layer after attention", released=False, paper=True, corrected=False
    )
    attention_scale: AttentionScale | None = switch(
        "value_width: scores / sqrt(width / heads) | key_width: / sqrt(512 / heads)",
        released="value_width",
        paper="key_width",
        corrected="value_width",
    )
    similarity: SimilarityKind | None = switch(
        "soft_cross_entropy: items attached in the targets | kl: targets detached",
        released="soft_cross_entropy",
        paper="kl",
        corrected="soft_cross_entropy",
    )
    feature: FeatureKind | None = switch(
        "smooth_l1: beta 4, teacher attached | l1: teacher detached",
        released="smooth_l1",
        paper="l1",
        corrected="smooth_l1",
    )
    adversary: AdversaryKind | None = switch(
        "non_saturating: target side, two logits | minimax: both languages, one logit",
        released="non_saturating",
        paper="minimax",
        corrected="non_saturating",
    )
    score: ScoreKind | None = switch(
        "minmax: each matrix normalised over all its entries before mixing | raw: cosines",
        released="minmax",
        paper="raw",
        corrected="minmax",
    )
    english_cleaning: EnglishCleaning | None = switch(
        "source: back-translations raw | all: all English alike", released="source", paper="all", corrected="source"
    )
    frames: FrameSampling | None = switch(
        "first: the first max_frames | uniform: spread over a longer video",
        released="first",
        paper="uniform",
        corrected="first",
    )
    pixels: Pixels | None = switch(
        "raw images: stored: as in the file, transparency dropped | shown: as viewers show them, turned as EXIF says, "
        "transparency over white",
        released="stored",
        paper="stored",
        corrected="shown",
    )
    pool_mask: PoolMask | None = switch(
        "labse: mean over the positions of LaBSE's tokens | own: over the encoder's own",
        released="labse",
        paper="own",
        corrected="own",
    )


class DataSection(Section):
    """The collection on disk and how it is read."""

    collection: str = key("vatex", "name of the collection; of own data its folder, under the root or as a path")
    task: int = key(
        1,
        "multi30k: 1: one caption an image | 2: five, with training captions of Flickr30k",
        own=True,
        ge=1,
        le=2,
        words="1 or 2",
    )
    source: str = key("en", "language of the training captions that people wrote; own data alone has another", own=True)
    target: str = key("zh", "language of the queries", own=True)
    translator: str = key("google", "whose translations: <collection>train_<translator>_enc2<target>.caption.txt")
    scenario: Scenario = key(
        "parallel",
        "parallel: human captions in both languages | translate: those of the target are translated | "
        "unparallel: each training caption in one language or the other",
        own=True,
    )
    validation_english: ValidationEnglish = key(
        "human", "human: <collection>val | translated: the translations of the other language", own=True
    )
    validate_on_test: bool = key(
        False, "true: choose the epoch on the test split, for exact reproduction of MSR-VTT", own=True
    )
    held_out: int = key(
        0,
        "training videos held out for validation, where the collection has no such split",
        own=True,
        ge=0,
    )
    languages: list[str] = key([], "to train and test in; []: all of the collection (Quartet: data.target)", own=True)
    round_trips: int = key(
        0,
        "further round trips of the training text through English: 1 reads ..._enc2<target>2enc2<target>",
        own=True,
        ge=0,
    )
    feature: FileName | None = key(None, "folder under FeatureData; null: the collection's usual one")
    max_frames: int = key(64, "frames kept of a longer video", gt=0)
    mismatch_tolerance: float = key(0.01, "share of a caption file's lines that may lack a partner", own=True, ge=0)
    workers: int = key(
        0, "processes that prepare batches; the batches are the same with any number", changes="nothing", ge=0
    )


class TextSection(Section):
    """The text branch."""

    model: FileName = key(
        "bert-base-multilingual-cased",
        "hub name or folder of the backbone and its tokeniser",
        min_length=1,
        words=A_MODEL,
    )
    pretrained: bool = key(True, "false: from random weights")
    backbone: dict[str, Any] = key({}, "values of the backbone's configuration to change, with pretrained: false")
    freeze: Freeze = key(
        "frozen", "what trains of the backbone: frozen: trainable_layers | all_frozen: nothing | none: everything"
    )
    trainable_layers: list[int] = key([5, 6, 7, 8, 9, 10, 11], "0-based layers of the backbone")
    width: int = key(768, "of the text branch", own=True, gt=0)
    heads: int = key(8, "of its attention", own=True, gt=0)
    prefix: str | None = key(
        "",
        "words before every caption and query, such as e5's `query: `; null: the encoder's",
        own=True,
        encoder="prefix",
    )
    max_tokens: int = key(250, "longer captions are cut, special tokens included", ge=3)
    cache: FileName | None = key(
        None,
        "folder for what the frozen lower layers give of each caption, computed once, without their dropout; null: "
        "computed in every step; see docs/training.md",
        own=True,
        min_length=1,
        words="a folder",
    )


class VisualSection(Section):
    """The visual branch."""

    kind: VisualKind = key("video", "video: frame features | vectors: ResNet-152 vectors of images | clip: raw images")
    width: int = key(1024, "of the visual branch", own=True, gt=0)
    heads: int = key(8, "of its attention, with kind: video", own=True, gt=0)
    layers: int = key(1, "attention blocks, with kind: video", own=True, gt=0)
    gru: int = key(512, "width of its GRU in each direction", own=True, gt=0)
    maps: int = key(512, "maps of each of its four convolutions", own=True, gt=0)


class ImageSection(Section):
    """Raw images and their encoder, with kind: clip."""

    own: ClassVar[bool] = True

    model: FileName = key(
        "openai/clip-vit-base-patch32",
        "hub name or folder of a CLIP or SigLIP: configuration, weights, pre-processing",
        min_length=1,
        words=A_MODEL,
    )
    pretrained: bool = key(True, "false: random weights, from the model's configuration")
    path: FileName | None = key(
        None,
        "folder of the images, <id>.jpg; null: the collection's usual one under the root",
        changes="digits",
    )
    trainable: bool = key(False, "true: the image encoder trains too, from pixels in every epoch")
    cache: FileName = key(
        "runs/image-features",
        "folder of the frozen encoder's vectors, computed once; see docs/data-format.md",
        changes="nothing",
        min_length=1,
        words="a folder",
    )


class JointSection(Section):
    """The joint space."""

    width: int = key(1536, "of the joint space", gt=0)
    dropout: float = key(0.2, "in both mappings", own=True, ge=0, lt=1)


class LossSection(Section):
    """Weights and constants of the objective; a weight of 0 leaves the term out, and what only it needs."""

    own: ClassVar[bool] = True

    margin: float = key(0.2, "of the triplet loss", ge=0)
    target: float = key(0.6, "triplet loss of the translation", ge=0)
    similarity: float = key(0.4, "similarity-view distillation", ge=0)
    feature: float = key(0.1, "feature-view distillation", ge=0)
    cycle: float = key(0.5, "cycle consistency", ge=0)
    adversary: float = key(0.001, "language adversary", ge=0)
    temperature: float = key(0.07, "of the similarity view", gt=0)
    mask_same_item: bool = key(False, "true: captions of one item are no negatives of each other")


class AdversarySection(Section):
    """The language discriminator."""

    own: ClassVar[bool] = True

    discriminator: Strength = key("strong", "")
    learning_rate: float = key(0.001, "of its own Adam", gt=0)


class TrainSection(Section):
    """Optimisation, schedule and bookkeeping."""

    epochs: int = key(50, "at most", changes="length", gt=0)
    batch_size: int = key(128, "pairs in a step", ge=2, words="2 or more (batch normalisation needs two)")
    micro_batch: int | None = key(
        None,
        "pairs whose activations are held at a time: in two passes, with the loss of the whole batch; null: all",
        gt=0,
    )
    checkpointing: bool = key(
        False,
        "true: layers of encoders that train keep their input alone and are computed again for their gradients",
        changes="digits",
    )
    learning_rate: float = key(1e-4, "of Adam, at the start", gt=0)
    learning_rate_decay: float = key(0.99, "factor after every epoch", gt=0)
    halve_after: int | None = key(
        2,
        "halve it when validation does not improve, more than so many epochs after the last halving; null: never",
        ge=0,
    )
    schedule: LearningRates = key(
        "published",
        "published: as the two keys above say | cosine: times half a cosine, down to 0 at the last step of `epochs`",
        own=True,
    )
    warmup: int = key(0, "steps over which the learning rate rises from 0", own=True, ge=0)
    backbone_learning_rate: float | None = key(
        None, "of the text backbone at the start; null: as everything else", own=True, gt=0
    )
    average: float = key(
        0.0,
        "moving average of the weights, by step, which validation and test take; 0: the weights themselves",
        own=True,
        ge=0,
        lt=1,
    )
    patience: int | None = key(11, "stop after so many epochs without improvement; null: never", changes="length", gt=0)
    grad_clip: float | None = key(2.0, "common norm of all gradients but the discriminator's; null: none", gt=0)
    drop_last: bool = key(False, "true: leave out an epoch's last batch where it is short")
    precision: Precision = key("fp32", "")
    log_every: int = key(10, "steps between log lines", changes="digits", gt=0)
    report_to: list[Tracker] = key(
        ["tensorboard"],
        "trackers that get the numbers of metrics.jsonl too: tensorboard | trackio | wandb | mlflow; [] for none",
        changes="nothing",
    )
    save_minutes: float = key(
        5.0, "minutes between states to resume from, besides one after every epoch", changes="nothing", gt=0
    )


class EvaluationSection(Section):
    """Validation and test."""

    batch_size: int = key(64, "in the released reading a batch's padding changes its embeddings a little", gt=0)
    precision: Precision = key("fp32", "of validation, tests and banks; bf16 encodes faster, to about three digits")
    target_weight: float = key(0.8, "weight of the query itself; its translation has the rest", own=True, ge=0, le=1)
    save_scores: bool = key(False, "true: also write scores.npz", own=True, changes="nothing")
    normalise: Literal["none", Method] = key(
        "none",
        "hubness normalisation of test scores; all but none, dsl and sinkhorn need `nrccr bank`",
        own=True,
        changes="test",
    )
    beta: float = key(20.0, "inverse temperature, all but csls and nnn", own=True, changes="test", gt=0)
    k: int = key(
        1,
        "dis, dual_dis: activated items; csls, nnn: neighbours; sinkhorn: rounds",
        own=True,
        changes="test",
        ge=0,
    )
    alpha: float = key(0.75, "nnn: weight of the bias", own=True, changes="test", gt=0)
    memory_mb: float = key(
        2000.0,
        "memory of a block of scores; larger score matrices are never held whole",
        changes="test",
        ge=16,
    )
