"""The papers' tables with our results, as text for the terminal, Markdown, LaTeX and docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from nrccr.config.names import CONFIGS
from nrccr.errors import UserError
from nrccr.files import write_text
from nrccr.report.further import Row, language_rows, run_folders, tuned_rows
from nrccr.report.papers import MEAN, METRICS, PAPER_TABLES, SUMR, Column, PaperTable, TableRow, row_of
from nrccr.report.runs import SeedGroup, by_seed, find_runs, is_other_model
from nrccr.report.seeds import in_words
from nrccr.systems.settings import load_config

BEGIN = "<!-- tables written by `nrccr table --docs`; begin -->"
END = "<!-- tables written by `nrccr table --docs`; end -->"
CONFIG = "config"  # head of the column that names a row's configuration
# For the columns of runs outside the papers' tables.
RETRIEVAL, TEXTS, BY_LANGUAGE = PAPER_TABLES[0], PAPER_TABLES[-1], PaperTable("", [], languages=())
_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class TextTable:
    """A table of text: the head and the lines have the same number of cells, the first two are words."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


def make_tables(folders: Sequence[Path]) -> tuple[list[TextTable], list[TextTable]]:
    """The papers' tables with the finished runs below some folders, and tables of the runs that belong to none.

    A run belongs to the row with its data and losses, if model, backbone and reading are those of the row's
    configuration; what else differs is named in its line.

    Raises:
        UserError: a folder or a file that cannot be read, two runs of the same configuration and seed, or a row's
            configuration is missing.
    """
    groups = {_kind(like): by_seed(find_runs(folders, like)) for like in (RETRIEVAL, TEXTS, BY_LANGUAGE)}
    taken: set[int] = set()
    papers = [_paper_table(table, groups[_kind(table)], taken) for table in PAPER_TABLES]
    titles = {"Other runs": RETRIEVAL, "Other runs of C2KD, text to visual": BY_LANGUAGE}
    others = [
        _other_table(title, like, [group for group in groups[_kind(like)] if id(group) not in taken])
        for title, like in (titles | {"Other runs, text to text": TEXTS}).items()
    ]
    others += [
        _further_table(title, [row for run in run_folders(folders) for row in read(run, run.absolute().name)])
        for title, read in (("Several query languages", language_rows), ("Tuned on validation", tuned_rows))
    ]
    return papers, [table for table in others if table.lines]


def _further_table(title: str, rows: Sequence[Row]) -> TextTable:
    """Rows of single runs, each with the same columns."""
    lines = [
        ["" if value is None else value if isinstance(value, str) else f"{value:.{2 if 'weight' in name else 1}f}"
         for name, value in row.items()]
        for row in rows
    ]  # fmt: skip
    return TextTable(title, list(rows[0]) if rows else [], lines)


def _kind(table: PaperTable) -> tuple[str, bool]:
    """Tables of one kind show tests of one kind."""
    return table.folder, table.languages is not None


