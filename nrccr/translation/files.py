"""The caption files of a collection that are translations, and how each is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from nrccr.data.captions import caption_line, is_blank, read_captions, write_captions
from nrccr.data.collections import Collection, Role, SplitName, locate
from nrccr.data.escapes import escaped
from nrccr.data.layouts import word_of
from nrccr.data.own import has_escapes
from nrccr.errors import UserError
from nrccr.files import digest_of, write_json
from nrccr.translation.journal import Journal


class Translates(Protocol):
    """A model or a program that translates in one direction."""

    @property
    def fingerprint(self) -> str:
        """A hash of what its translations depend on."""

    def batches(self, texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        """Positions of the texts of every batch, the same for the same texts."""

    def translate_batch(self, texts: Sequence[str]) -> list[str]:
        """Translations of a batch."""


@dataclass(frozen=True)
class Job:
    """One translated file.

    Attributes:
        split, role: which it is in its collection.
        source: the file that is translated.
        out: the translation's file.
        tag: the middle of its captions' ids.
        language: of the translations.
    """

    split: SplitName
    role: Role
    source: Path
    out: Path
    tag: str
    language: str

    @property
    def record(self) -> Path:
        """What the translation was made of, beside it."""
        return self.out.with_name(self.out.name.removesuffix(".caption.txt") + ".translation.json")

    @property
    def journal(self) -> Path:
        """What is done so far, beside it."""
        return self.out.with_name(f".{self.out.name}.partial")


def find_collection(folder: Path, target: str, translator: str, task: int) -> Collection:
    """The collection in a folder.

    Args:
        folder: of the collection itself, ROOT/name.
        target: language.
        translator: the tag of its files.
        task: which of the collection's tasks.

    Raises:
        UserError: no such folder, or as `locate`.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of one collection, such as ROOT/vatex")
    return locate(folder.parent, folder.name, target=target, translator=translator, task=task)


def jobs(collection: Collection, splits: Sequence[SplitName]) -> list[Job]:
    """Every translated file of the splits, in the order in which they can be made.

    Raises:
        UserError: a file that people wrote is missing.
    """
    target, spoken = collection.target, collection.layout.source
    word = word_of(spoken)
    found: list[Job] = []
    for split in splits:
        if split == "train":
            there = collection.translation(split, "target")
            back = collection.translation(split, "back")
            written = collection.file(split, "source")
            found.append(Job(split, "target", written, there, f"{word}2{target}", target))
            found.append(Job(split, "back", there, back, f"{word}2{target}2{word}", spoken))
        else:
            written = collection.file(split, "target")
            out = collection.translation(split, "source")
            found.append(Job(split, "source", written, out, f"{target}2{word}", spoken))
    return found


def translate_file(job: Job, translator: Translates, batch_size: int, *, overwrite: bool = False) -> bool:
    """Translate a caption file; ids stay, save for their tag. A run that was killed goes on from its last batch.

    A translation without text cannot stand in a caption file: the source's text takes its place, and the record names
    the line.

    Args:
        job: which file.
        translator: of this direction.
        batch_size: captions a batch, which may change last digits and so now and then a word.
        overwrite: replace a file that was made otherwise.

    Returns:
        whether anything was to be done.

    Raises:
        UserError: the file exists and was made otherwise, or the translator fails.
    """
    captions = read_captions(job.source)
    described = f"{digest_of(job.source)} {translator.fingerprint} {batch_size} {job.tag}"
    fingerprint = hashlib.sha256(described.encode()).hexdigest()[:16]
    if job.out.exists() and not overwrite:
        _require_same(job, fingerprint)
        return False
    journal = Journal(job.journal, fingerprint)
    try:
        translations = [""] * len(captions)
        batches = list(translator.batches(captions.texts, batch_size))
        for number, batch in enumerate(tqdm(batches, desc=job.out.name, unit="batch", disable=None, leave=False)):
            if len(journal.done.get(number, ())) != len(batch):
                journal.add(number, translator.translate_batch([captions.texts[index] for index in batch]))
            for index, text in zip(batch, journal.done[number], strict=True):
                translations[index] = text
        empty = [index for index, text in enumerate(translations) if is_blank(text)]
        for index in empty:
            translations[index] = captions.texts[index]
        rows = zip(captions.items, captions.numbers, translations, strict=True)
        write = escaped if has_escapes(job.out) else str
        lines = [caption_line(item, job.tag, number, write(text)) for item, number, text in rows]
        record = {
            "source": job.source.name,
            "fingerprint": fingerprint,
            "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
            "empty_lines": [index + 1 for index in empty],
        }
        write_json(job.record, record)  # first: a file whose record does not fit it is not taken for a finished one
        write_captions(job.out, lines)
    except BaseException:
        journal.close()
        raise
    journal.close(remove=True)
    return True


def empty_lines(job: Job) -> list[int]:
    """Lines of a translated file of ours where the source's text stands for an empty translation."""
    found = _read_record(job).get("empty_lines")
    return [line for line in found if type(line) is int] if isinstance(found, list) else []


def _require_same(job: Job, fingerprint: str) -> None:
    record = _read_record(job)
    if record.get("fingerprint") != fingerprint or record.get("sha256") != digest_of(job.out):
        raise UserError(
            f"{job.out}: exists, and was not made of this text by this translator; give another --translator, or "
            "--overwrite"
        )


def _read_record(job: Job) -> dict[str, object]:
    try:
        record = json.loads(job.record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
