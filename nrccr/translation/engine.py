"""An external program that translates: a text a line in, a text a line out."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence

from nrccr.errors import UserError

BATCH_SIZE = 500


class Engine:
    """Pipes texts through a program, which is started for every batch; no shell is involved.

    Args:
        command: the program and its arguments, quoted as for a shell.
        option: of the command line that names it, for messages.

    Raises:
        UserError: a command that cannot be taken apart.
    """

    def __init__(self, command: str, option: str = "--engine") -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UserError(f"{option} {command!r}: {error}; quote it as for a shell") from None
        if not self._words:
            raise UserError(f"{option}: an empty command; name a program that reads texts, one a line")
        self._said = f"{option} {command!r}"

    @property
    def fingerprint(self) -> str:
        """A hash of the command; what the program behind it does may change unseen."""
        return hashlib.sha256("\0".join(self._words).encode()).hexdigest()[:16]

    def batches(self, texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        """Positions of the texts, in their order."""
        for start in range(0, len(texts), batch_size):
            yield list(range(start, min(start + batch_size, len(texts))))

    def translate_batch(self, texts: Sequence[str]) -> list[str]:
        """Translations of texts.

        Raises:
            UserError: the program cannot be started, fails, or answers with another number of lines.
        """
        lines = "".join(" ".join(text.split()) + "\n" for text in texts)
        try:
            done = subprocess.run(self._words, input=lines.encode(), capture_output=True, check=False)
        except OSError as error:
            raise UserError(f"{self._said}: cannot be started ({error.strerror}); is it installed?") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2] or "no message"
            raise UserError(f"{self._said}: failed with exit code {done.returncode} ({said}); try it on one line")
        try:
            answer = done.stdout.decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise UserError(f"{self._said}: its answer is not UTF-8; set its locale") from None
        if len(answer) != len(texts):
            raise UserError(
                f"{self._said}: answered {len(texts)} lines with {len(answer)}; it must write one line for each, "
                "an empty one too"
            )
        return [" ".join(line.split()) for line in answer]
