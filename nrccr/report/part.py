"""A part of a report: a figure, the numbers behind it, and the words that go with both."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

Value = str | int | float | None


@dataclass(frozen=True)
class Part:
    """One section of a report.

    Attributes:
        name: of its files and its anchor: lower-case letters, digits and hyphens.
        title: its heading.
        text: what is drawn and how it was chosen (rule, sample, seed), in sentences.
        alt: what a reader who cannot see the figure has to know: axes and the main finding in numbers.
        figure: the picture; none where the numbers are the part.
        rows: the numbers behind the figure, by column; its CSV. All rows have the same columns.
        shown: whether the page shows the rows as a table too.
        languages: of columns that hold texts: the code of their language, for screen readers.
    """

    name: str
    title: str
    text: str
    alt: str = ""
    figure: Figure | None = None
    rows: Sequence[Mapping[str, Value]] = field(default_factory=list)
    shown: bool = False
    languages: Mapping[str, str] = field(default_factory=dict)

    def csv(self) -> str:
        """The rows with a header line; empty without rows."""
        if not self.rows:
            return ""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()
