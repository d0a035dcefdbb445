"""Caption files, one `<item>#<tag>#<k> <text>` a line, and the matching of the files of one split."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nrccr.data.escapes import unescaped
from nrccr.data.own import has_escapes
from nrccr.errors import UserError, require_content
from nrccr.files import write_text
from nrccr.sizes import regular_bytes

CaptionKey = tuple[str, str]
SHOWN = 3


@dataclass(frozen=True)
class Captions:
    """One caption file, in file order; the four lists run in parallel.

    Attributes:
        path: the file.
        ids: full ids, `item#tag#k`.
        items: the video or image of each caption.
        numbers: the `k` of each caption, as written.
        texts: the captions, without outer white space; escapes of own data (nrccr.data.escapes) as what they mean.
    """

    path: Path
    ids: list[str]
    items: list[str]
    numbers: list[str]
    texts: list[str]

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.ids)

    @property
    def languages(self) -> list[str]:
        """Language of each caption, the first two letters of its tag: `enc` en, `zh` zh."""
        return [_language(caption) for caption in self.ids]

    @property
    def keys(self) -> list[CaptionKey]:
        """(item, number) of each caption: what the files of a split are matched by."""
        return list(zip(self.items, self.numbers, strict=True))

    def take(self, order: Sequence[int]) -> Captions:
        """The captions at the given positions."""
        lists = (self.ids, self.items, self.numbers, self.texts)
        return Captions(self.path, *([values[position] for position in order] for values in lists))


@dataclass(frozen=True)
class Matched:
    """Files of one split, reduced to the lines that all of them have.

    Attributes:
        captions: one a file, all with the same (item, number) at the same position, in the order of the first file.
        unmatched: per file the ids that were dropped.
    """

    captions: list[Captions]
    unmatched: dict[Path, list[str]]


def _language(caption_id: str) -> str:
    return caption_id.rsplit("#", 2)[1][:2]


def read_captions(path: Path, *, mixed: bool = False, exact: bool = False) -> Captions:
    """Read a caption file.

    Args:
        path: the file.
        mixed: it holds captions in several languages; an (item, k) may occur once in each.
        exact: with outer white space, where that is written as escapes.

    Raises:
        UserError: the file is missing or empty, or a line is not UTF-8, has no text, an id that is not `item#tag#k`, or
            an (item, k) that an earlier line has.
    """
    captions, problems = parse_captions(path, mixed=mixed, exact=exact)
    if problems:
        raise UserError(problems[0])
    return captions


def caption_line(item: str, tag: str, number: int | str, text: str) -> str:
    """One caption as a line of a caption file."""
    return f"{item}#{tag}#{number} {text}\n"


def write_captions(path: Path, lines: Iterable[str]) -> None:
    """Write a caption file of lines from `caption_line`, whole or not at all."""
    write_text(path, "".join(lines))


def parse_captions(path: Path, *, mixed: bool = False, exact: bool = False) -> tuple[Captions, list[str]]:
    """Read a caption file to its end, past malformed lines; `mixed` and `exact` as in read_captions.

    Returns:
        the good lines, and one message for each bad one.

    Raises:
        UserError: the file cannot be read at all.
    """
    captions = Captions(path, [], [], [], [])
    problems: list[str] = []
    first_line: dict[tuple[str, ...], int] = {}
    escapes = has_escapes(path)
    for number, line in enumerate(_lines(path), start=1):
        try:
            if line is None:
                raise ValueError("not UTF-8; save the file as UTF-8")
            caption_id, item, k, written = _parse_line(line)
            text = unescaped(written) if escapes else written
            if escapes and is_blank(text):
                raise ValueError(f"caption {caption_id!r} has no text; remove the line from every file")
            key = (item, k, _language(caption_id)) if mixed else (item, k)
            earlier = first_line.setdefault(key, number)
            if earlier != number:
                raise ValueError(f"{caption_id!r} repeats item {item!r} and number {k!r} of line {earlier}; remove one")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        captions.ids.append(caption_id)
        captions.items.append(item)
        captions.numbers.append(k)
        captions.texts.append(text if exact else text.strip())
    if not captions and not problems:
        problems.append(f"{path}: holds no captions; copy the file again")
    return captions, problems


def number_lines(path: Path) -> tuple[dict[str, int], list[int]]:
    """The line of every id, counted from 1, and the lines that hold an id and no text."""
    numbers: dict[str, int] = {}
    bare: list[int] = []
    for number, line in enumerate(_lines(path), start=1):
        words = (line or "").split(None, 1)
        if len(words) == 2 and not is_blank(words[1]):
            numbers.setdefault(words[0], number)
        elif words:
            bare.append(number)
    return numbers, bare


def _lines(path: Path) -> list[str | None]:
    """Lines without the blank ones at the end; None for a line that is not UTF-8."""
    require_content(path)
    try:
        data = regular_bytes(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such caption file; check the root and the collection") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    if b"\n" not in data:  # as old Macintosh programs and some spreadsheets write
        data = data.replace(b"\r", b"\n")
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip()
    # Otherwise only a line feed ends a line: captions may hold other characters that str.splitlines would break at.
    try:
        return [*data.decode("utf-8").split("\n")] if data else []
    except UnicodeDecodeError:
        return [_decoded(line) for line in data.split(b"\n")]


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, and characters of no width (zero-width spaces, marks of direction)."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc") for letter in text)


def _parse_line(line: str) -> tuple[str, str, str, str]:
    """Full id, item, number and text of a line; ValueError says what is wrong with it."""
    if line.startswith("\ufeff"):
        raise ValueError("a byte order mark stands before the id, as where files were joined; remove it")
    words = line.split(None, 1)
    if not words:
        raise ValueError("empty line; remove it")
    parts = words[0].rsplit("#", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{words[0]!r} is not an id of the form item#tag#number; a line is 'ID TEXT'")
    if len(words) == 1 or is_blank(words[1]):
        raise ValueError(f"caption {words[0]!r} has no text; add its text or remove the line from every file")
    return words[0], parts[0], parts[2], words[1].rstrip()


def match(files: Sequence[Captions], tolerance: float) -> Matched:
    """Match the lines of a split's files by (item, number).

    Args:
        files: one or more files of the same split.
        tolerance: largest share of a file's lines, 0..1, that may lack a partner in the others.

    Raises:
        UserError: more lines than tolerated lack a partner, or no line has one.
    """
    matched = pair(files)
    problem = describe_mismatch(files, matched, tolerance)
    if problem:
        raise UserError(problem)
    return matched


def pair(files: Sequence[Captions]) -> Matched:
    """Match as `match` does, however much is dropped."""
    keys = [captions.keys for captions in files]
    common = set(keys[0]).intersection(*keys[1:])
    order = [key for key in keys[0] if key in common]
    captions: list[Captions] = []
    unmatched: dict[Path, list[str]] = {}
    for file, own in zip(files, keys, strict=True):
        if own == order:
            captions.append(file)
        else:
            position = {key: index for index, key in enumerate(own)}
            captions.append(file.take([position[key] for key in order]))
        unmatched[file.path] = [caption for caption, key in zip(file.ids, own, strict=True) if key not in common]
    return Matched(captions, unmatched)


def describe_mismatch(files: Sequence[Captions], matched: Matched, tolerance: float) -> str | None:
    """One line about the file with the largest share of unmatched lines if that is above the tolerance, else None."""
    worst = max(files, key=lambda file: len(matched.unmatched[file.path]) / max(1, len(file)))
    lost = matched.unmatched[worst.path]
    if len(lost) <= tolerance * len(worst) and matched.captions[0].ids:
        return None
    others = ", ".join(file.path.name for file in files if file is not worst)
    elsewhere = [caption for file in files if file is not worst for caption in matched.unmatched[file.path]]
    alike = _look_alike(lost, elsewhere)
    if alike:
        return (
            f"{worst.path}: {len(lost)} of {len(worst)} lines have no line with the same item and number in {others}; "
            f"{alike[0]} and {alike[1]} look the same, but are other characters (Unicode NFC and NFD, or invisible "
            "ones); write all ids alike"
        )
    return (
        f"{worst.path}: {len(lost)} of {len(worst)} lines have no line with the same item and number in {others} "
        f"({shortened(lost)}); fix the files or raise data.mismatch_tolerance above {tolerance:g}"
    )


def _look_alike(one: Iterable[str], other: Iterable[str]) -> tuple[str, str] | None:
    """Two ids of other characters whose items look the same, escaped; none if there are no such ids."""
    lost = {_item_and_number(caption): caption for caption in one}
    there: dict[tuple[str, str], str] = {}
    for caption in other:
        item, number = _item_and_number(caption)
        if (item, number) not in lost:  # else they are the same characters, and a third file lacks them
            there[_look(item), number] = caption
    looks = ((caption, (_look(item), number)) for (item, number), caption in lost.items())
    return next(((ascii(caption), ascii(there[look])) for caption, look in looks if look in there), None)


def _item_and_number(caption: str) -> tuple[str, str]:
    item, _, number = caption.rsplit("#", 2)
    return item, number


def _look(name: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")


def written_otherwise(missing: Iterable[str], known: Iterable[str]) -> str:
    """Words for a message about missing names, if a known one looks the same; else nothing."""
    looks = {_look(name): name for name in known}
    pair = next(((name, looks[_look(name)]) for name in missing if _look(name) in looks), None)
    if pair is None:
        return ""
    one, other = map(ascii, pair)
    return f"; {one} looks the same as {other} there, but is other characters (Unicode NFC and NFD, or invisible ones)"


def shortened(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
