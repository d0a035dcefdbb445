#!/usr/bin/env python3
"""Checks a built site: python scripts/site_links.py FOLDER

Every link, picture, script and style of every page is a file of the folder with the anchor that it names, and no page
loads anything from another server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
ELSEWHERE = ("https", "http", "mailto")
UNLOADED = ("canonical", "next", "prev")  # links in a page's head that browsers do not fetch


class Page(HTMLParser):
    """Anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element's anchor and addresses."""
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        address = found.get(LOADED.get(tag, ""))
        if address is not None and found.get("rel") not in UNLOADED:
            self.loaded.append(address)


def problems(folder: Path) -> Iterator[str]:
    """Each link that leads nowhere and each thing that a page loads from elsewhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder}: no pages in it"
    for path, page in pages.items():
        if path.name == "404.html":  # shown at any depth, so that its addresses begin at the server
            continue
        shown = path.relative_to(folder.resolve())
        for address in page.loaded:
            if urlsplit(address).netloc:
                yield f"{shown}: loads {address}"
        for address in (*page.links, *page.loaded):
            parts = urlsplit(address)
            if parts.scheme in ELSEWHERE or parts.scheme == "data":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{shown}: {address}: no such file"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{shown}: {address}: no such anchor"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/site_links.py FOLDER")
    found = list(problems(Path(sys.argv[1])))
    for line in found:
        print(line, file=sys.stderr)
    raise SystemExit(1 if found else 0)
