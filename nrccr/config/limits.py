"""Rules across keys that hold for every system, and bounds that several systems share."""

from __future__ import annotations

from nrccr.config.keys import declared
from nrccr.config.render import spelled
from nrccr.config.schema import Config, Refuse

TEXT_POSITIONS, FRAME_POSITIONS = 250, 80  # position vectors of NRCCR's attention over tokens and over frames
QUERY_KEY_WIDTH = 512  # of all its heads together, whatever their number and the width


def check_readers(config: Config, refuse: Refuse) -> None:
    """A key that the chosen system does not read must keep its default: nothing is accepted and ignored."""
    for name, found in declared(type(config)).items():
        value = config.value(name)
        if value != found.default and config.model not in config.readers(found):
            refuse(f"{name}={spelled(value)} is not used by model={config.model}; remove it", name)


def check_together(config: Config, refuse: Refuse) -> None:
    """Keys that exclude each other in every system."""
    if config.text.pretrained and config.text.backbone:
        refuse(
            "text.backbone does not go with pretrained weights; set text.pretrained=false",
            "text.backbone",
            "text.pretrained",
        )
    twice = sorted({name for name in config.data.languages if config.data.languages.count(name) > 1})
    if twice:
        refuse(f"data.languages: {', '.join(twice)} is there twice; name each language once", "data.languages")
    train = config.train
    if train.micro_batch is not None and train.micro_batch >= train.batch_size:
        refuse(
            f"train.micro_batch={train.micro_batch} is not below train.batch_size={train.batch_size}; lower it, or "
            "remove it",
            "train.micro_batch",
            "train.batch_size",
        )
    if config.text.cache is not None and config.text.freeze == "none":
        refuse(
            "text.cache keeps what frozen layers give, and with text.freeze=none no layer is frozen; set another "
            "text.freeze, or text.cache=null",
            "text.cache",
            "text.freeze",
        )


def require_padding_free(config: Config, padding_free: bool, instead: str, refuse: Refuse) -> None:
    """A cache of states has none of padding: refuse it where padding counts; `instead` says how it does not."""
    if config.text.cache is not None and not padding_free:
        refuse(f"text.cache keeps no states of padding, which counts in this reading; set {instead}", "text.cache")


def require_at_most(config: Config, key: str, most: int, words: str, refuse: Refuse) -> None:
    """A system's own upper bound of a shared key; `words` is the range in words."""
    value = config.value(key)
    if value > most:
        refuse(f"{key}={value} is out of range; it must be {words}", key)


def require_heads(config: Config, branch: str, refuse: Refuse, inner: int | None = None) -> None:
    """Attention heads must divide the widths that they attend in.

    Args:
        config: the configuration.
        branch: the section that holds `width` and `heads`.
        refuse: see Refuse.
        inner: another width that they must divide.
    """
    width, heads = config.value(f"{branch}.width"), config.value(f"{branch}.heads")
    if width % heads or (inner or 0) % heads:
        beside = f" and {inner}" if inner else ""
        refuse(
            f"{branch}.heads={heads} must divide {branch}.width={width}{beside}", f"{branch}.heads", f"{branch}.width"
        )
