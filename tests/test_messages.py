"""Every message of a user's error says what to do, not only what is wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "nrccr"
# A message names the remedy after a semicolon, asks what may be meant, or says what a value must be.
REMEDIES = ("; ", "? ", "?", " must ", " needs ", " need ", "give ", "write ")


def literal(node: ast.expr) -> str | None:
    """The fixed words of a message, `{}` where a value stands; none for one that is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return "".join(parts)
    return None


def messages(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError" and node.args:
            text = literal(node.args[0])
            if text is not None:
                yield node.lineno, text


def says_what_to_do(text: str) -> bool:
    # What ends in a value is finished by that value: an advice or another error's own message.
    return any(remedy in text for remedy in REMEDIES) or text.rstrip().endswith("{}")


def test_every_message_says_what_to_do() -> None:
    found = {path: list(messages(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))}
    assert sum(map(len, found.values())) > 300
    silent = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path, own in found.items()
        for line, text in own
        if not says_what_to_do(text)
    ]
    assert not silent, "\n".join(silent)


def test_the_check_sees_a_message_without_advice() -> None:
    source = 'raise UserError(f"{path}: broken ({reason})")\nraise UserError(f"{path}: broken; copy it again")\n'
    assert [says_what_to_do(text) for _, text in messages(source)] == [False, True]
