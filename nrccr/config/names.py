"""The configurations that come with the package, and how one is found by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from nrccr.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = _PACKAGE / "configs"
CONFIGS = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "configs"  # a checkout has them beside the package
SUFFIX = ".yaml"


def config_names() -> list[str]:
    """The names of all configurations, such as `nrccr/vatex`, in alphabetical order."""
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob(f"*{SUFFIX}"))


def find_config(name: Path) -> Path:
    """The file of a configuration.

    Args:
        name: a file, or the name of a configuration that comes with the package, such as `nrccr/vatex`, with or
            without `.yaml`. A file that exists wins.

    Raises:
        UserError: neither.
    """
    if name.exists() and not name.is_dir():
        return name
    known = config_names()
    wanted = name.as_posix().removesuffix(SUFFIX)
    if wanted in known:
        return CONFIGS / f"{wanted}{SUFFIX}"
    near = get_close_matches(wanted, known)
    folders = ", ".join(sorted({f"{folder}/" for folder, slash, _ in (each.partition("/") for each in known) if slash}))
    hint = f"did you mean {' or '.join(near)}" if near else f"give a YAML file, or a name in {CONFIGS} ({folders})"
    raise UserError(f"{name}: {'is a folder, not' if name.is_dir() else 'no such'} configuration; {hint}")


def complete_config(incomplete: str) -> list[str]:
    """The names that begin so, for the shell's completion."""
    return [name for name in config_names() if name.startswith(incomplete)]
