"""Tables of captions in one file: CSV, TSV, JSON lines or parquet, one caption a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrccr.errors import UserError, first_line
from nrccr.extras import need
from nrccr.files import atomic_path

COLUMNS = ("item", "language", "text", "split", "kind", "translator")
FURTHER = ("route", "number")  # written only where they cannot be worked out
REQUIRED = COLUMNS[:3]
LONGEST_TEXT = 100_000  # characters
_LONGEST_LINE = 2**20  # bytes
_LARGEST_GROUP = 2**30  # bytes of a row group of parquet, unpacked
_AT_ONCE = 1000  # rows of parquet
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON = (".jsonl", ".ndjson")
_PARQUET = ".parquet"
ENDINGS = (*_DELIMITERS, *_JSON, _PARQUET)

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One row; a cell that is empty or not there is the empty text.

    Attributes:
        line: of the file where it begins, in parquet its row; from 1.
        item, language, text, split, kind, translator, route, number: its cells.
    """

    line: int
    item: str
    language: str
    text: str
    split: str = ""
    kind: str = ""
    translator: str = ""
    route: str = ""
    number: str = ""


@dataclass
class Table:
    """A table that was read.

    Attributes:
        path: its file.
        columns: those that are known, as far as it has them.
        ignored: its other columns.
        rows: in file order.
    """

    path: Path
    columns: set[str] = field(default_factory=set)
    ignored: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def place(self, line: int) -> str:
        """A row, for messages."""
        return _place(self.path, line)


def read_table(path: Path) -> Table:
    """Read a table; its kind follows from the file's ending.

    Raises:
        UserError: no such file or ending, a damaged file, a column that is missing, or a row that is no caption.
    """
    ending = ending_of(path)
    if not path.is_file():
        raise UserError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}; give a table")
    if ending == _PARQUET:
        read = _read_parquet(path)
    else:
        read = _read_json(path) if ending in _JSON else _read_delimited(path, _DELIMITERS[ending])
    table = Table(path)
    names: dict[str, str] = {}  # of columns in the file
    ignored: dict[str, None] = {}
    try:
        for line, values in read:
            for name in values.keys() - names.keys():
                names[name] = known = str(name).strip().lower()
                if known not in (*COLUMNS, *FURTHER):
                    ignored[str(name)] = None
                elif known in table.columns:
                    raise UserError(f"{path}: two columns are named {known}; keep one")
                else:
                    table.columns.add(known)
            cells = {names[name]: _cell(table.place(line), names[name], value) for name, value in values.items()}
            table.rows.append(_row(table.place(line), line, cells))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    if not table.rows:
        raise UserError(f"{path}: holds no rows; give a table with a row for each caption")
    table.ignored = list(ignored)
    return table


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table whole or not at all; its kind follows from the file's ending.

    Args:
        path: the file.
        columns: names of the columns.
        rows: cells of each row.

    Raises:
        UserError: no such ending, or pyarrow is missing.
    """
    ending = ending_of(path)
    with atomic_path(path) as temporary:
        if ending == _PARQUET:
            arrow, parquet = need("pyarrow", "parquet"), need("pyarrow.parquet", "parquet")
            cells = list(zip(*rows, strict=True)) or [()] * len(columns)
            parts = [arrow.array(column, arrow.string()) for column in cells]
            parquet.write_table(arrow.Table.from_arrays(parts, names=list(columns)), temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if ending in _JSON:
                file.writelines(
                    json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows
                )
            else:
                writer = csv.writer(file, delimiter=_DELIMITERS[ending], lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(rows)


def ending_of(path: Path) -> str:
    """The kind of a table.

    Raises:
        UserError: none that is known.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{path}: no table by its ending; name it {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return ending


def _place(path: Path, line: int) -> str:
    return f"{path}: row {line}" if path.suffix.lower() == _PARQUET else f"{path}:{line}"


def _row(place: str, line: int, cells: dict[str, str]) -> Row:
    for name in REQUIRED:
        if name not in cells:
            there = ", ".join(cells)
            raise UserError(f"{place}: no column {name}, there are {there}; a table has the columns {_listed()}")
    known = {name: cell if name == "text" else cell.strip() for name, cell in cells.items() if name in Row.__slots__}
    return Row(line, **known)


def _cell(place: str, name: str, value: Any) -> str:
    """A value as text; numbers only where they name or count something."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name in ("item", "number"):
        return str(value)
    if not isinstance(value, str):
        if name not in (*COLUMNS, *FURTHER):
            return ""
        raise UserError(f"{place}: {name} is {type(value).__name__}, not text; write it in quotes")
    if len(value) > LONGEST_TEXT:
        raise UserError(f"{place}: {name} has {len(value)} characters; give at most {LONGEST_TEXT}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: {name} is no valid Unicode (a lone surrogate); write the character itself") from None
    return value


def _listed() -> str:
    return f"{', '.join(REQUIRED)} and, where needed, {', '.join((*COLUMNS[3:], *FURTHER))}"


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
            if len(line) > _LONGEST_LINE:
                raise UserError(f"{path}:{number}: a line of more than {_LONGEST_LINE} bytes; is this a table of text?")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path}:{number}: not UTF-8; save the table as UTF-8") from None


def _read_delimited(path: Path, delimiter: str) -> Iterator[tuple[int, Values]]:
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reason = f"{first_line(error)}; are quotes closed, and quotes within a text doubled?"
            raise UserError(f"{path}:{start}: not a row of a table: {reason}") from None
        if cells is None:
            return
        if not cells:  # a blank line
            continue
        if header is None:
            header = cells
            _check_header(path, start, header)
        elif len(cells) != len(header):
            hint = "put a text that holds the separator or a line break in quotes"
            raise UserError(f"{path}:{start}: {len(cells)} cells, but the header has {len(header)}; {hint}")
        else:
            yield start, dict(zip(header, cells, strict=True))


def _check_header(path: Path, line: int, header: list[str]) -> None:
    names = [name.strip().lower() for name in header]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}:{line}: two columns are named {twice!r}; keep one")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        separator = "; the separator of .csv is a comma, of .tsv a tab" if len(header) == 1 else ""
        raise UserError(
            f"{path}:{line}: the header has no column {', '.join(missing)}{separator}; "
            f"a table has the columns {_listed()}"
        )


def _read_json(path: Path) -> Iterator[tuple[int, Values]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({first_line(error)}); write one object a line") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number}: not an object; write {{...}} with the columns {_listed()}")
        yield number, values


def _read_parquet(path: Path) -> Iterator[tuple[int, Values]]:
    parquet = need("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            if any(group.total_byte_size > _LARGEST_GROUP for group in groups):
                raise UserError(f"{path}: row groups of more than {_LARGEST_GROUP} bytes; write smaller ones")
            known = [name for name in file.schema_arrow.names if name.strip().lower() in (*COLUMNS, *FURTHER)]
            others = [name for name in file.schema_arrow.names if name not in known]
            number = 0
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=known):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values | dict.fromkeys(others)
    except UserError:
        raise
    except Exception as error:  # pyarrow fails in many ways on damaged files
        raise UserError(f"{path}: not a parquet file, or damaged ({first_line(error)}); write it again") from error
