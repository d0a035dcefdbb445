"""docs/troubleshooting.md: each mistake is made, and the command prints what the page says, word for word."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.bigfile import write_bigfile

Command = Callable[..., Any]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
HEADER = "item,language,text\n"


@dataclass(frozen=True)
class Stage:
    """What a mistake is made with.

    Attributes:
        command: runs `nrccr ...`.
        start: begins a training of the collection.
        root: folder of the collection vatex.
        config: a configuration that trains on it.
        run: a run trained on it.
        folder: an empty one, the working folder.
    """

    command: Command
    start: Command
    root: Path
    config: Path
    run: Path
    folder: Path

    @property
    def features(self) -> Path:
        """The collection's features."""
        return self.root / "vatex" / "FeatureData" / "i3d_kinetics"

    def captions(self, name: str) -> Path:
        """A caption file of the collection."""
        return self.root / "vatex" / "TextData" / f"{name}.caption.txt"

    def table(self, text: str, encoding: str = "utf-8") -> Any:
        """Import a table of this text."""
        (self.folder / "captions.csv").write_text(text, encoding=encoding)
        return self.command("import", "captions.csv", "mine")


def without_root(stage: Stage) -> Any:
    return stage.command("train", "nrccr/vatex")


def unknown_key(stage: Stage) -> Any:
    return stage.start("joint.widht=256")


def unknown_configuration(stage: Stage) -> Any:
    return stage.command("train", "nrccr/vatexx", "--root", stage.root)


def absent_gpu(stage: Stage) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return stage.start("--device=cuda")


def absent_extra(stage: Stage) -> Any:
    (stage.folder / "film.mp4").write_bytes(b"film")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        return stage.command("extract", stage.folder / "film.mp4", "--model", "pixels", "--out", "features")


def root_of_another_folder(stage: Stage) -> Any:
    return stage.command("train", stage.config, "--root", stage.root / "vatex", "--device", "cpu")


def lost_translation(stage: Stage) -> Any:
    stage.captions("vatextrain_google_enc2zh").unlink()
    return stage.start()


def captions_of_other_items(stage: Stage) -> Any:
    path = stage.captions("vatextrain_google_enc2zh")
    path.write_text(path.read_text(encoding="utf-8").replace("train1#", "train1.mp4#"), encoding="utf-8")
    return stage.start()


def pointer(stage: Stage) -> Any:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (stage.features / "feature.bin").write_text(text)
    return stage.start()


def cut_features(stage: Stage) -> Any:
    path = stage.features / "feature.bin"
    path.write_bytes(path.read_bytes()[:-4])
    return stage.start()


def item_without_features(stage: Stage) -> Any:
    path = stage.features / "video2frames.txt"
    path.write_text(path.read_text().replace("'train3':", "'trainX':"))
    return stage.start()


def semicolons(stage: Stage) -> Any:
    return stage.table("item;language;text\nfilm1;en;A dog runs.\n")


def latin_1(stage: Stage) -> Any:
    return stage.table(f"{HEADER}film1,de,Ein Hund läuft.\n", "latin-1")


def translation_of_whom(stage: Stage) -> Any:
    people, machine = "film1,en,A dog runs.,train,human\n", "film1,de,Ein Hund läuft.,train,translated\n"
    return stage.table(f"item,language,text,split,kind\n{people}{machine}")


def absent_backbone(stage: Stage) -> Any:
    return stage.start(f"text.model={stage.folder}/bert")


def run_exists(stage: Stage) -> Any:
    return stage.command("train", stage.config, "--root", stage.root, "--out", stage.run, "--device", "cpu")


def resumed_otherwise(stage: Stage) -> Any:
    options = ("--root", stage.root, "--out", stage.run, "--device", "cpu", "--resume")
    return stage.command("train", stage.config, *options, "train.learning_rate=1e-3")


def absent_run(stage: Stage) -> Any:
    return stage.command("test", "runs/vatex-s0", "--root", stage.root)


def other_features(stage: Stage) -> Any:
    shutil.rmtree(stage.features)
    write_bigfile(stage.features, [(f"test{number}", np.ones((2, 12))) for number in range(8)])
    return stage.command("test", stage.run, "--root", stage.root, "--device", "cpu")


def absent_bank(stage: Stage) -> Any:
    options = ("--root", stage.root, "--device", "cpu", "evaluation.normalise=dis")
    return stage.command("test", stage.run, *options)


MISTAKES: dict[str, Callable[[Stage], Any]] = {
    "An option is missing": without_root,
    "A key is misspelt": unknown_key,
    "A configuration is misspelt": unknown_configuration,
    "There is no such GPU": absent_gpu,
    "An extra is not installed": absent_extra,
    "The root is another folder": root_of_another_folder,
    "A caption file is missing": lost_translation,
    "Caption files do not belong together": captions_of_other_items,
    "A file is only a pointer": pointer,
    "Features were cut short": cut_features,
    "An item has no features": item_without_features,
    "The table has other separators": semicolons,
    "The table is not in UTF-8": latin_1,
    "Nobody knows who translated": translation_of_whom,
    "The backbone is not there": absent_backbone,
    "The run folder is taken": run_exists,
    "A run is resumed with other settings": resumed_otherwise,
    "The run is elsewhere": absent_run,
    "The features are of another kind": other_features,
    "There is no query bank": absent_bank,
}


def page() -> dict[str, str]:
    """The message under each heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^### (.+)\n\n```text\n(nrccr: .+)\n```\n", text, re.MULTILINE)
    return dict(found)


def test_the_page_has_these_twenty_and_says_more_than_the_message() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert list(page()) == list(MISTAKES) == re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(MISTAKES) == 20
    for part in re.split(r"^### .+$", text, flags=re.MULTILINE)[1:]:
        advice = re.sub(r"```.*?```|^## .*", "", part, flags=re.DOTALL | re.MULTILINE)
        assert len(advice.split()) > 8, part


@pytest.mark.parametrize("heading", MISTAKES)
def test_the_message_is_the_page_s(
    heading: str,
    nrccr_command: Command,
    start: Command,
    trained: Path,
    tiny_config: Path,
    tiny_collection: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = MISTAKES[heading](Stage(nrccr_command, start, tiny_collection, tiny_config, trained, work))
    assert done.code == 2, done
    said = done.err
    for path, name in ((tiny_collection, "ROOTPATH"), (trained, "RUN"), (tiny_config, "CONFIG"), (work, "FOLDER")):
        said = said.replace(str(path), name)
    assert said == f"{page().get(heading)}\n"
