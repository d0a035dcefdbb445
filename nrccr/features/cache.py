"""A folder that is computed once, by one process or several, and found again by later ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nrccr.errors import PeerLostError, UserError, not_written
from nrccr.features.store import Store
from nrccr.processes import any_says, is_first, wait_for_all


def make_once(
    place: Path,
    fingerprint: Mapping[str, Any],
    *,
    encode: Callable[[Store], None],
    finish: Callable[[Store], None],
    key: str,
) -> None:
    """Make a folder of a cache where there is none; it appears whole or not at all.

    Args:
        place: the folder; its name holds a hash of what it follows from.
        fingerprint: what else may change last digits.
        encode: keeps in the store what nobody has kept; of several processes each its part.
        finish: makes the folder of what all have kept.
        key: of the cache's folder in the configuration, for messages.

    Raises:
        UserError: the folder cannot be written, or what `encode` raises.
    """
    (missing,) = any_says(is_first() and not place.is_dir())
    if not missing:
        return
    try:
        store = Store(place, fingerprint)
        try:
            encode(store)
        except PeerLostError:  # what this process has computed stays good
            raise
        except UserError:
            store.give_up()  # what is mended changes the place
            raise
        wait_for_all()
        if is_first():
            finish(store)
    except OSError as error:
        if not isinstance(error, FileExistsError) or not place.is_dir():  # another run computed the same meanwhile
            raise not_written(place, error, f"give another folder as {key}=FOLDER") from error
    wait_for_all()
