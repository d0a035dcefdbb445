"""The configuration keys of Quartet: every part is a switch."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from nrccr.config.keys import Section, declared, key
from nrccr.config.limits import FRAME_POSITIONS, QUERY_KEY_WIDTH, TEXT_POSITIONS, require_at_most, require_heads
from nrccr.config.render import spelled
from nrccr.config.schema import Config, Refuse

Ranking: TypeAlias = Literal["contrast", "triplet"]
VideoParts: TypeAlias = Literal["mean", "levels", "transformer", "both"]
TextPooling: TypeAlias = Literal["mean", "first", "attention"]


class QuartetSection(Section):
    """Its parts; a weight of 0 leaves a term out, and what only it needs."""

    ranking: Ranking = key("contrast", "contrast: several positives | triplet: the hardest negative")
    temperature: float = key(0.07, "of the contrast at the start; it is trained", gt=0)
    least_temperature: float = key(0.01, "that it is trained down to", gt=0)
    video: VideoParts = key(
        "levels", "mean: of the frames | levels: that, GRU, convolutions | transformer: attention | both"
    )
    pooling: TextPooling | None = key(
        "mean",
        "of tokens: mean | first: the state of the first | attention: NRCCR's block; null: the encoder's",
        encoder="pooling",
    )
    words: int = key(0, "width of a table of word vectors beside the backbone, which begins near zero; 0: none", ge=0)
    dropped_words: float = key(0.2, "share of the words that training leaves out of these", ge=0, lt=1)
    word_pairs: int = key(0, "width of vectors of two neighbouring words beside these; 0: none", ge=0)
    words_learning_rate: float | None = key(None, "of both tables at the start; null: as everything else", gt=0)
    words_decay: float = key(0.0, "share of it by which a step shrinks these tables", ge=0)
    views: bool = key(False, "true: masked captions and videos enter the contrast beside the whole ones")
    dropped_frames: float = key(
        0.0, "share of a video's frames that training leaves out, drawn anew each epoch", ge=0, lt=1
    )
    languages: float = key(0.5, "contrast of captions with their translations", ge=0)
    guidance: float = key(0.3, "soft targets: each language ranks as the source language does", ge=0)
    guidance_temperature: float = key(0.07, "of the soft targets", gt=0)
    trust: bool = key(True, "true: translations weigh as much as the model's own ranking speaks for them")
    trust_temperature: float = key(0.05, "of the probability of a pair", gt=0)
    trust_momentum: float = key(0.8, "of its moving average over epochs", ge=0, lt=1)
    trust_from: int = key(3, "first epoch in which it weighs", ge=2, words="2 or more: it needs an epoch before")


SECTIONS: dict[str, type[Section]] = {"quartet": QuartetSection}
READS = frozenset(
    {
        *(f"loss.{name}" for name in ("margin", "similarity", "feature", "cycle", "adversary", "temperature")),
        *("adversary", "joint.dropout", "visual.width", "visual.heads", "visual.layers", "visual.gru", "visual.maps"),
        *(
            "text.width",
            "text.heads",
            "text.prefix",
            "text.cache",
            "data.source",
            "data.target",
            "data.task",
            "data.languages",
        ),
        *("data.mismatch_tolerance", "switches.frames", "switches.score", "train.average", "train.warmup"),
        *("train.schedule", "train.backbone_learning_rate"),
        *(f"evaluation.{name}" for name in ("target_weight", "save_scores", "normalise", "beta", "k", "alpha")),
    }
)
# Padding never counts, in any reading.
SWITCHES: dict[str, Any] = {"pooling": "masked", "attention_mask": "key", "score": "raw", "frames": "uniform"}
FOLDERS: dict[str, str] = {}
NOTES = {
    "data.collection": "any that NRCCR reads, of videos or with vectors of images",
    "data.max_frames": "at most 80 with quartet.video: transformer or both",
    "text.max_tokens": "at most 250 with quartet.pooling: attention",
}
LONGEST = 512  # tokens; the backbone's position vectors
OF_TRUST = ("quartet.trust_temperature", "quartet.trust_momentum", "quartet.trust_from")
OF_CONTRAST = ("quartet.temperature", "quartet.least_temperature", "quartet.views", *OF_TRUST)
OF_WORDS = ("quartet.dropped_words", "quartet.word_pairs", "quartet.words_learning_rate", "quartet.words_decay")
OF_GUIDANCE = ("quartet.guidance_temperature",)
OF_FRAMES = ("visual.heads", "visual.layers")


def _without(switch: str, *keys: str) -> tuple[str, ...]:
    """Overrides that leave a part out: its switch, and the keys that only it reads at their defaults."""
    known = {f"quartet.{name}": field.default for name, field in QuartetSection.model_fields.items()}
    return (switch, *(f"{name}={spelled(known[name])}" for name in keys))


VARIANTS: dict[str, tuple[str, ...]] = {
    "quartet": (),
    "no-words": _without("quartet.words=0", *OF_WORDS),
    "views": ("quartet.views=true",),
    "no-languages": ("quartet.languages=0",),
    "no-guidance": _without("quartet.guidance=0", *OF_GUIDANCE),
    "no-trust": _without("quartet.trust=false", *OF_TRUST),
    "triplet": (*_without("quartet.ranking=triplet", *OF_CONTRAST), "quartet.trust=false"),
}


def check(config: Config, refuse: Refuse) -> None:
    """Refuse raw images, sizes that do not fit, and keys of parts that are switched off."""
    own = config.section(QuartetSection)
    attends = own.pooling == "attention"
    most = TEXT_POSITIONS if attends else LONGEST
    require_at_most(config, "text.max_tokens", most, f"between 3 and {most}", refuse)
    if attends:
        require_heads(config, "text", refuse, QUERY_KEY_WIDTH)
    if config.visual.kind == "clip":
        refuse(
            f"visual.kind=clip does not go with model={config.model}; set visual.kind=vectors", "visual.kind", "model"
        )
    if config.visual.kind == "video" and own.video in ("transformer", "both"):
        frames = f"at most {FRAME_POSITIONS}, the number of position vectors"
        require_at_most(config, "data.max_frames", FRAME_POSITIONS, frames, refuse)
        require_heads(config, "visual", refuse, QUERY_KEY_WIDTH)
    if (config.loss.similarity or config.loss.feature) and not attends:
        message = "loss.similarity and loss.feature need the teacher; set quartet.pooling=attention, or both to 0"
        refuse(message, "loss.similarity", "quartet.pooling")
    known = declared(type(config))
    for name, switch in _unread(config, own).items():
        value, usual, off = config.value(name), known[name].default, spelled(config.value(switch))
        if value != usual:
            message = f"{name}={spelled(value)} is not used by {switch}={off}; set it to {spelled(usual)}"
            if name == "loss.temperature":
                message += " (that of the contrast is quartet.temperature)"
            refuse(message, name, switch)
    if own.ranking == "triplet" and own.trust:
        message = "quartet.trust=true is not used by quartet.ranking=triplet; set it to false"
        refuse(message, "quartet.trust", "quartet.ranking")
    if own.least_temperature > own.temperature:
        message = f"quartet.least_temperature={own.least_temperature}: above quartet.temperature; set at most that"
        refuse(message, "quartet.least_temperature", "quartet.temperature")
    if config.data.source in targets(config):
        message = f"data.source={config.data.source} is among the languages of the queries; leave it out there"
        refuse(message, "data.source", "data.languages")


def _unread(config: Config, own: QuartetSection) -> dict[str, str]:
    """The keys that others switch off, and which."""
    parts: list[tuple[bool, str, tuple[str, ...]]] = [
        (own.ranking == "contrast", "quartet.ranking", ("loss.margin",)),
        (not own.trust, "quartet.trust", OF_TRUST),
        (own.ranking == "triplet", "quartet.ranking", OF_CONTRAST),
        (bool(config.data.languages), "data.languages", ("data.target",)),
        (not own.words, "quartet.words", OF_WORDS),
        (not own.guidance, "quartet.guidance", OF_GUIDANCE),
        (own.pooling != "attention", "quartet.pooling", ("text.width", "text.heads")),
        (not config.loss.similarity, "loss.similarity", ("loss.temperature",)),
        (not config.loss.adversary, "loss.adversary", ("adversary.discriminator", "adversary.learning_rate")),
        (config.text.freeze == "all_frozen", "text.freeze", ("train.backbone_learning_rate",)),
    ]
    if config.visual.kind == "video":
        parts += [
            (own.video in ("mean", "transformer"), "quartet.video", ("visual.gru", "visual.maps")),
            (own.video in ("mean", "levels"), "quartet.video", ("visual.width", *OF_FRAMES)),
        ]
    else:
        of_videos = ("quartet.video", "quartet.dropped_frames", "data.max_frames", "switches.frames")
        parts.append((True, "visual.kind", (*of_videos, "visual.gru", "visual.maps", *OF_FRAMES)))
    return {name: switch for off, switch, names in parts if off for name in names}


def targets(config: Config) -> list[str]:
    """The languages of translations and queries: `data.languages`, or `data.target` alone."""
    return list(config.data.languages) or [config.data.target]
