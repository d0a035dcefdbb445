"""The typed configuration of a whole run, and what each system declares about it.

`nrccr.config.sections` holds the keys that more than one system may read; those of one system alone are declared in its
own `settings.py`, and `nrccr.systems.settings` combines them and reads files. An undeclared key is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

import yaml
from pydantic import Field

from nrccr.config.choices import Reading
from nrccr.config.keys import Key, Section, declared, key
from nrccr.config.sections import (
    AdversarySection,
    DataSection,
    EvaluationSection,
    ImageSection,
    JointSection,
    LossSection,
    Switches,
    TextSection,
    TrainSection,
    VisualSection,
)

S = TypeVar("S", bound=Section)


class Refuse(Protocol):
    """Refuses a configuration: raises UserError with the place where the last of some keys was set."""

    def __call__(self, message: str, *keys: str) -> NoReturn:
        """Raise the message, one line that names the keys."""


class SystemSettings(Protocol):
    """What a system's `settings.py` holds: the keys that it reads.

    Attributes:
        SECTIONS: its own sections, by name.
        READS: keys and whole sections that it reads besides its own and those that every system reads.
        SWITCHES: values of switches that it has in every reading, where they are not set themselves.
        NOTES: what a shared key means to it in particular, for the comments of base.yaml.
        FOLDERS: folders in a run folder, besides the backbone's, and the keys whose values they replace.
        VARIANTS: what `nrccr noise` compares: overrides by name; none where nothing is compared.
    """

    SECTIONS: Mapping[str, type[Section]]
    READS: frozenset[str]
    SWITCHES: Mapping[str, Any]
    NOTES: Mapping[str, str]
    FOLDERS: Mapping[str, str]
    VARIANTS: Mapping[str, tuple[str, ...]]

    def check(self, config: Config, refuse: Refuse) -> None:
        """Refuse what breaks the system's own rules, in a configuration whose types and ranges are right."""


class Config(Section):
    """A whole run.

    Attributes:
        systems: each system's settings, by its name; empty without the table of systems.
    """

    systems: ClassVar[Mapping[str, SystemSettings]] = {}

    model: str = key("nrccr", "the system; a key that it does not read must keep its default")
    seed: int = key(
        0, "of initial weights, order of pairs and dropout", ge=0, lt=2**63, words="0 or more, and below 2**63"
    )
    reading: Reading = key(
        "released", "sets the switches: released (published numbers) | paper | corrected (padding never counts)"
    )
    switches: Switches = Field(default_factory=Switches)
    data: DataSection = Field(default_factory=DataSection)
    text: TextSection = Field(default_factory=TextSection)
    visual: VisualSection = Field(default_factory=VisualSection)
    image: ImageSection = Field(default_factory=ImageSection)
    joint: JointSection = Field(default_factory=JointSection)
    loss: LossSection = Field(default_factory=LossSection)
    adversary: AdversarySection = Field(default_factory=AdversarySection)
    train: TrainSection = Field(default_factory=TrainSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)

    def value(self, name: str) -> Any:
        """The value of a key by its name with dots, such as `train.epochs`."""
        found: Any = self
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def section(self, kind: type[S]) -> S:
        """The section of this type: typed access to those that only one system has.

        Raises:
            LookupError: the configuration has no such section.
        """
        for value in self.__dict__.values():
            if isinstance(value, kind):
                return value
        raise LookupError(f"no section {kind.__name__} in this configuration")

    @property
    def query_language(self) -> str:
        """Of the queries whose figures come first: of several target languages the first."""
        return next((own for own in self.data.languages if own != self.data.source), self.data.target)

    def switch(self, name: str) -> Any:
        """The value of a switch: its own if set, else the reading's for this model."""
        own = getattr(self.switches, name)
        return self.usual_switches[name] if own is None else own

    @property
    def usual_switches(self) -> dict[str, Any]:
        """What every switch is where it is not set itself."""
        usual = {name: found.readings[self.reading] for name, found in declared(type(self.switches)).items()}
        system = self.systems.get(self.model)
        return usual | dict(system.SWITCHES if system else {})

    @classmethod
    def readers(cls, found: Key) -> tuple[str, ...]:
        """The systems that read a key."""
        section = found.name.partition(".")[0]
        owned = any(section in system.SECTIONS for system in cls.systems.values())
        if not owned and not found.own:
            return tuple(cls.systems)
        return tuple(
            name
            for name, system in cls.systems.items()
            if section in system.SECTIONS or {section, found.name} & system.READS
        )


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain YAML-ready values, in the schema's order."""
    return config.model_dump()


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML text."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def resolved_switches(config: Config) -> dict[str, Any]:
    """Every switch of the model with the value in force."""
    switches = [found for name, found in declared(type(config)).items() if name.startswith("switches.")]
    names = [found.name.partition(".")[2] for found in switches if config.model in config.readers(found)]
    return {name: config.switch(name) for name in names}
