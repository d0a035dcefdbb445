#!/usr/bin/env python3
"""Makes what a user brings, to try docs/tutorial.md with: python scripts/sample.py FOLDER

FOLDER/films holds films of moving handwriting, FOLDER/captions.csv their captions: English in training, with
translations into German and back in which one word in five is wrong; German in validation and test, with translations
into English. FOLDER/backbone is a small text model's configuration and vocabulary. Seconds, offline; needs the extra
extract.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from nrccr.cli.options import integers
from nrccr.data.captions import read_captions
from nrccr.data.generated.collection import Recipe, generate, translator_name
from nrccr.errors import UserError
from nrccr.files import atomic_folder, write_text

RATE = 0.2
HEAD = ("item", "language", "text", "split", "kind", "translator")
# Caption files of a split and what their rows say: language and kind.
QUERIES = {"": ("de", "human"), "de2enc": ("en", "translated")}
TRAINING = {"": ("en", "human"), "enc2de": ("de", "translated"), "enc2de2enc": ("en", "translated")}


def rows(texts: Path) -> Iterator[tuple[str, ...]]:
    """Every caption of the table, split by split."""
    translator = translator_name(RATE)
    for split, files in (("train", TRAINING), ("val", QUERIES), ("test", QUERIES)):
        for route, (language, kind) in files.items():
            people = "" if split == "train" else "_de"
            name = f"generated{split}_{translator}_{route}" if route else f"generated{split}{people}"
            found = read_captions(texts / f"{name}.caption.txt")
            for item, text in zip(found.items, found.texts, strict=True):
                yield item, language, text, split, kind, "sample" if route else ""


def make(out: Path, recipe: Recipe) -> None:
    """Films, table and backbone; the folder appears whole or not at all."""
    if out.exists():
        raise UserError(f"{out}: exists already; remove it or give another folder")
    table = io.StringIO(newline="")
    with atomic_folder(out, replace=False) as folder:
        collection = generate(folder / "made", recipe, media=True)
        csv.writer(table).writerows([HEAD, *rows(collection / "TextData")])
        write_text(folder / "captions.csv", table.getvalue())
        (collection / "media").rename(folder / "films")
        (collection / "backbone").rename(folder / "backbone")
        for path in sorted((folder / "made").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (folder / "made").rmdir()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and make the folder."""
    parser = argparse.ArgumentParser(description="Make films and a table of captions to try the tutorial with.")
    parser.add_argument("out", metavar="FOLDER", type=Path)
    parser.add_argument("--videos", default="300,50,100", help="in training, validation, test")
    parser.add_argument("--captions", type=int, default=4, help="of a video")
    given = parser.parse_args(arguments)
    try:
        videos = integers("--videos", given.videos)
        if len(videos) != 3:
            raise UserError(f"--videos {given.videos}: give three numbers, such as 300,50,100")
        make(given.out, Recipe(0, (RATE,), (videos[0], videos[1], videos[2]), given.captions))
    except UserError as error:
        parser.error(str(error))
    print(f"{given.out}: {sum(videos)} films and captions.csv")


if __name__ == "__main__":
    main()