def to_rich(table: TextTable) -> RichTable:
    """For the terminal, without the column of configurations."""
    rich = RichTable(title=table.title, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    shown = _without(table, [CONFIG])
    for number, name in enumerate(shown.head):
        rich.add_column(name.replace(" ", "\n", 1), justify="left" if number < 2 else "right")
    for line in shown.lines:
        rich.add_row(*line)
    rich.width = Console(width=1000).measure(rich).maximum  # a narrow terminal breaks lines, and no figure is shortened
    return rich


def to_markdown(tables: Iterable[TextTable]) -> str:
    """All tables, each under its title."""
    return "\n".join(
        f"**{table.title}**\n\n"
        + "".join(f"| {' | '.join(cells)} |\n" for cells in (table.head, _rule(table), *table.lines))
        for table in tables
    )


def to_latex(tables: Iterable[TextTable]) -> str:
    """All tables as `table` environments, without the column of configurations; they need the package booktabs."""
    return "\n".join(_latex_table(table) for table in tables)


def write_tables(folder: Path, tables: Sequence[TextTable]) -> None:
    """Write `tables.md` and `tables.tex`."""
    write_text(folder / "tables.md", to_markdown(tables))
    write_text(folder / "tables.tex", to_latex(tables))


def update_docs(path: Path, tables: Sequence[TextTable]) -> None:
    """Replace the text between the two marks of a Markdown file.

    Raises:
        UserError: the file is missing, or does not hold both marks once and in order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a Markdown file as --docs") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise UserError(f"{path}: needs the lines {BEGIN} and {END}, each once; the tables go between them")
    write_text(path, f"{before}{BEGIN}\n\n{to_markdown(tables)}\n{END}{after}")


def _paper_table(table: PaperTable, groups: Sequence[SeedGroup], taken: set[int]) -> TextTable:
    """One of the paper's tables; its groups are added to `taken`."""
    lines: list[list[str]] = []
    for row in table.rows:
        label = row.label
        for who, figures in row.figures.items():
            lines.append([label, who, *(figures.get(column, "") for column in table.columns), "", ""])
            label = ""
        own = _own_lines(row, table, groups, taken)
        for number, (who, cells) in enumerate(own):
            lines.append(
                [label if number == 0 else "", who, *cells, row.file.removeprefix("nrccr/") if number == 0 else ""]
            )
    head = ["", "", *map(_head(table), table.columns), "seeds", CONFIG]
    empty = [name for at, name in enumerate(head) if at > 1 and not any(line[at] for line in lines)]
    return _without(TextTable(table.title, head, lines), empty)


def _own_lines(
    row: TableRow, table: PaperTable, groups: Sequence[SeedGroup], taken: set[int]
) -> list[tuple[str, Sequence[str]]]:
    found: list[tuple[SeedGroup, dict[str, Any]]] = []
    for group in groups:
        if row_of(table, group.first.config, group.collection) is row:
            differences = group.differences(load_config(CONFIGS / row.file))
            if not is_other_model(differences):
                found.append((group, differences))
                taken.add(id(group))
    if not found:
        empty = ["not run" if column == _last(table) else "" for column in table.columns]
        return [("ours", [*empty, ""])]
    labels = [", ".join(["ours", *(f"{key}={value}" for key, value in changed.items())]) for _, changed in found]
    return [
        # Two lines may differ only in their training data: its fingerprint then distinguishes them.
        (label if labels.count(label) == 1 else f"{label}, data {str(group.first.values['data'])[:8]}", cells)
        for label, (group, _), cells in zip(labels, found, (_cells(group, table) for group, _ in found), strict=True)
    ]


def _other_table(title: str, like: PaperTable, groups: Sequence[SeedGroup]) -> TextTable:
    """Runs outside the paper's tables, under their folders' names."""
    lines = []
    for group in groups:
        namesakes = [other for other in groups if other.first.name == group.first.name and other is not group]
        differing = _differing(group, namesakes)
        kind = ", ".join([group.collection, f"{group.first.config.reading} reading", *differing])
        lines.append([group.first.name, kind, *_cells(group, like)])
    return TextTable(title, ["run", "", *map(_head(like), like.columns), "seeds"], lines)


def _differing(group: SeedGroup, namesakes: Sequence[SeedGroup]) -> list[str]:
    """The values that distinguish a group from others of its name."""
    own = group.first.values
    keys = sorted(key for key in own if any(other.first.values.get(key) != own[key] for other in namesakes))
    return [f"{key} {str(own[key])[:8]}" if key == "data" else f"{key}={own[key]}" for key in keys if key != "reading"]


def _cells(group: SeedGroup, table: PaperTable) -> list[str]:
    """Mean and deviation over the seeds, column by column, then their number."""
    digits = {"mAP": 2, "MedR": 1}
    numbers = {column: group.numbers(column) for column in table.columns}
    cells = [in_words(found, digits.get(column[1], 1)) if found else "" for column, found in numbers.items()]
    return [*cells, str(len(group.runs))]


def _last(table: PaperTable) -> Column:
    """The column that shows `not run`: the one that is published for most rows."""
    if table.languages is not None:
        return MEAN, "R@1"
    return SUMR if SUMR in table.columns else (next(iter(table.directions)), METRICS[-1])


def _head(table: PaperTable) -> Callable[[Column], str]:
    short = {"geometric_mean": "geom."}
    return lambda column: (
        "SumR" if column == SUMR else f"{table.directions.get(column[0], column[0])} {short.get(column[1], column[1])}"
    )


def _without(table: TextTable, names: Sequence[str]) -> TextTable:
    """The table without some columns."""
    kept = [at for at, name in enumerate(table.head) if name not in names]
    return TextTable(table.title, [table.head[at] for at in kept], [[line[at] for at in kept] for line in table.lines])


def _rule(table: TextTable) -> list[str]:
    return ["---" if at < 2 else "---:" for at in range(len(table.head))]


def _latex_table(whole: TextTable) -> str:
    table = _without(whole, [CONFIG])
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(table.head) - 2)}}}",
        r"\toprule",
        _latex_line(table.head),
        r"\midrule",
        *(_latex_line(line) for line in table.lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
