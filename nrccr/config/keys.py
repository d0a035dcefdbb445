"""How a key is declared, once: type, default, range, meaning, who reads it, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypedDict, Union, Unpack, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.fields import FieldInfo

from nrccr.errors import is_unicode

# all: what a step computes. length: how long it trains. test: tests alone. digits: last digits, or what is shown.
# nothing: no number at all.
Changes: TypeAlias = Literal["all", "length", "test", "digits", "nothing"]


def _in_any_bytes(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A name in bytes that are no Unicode, which pydantic would refuse; all else as it checks text."""
    return value if isinstance(value, str) and not is_unicode(value) else check(value)


FileName: TypeAlias = Annotated[str, WrapValidator(_in_any_bytes)]


class Bounds(TypedDict, total=False):
    """The range of a key.

    Attributes:
        gt: above this.
        ge: this or more.
        lt: below this.
        le: this or less.
        min_length: 1 for text that may not be empty.
    """

    gt: float
    ge: float
    lt: float
    le: float
    min_length: int


class Section(BaseModel):
    """A section of the configuration: each field is a key. Its docstring is the section's comment in base.yaml.

    Attributes:
        own: every key of the section is read by those systems alone that name it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    own: ClassVar[bool] = False


@dataclass(frozen=True)
class Key:
    """A declared key.

    Attributes:
        name: with dots, such as `train.epochs`.
        meaning: its comment.
        default: its default.
        changes: which numbers it changes.
        own: only systems that name it read it.
        words: its range in words, for messages; for text that may not be empty, what to give.
        choices: the words it takes, if they are few.
        readings: a switch's value in each reading; none for other keys.
        encoder: what of a text encoder's convention it is where it is null (nrccr.models.encoders); empty: nothing.
        place: whether it names files or folders, perhaps by a name of a hub.
    """

    name: str
    meaning: str
    default: Any
    changes: Changes
    own: bool
    words: str
    choices: tuple[Any, ...]
    readings: dict[str, Any]
    encoder: str
    place: bool


def key(
    default: Any,
    meaning: str,
    *,
    changes: Changes = "all",
    own: bool = False,
    words: str = "",
    encoder: str = "",
    **bounds: Unpack[Bounds],
) -> Any:
    """A field of a section.

    Args:
        default: its value unless it is set.
        meaning: its comment in base.yaml; names of systems are added to it there.
        changes: which numbers it changes, see Changes.
        own: only systems that name it in their `READS` read it.
        words: the range in words; by default made of the bounds. Of text that may not be empty: what to give.
        encoder: null takes this of the text encoder's convention, which `nrccr train` records.
        bounds: its range.
    """
    extra: dict[str, Any] = {"changes": changes, "own": own, "words": words or _in_words(bounds), "encoder": encoder}
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)


def switch(meaning: str, *, released: Any, paper: Any, corrected: Any) -> Any:
    """A key where readings differ: null takes the value of `reading`.

    Args:
        meaning: its comment.
        released: its value in the released reading.
        paper: as the paper reads.
        corrected: where padding never counts.
    """
    readings = {"released": released, "paper": paper, "corrected": corrected}
    return Field(None, description=meaning, json_schema_extra={"changes": "all", "own": False, "readings": readings})


def sections(kind: type[BaseModel]) -> dict[str, type[Section]]:
    """The sections of a configuration, by name."""
    return {name: found for name, info in kind.model_fields.items() if (found := _section(info)) is not None}


def declared(kind: type[BaseModel]) -> dict[str, Key]:
    """Every key of a configuration by its name with dots, in the order of declaration."""
    return {found.name: found for found in _walk(kind, "", own=False)}


def keys_that_change(kind: type[BaseModel], *what: Changes) -> frozenset[str]:
    """Keys that were declared to change one of `what`."""
    return frozenset(found.name for found in declared(kind).values() if found.changes in what)


def _walk(kind: type[BaseModel], prefix: str, *, own: bool) -> Iterator[Key]:
    for name, info in kind.model_fields.items():
        section = _section(info)
        if section is not None:
            yield from _walk(section, f"{prefix}{name}.", own=section.own)
            continue
        extra = info.json_schema_extra
        if not isinstance(extra, dict):
            raise TypeError(f"{prefix}{name}: declare it with nrccr.config.keys.key")
        facts: dict[str, Any] = dict(extra)
        yield Key(
            name=f"{prefix}{name}",
            meaning=info.description or "",
            default=info.get_default(call_default_factory=True, validated_data={}),
            changes=facts["changes"],
            own=own or facts["own"],
            words=facts.get("words", ""),
            choices=tuple(_choices(info.annotation)),
            readings=facts.get("readings", {}),
            encoder=facts.get("encoder", ""),
            place=_names_file(info.annotation, info.metadata),
        )


def _section(info: FieldInfo) -> type[Section] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _names_file(annotation: Any, metadata: Sequence[Any]) -> bool:
    """Whether a type is FileName, or made of it."""
    if any(isinstance(part, WrapValidator) and part.func is _in_any_bytes for part in metadata):
        return True
    return any(_names_file(part, getattr(part, "__metadata__", ())) for part in get_args(annotation))


def _choices(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType, list):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return (False, True) if annotation is bool else ()


def _in_words(bounds: Bounds) -> str:
    gt, ge, lt, le = (bounds.get(name) for name in ("gt", "ge", "lt", "le"))
    if ge is not None and le is not None:
        return f"between {ge} and {le}"
    if ge is not None and lt is not None:
        return f"from {ge} up to, not including, {lt}"
    parts = [f"above {gt}" if gt is not None else "", f"{ge} or more" if ge is not None else ""]
    parts += [f"below {lt}" if lt is not None else "", f"at most {le}" if le is not None else ""]
    return " and ".join(part for part in parts if part)
