"""Texts of any kind on one line: what a caption file of own data writes in place of line breaks.

A backslash is two, a line feed is backslash n, a carriage return backslash r; other white space at either end is
backslash u with four hexadecimal digits, so that nothing that reads lines removes it.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|(.)|$)")
_NAMED = {"\\": "\\", "n": "\n", "r": "\r"}
_WRITTEN = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def escaped(text: str) -> str:
    """A text on one line, without white space at its ends."""
    inner = text.strip()
    start = len(text) - len(text.lstrip())
    before, after = text[:start], text[start + len(inner) :]
    return _outer(before) + inner.translate(_WRITTEN) + _outer(after)


def unescaped(text: str) -> str:
    """The text that was escaped.

    Raises:
        ValueError: an escape that there is not.
    """
    return _ESCAPE.sub(_meant, text) if "\\" in text else text


def _outer(space: str) -> str:
    return "".join(_WRITTEN.get(ord(letter), f"\\u{ord(letter):04x}") for letter in space)


def _meant(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16)) if found[1] else _NAMED.get(found[2], "")
    if not letter or (found[1] and not letter.isspace()):
        raise ValueError(f"{found[0]!r} is no escape; write a backslash as two")
    return letter
