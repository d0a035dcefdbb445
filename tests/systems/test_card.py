"""Model cards: what they say is what was recorded and measured, and foreign names stay names."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from nrccr.evaluation.compare import NAMES, bootstrap, intervals, read_outcome
from nrccr.safeload.unpickle import load_weights, save_weights
from nrccr.systems.markdown import literal, on_one_line, without_folders
from tests.conftest import Command

HOSTILE = [
    "<script>alert(1)</script>",
    "x](javascript:alert(1)) ![y](https://example.invalid/pixel.png)",
    "a\n---\nlicense: mit\n---\n# Another card",
    "`code` and ``more`` | a cell | another",
    "*bold* _it_ ~~gone~~ &lt;b&gt; \\",
    "https://example.invalid/track <https://example.invalid> \u202egnp.exe",
    "{{7*7}} ${HOME} <!-- -->",
    "- item\n\n```\nfence",
    "]: https://example.invalid\n[foo]: https://example.invalid",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_and_not_read(name: str) -> None:
    shown = literal(name)
    assert "\n" not in shown
    page = MarkdownIt("gfm-like", {"linkify": False}).render(
        f"| a | b |\n| --- | --- |\n| {shown} | end |\n\n- {shown}"
    )
    cells = re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    assert len(cells) == 2 and cells[1] == "end"
    tags = Tags()
    tags.feed(page)
    assert tags.found <= {"table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}, page
    assert tags.text.count(on_one_line(name)) == 2, page


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_plain_names_are_code() -> None:
    assert literal("google") == "`google`" and literal("2.13.0+cpu") == "`2.13.0+cpu`" and literal("中文") == "`中文`"
    assert len(literal("x" * 5000)) < 310


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("/home/me/runs/a", "a"),
        ("--out=/home/me/runs/a/", "--out=a"),
        ("text.model=/models/bert", "text.model=bert"),
        ("~/data", "data"),
        ("C:\\Users\\me\\data", "data"),
        ("/", "folder"),
        ("runs/a", "runs/a"),
        ("nrccr/vatex", "nrccr/vatex"),
        ("train.epochs=3", "train.epochs=3"),
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
    ],
)
def test_folders_of_a_machine_are_left_out(typed: str, kept: str) -> None:
    assert without_folders(typed) == kept


def test_the_card_of_a_run(trained: Path, run_test: Command, nrccr_command: Command, tmp_path: Path) -> None:
    assert run_test(trained).code == 0
    done = nrccr_command("card", trained)
    assert done.code == 0 and f"written: {trained / 'README.md'}" in done.out
    text = (trained / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((trained / "test" / "metrics.json").read_text())
    data = ModelCard(text).data
    assert data.language == ["en", "zh"] and data.library_name == "nrccr" and data.license is None
    told = {(result.dataset_config, result.metric_name): result.metric_value for result in data.eval_results}
    for direction, way in (("text_to_visual", "text to video"), ("visual_to_text", "video to text")):
        for name in ("R@1", "R@5", "R@10", "MedR", "mAP"):
            assert told[f"zh, {way}", name] == pytest.approx(metrics[direction][name], abs=0.005)
    outcome = read_outcome(trained, "test")
    cell = "{:.1f} [{:.1f}, {:.1f}]".format(*intervals(outcome)["both", "SumR"])
    assert cell in text and f"{metrics['SumR']:.1f} [" in text
    record = json.loads((trained / "run.json").read_text())
    assert record["versions"]["torch"] in text and "24 captions, 12 items" in text
    assert "Licence\n\nThat of the weights is not stated." in text and "16 queries in `zh`, 8 videos" in text
    assert (
        "translator of the training captions | `google`" in text and "wrong words in the translations | unknown" in text
    )
    again = nrccr_command("card", trained, "--test", trained / "test", "--out", tmp_path / "deep" / "card.md")
    assert again.code == 0 and (tmp_path / "deep" / "card.md").read_text(encoding="utf-8") == text


def test_intervals_are_those_of_a_comparison(trained: Path, run_test: Command) -> None:
    assert run_test(trained).code == 0
    outcome = read_outcome(trained, "test")
    alone, both = intervals(outcome), bootstrap(outcome, outcome)
    for name in NAMES:
        np.testing.assert_allclose(alone[name], (both[name].a, *both[name].a_bounds), rtol=1e-12)
        value, low, high = alone[name]
        assert low <= value <= high or np.isclose(low, high), name


def test_a_test_of_another_model_is_refused(
    trained: Path, run_test: Command, nrccr_command: Command, tmp_path: Path
) -> None:
    assert run_test(trained).code == 0
    other, card = tmp_path / "other", tmp_path / "card.md"
    shutil.copytree(trained, other)
    words = ("card", other, "--test", trained / "test", "--out", card)
    assert nrccr_command(*words).code == 0, "the same weights elsewhere"
    card.unlink()
    weights = load_weights(other / "model.safetensors")
    save_weights({name: tensor + 1 for name, tensor in weights.items()}, other / "model.safetensors")
    done = nrccr_command(*words)
    assert done.code == 2 and done.err.count("\n") == 1 and "give a test of that run" in done.err, done.err
    (trained / "model.safetensors").rename(tmp_path / "moved")
    assert nrccr_command(*words).code == 0, "nothing is left to compare"
    card.unlink()
    done = nrccr_command("card", trained, "--out", card)
    assert done.code == 2 and "no model.safetensors yet" in done.err and not card.exists()


def test_a_stranger_s_run_cannot_write_the_card(trained: Path, run_test: Command, nrccr_command: Command) -> None:
    assert run_test(trained).code == 0
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["data"] |= {"translator": HOSTILE[3], "target": HOSTILE[2]}
    config["text"]["model"] = HOSTILE[0]
    (trained / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    record = json.loads((trained / "run.json").read_text())
    record |= {"commit": HOSTILE[1], "device": HOSTILE[4], "command": ["nrccr", *HOSTILE], "seed": HOSTILE[5]}
    record["versions"] = {name: name for name in HOSTILE}
    record["data"] = {HOSTILE[6]: {"captions": HOSTILE[7], "items": 3}}
    (trained / "run.json").write_text(json.dumps(record))
    metrics = json.loads((trained / "test" / "metrics.json").read_text())
    metrics |= {
        "collection": HOSTILE[2],
        "split": HOSTILE[8],
        "items": HOSTILE[0],
        "normalisation": {"method": HOSTILE[1]},
    }
    (trained / "test" / "metrics.json").write_text(json.dumps(metrics))
    done = nrccr_command("card", trained, "--license", HOSTILE[2])
    assert done.code == 0, done.err
    text = (trained / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.license == on_one_line(HOSTILE[2]) and card.data.language == ["en"]
    assert card.data.eval_results[0].dataset_type == on_one_line(HOSTILE[2])
    assert text.count("\n---\n") == 1, "the metadata end where they end"
    tags = Tags()
    page = MarkdownIt("gfm-like", {"linkify": False}).render(card.text)
    tags.feed(page)
    assert tags.found <= set("h1 h2 p pre code ul li table thead tbody tr th td".split()), tags.found
    assert "Another card" not in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert page.count("<h1>") == 1 and page.count("<h2>") == 6


def test_refusals_leave_nothing(trained: Path, nrccr_command: Command, tmp_path: Path) -> None:
    for options, said in {
        (trained, "--test", tmp_path / "none"): "test the run with `nrccr test`",
        (tmp_path / "none",): "no run folder",
        (trained, "--out", tmp_path): "is a folder",
    }.items():
        done = nrccr_command("card", *options)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not (trained / "README.md").exists()
    (trained / "README.md").symlink_to(tmp_path / "elsewhere")
    done = nrccr_command("card", trained)
    assert done.code == 2 and "a link" in done.err and not (tmp_path / "elsewhere").exists()
    (trained / "README.md").unlink()
    (trained / "run.json").write_text("[")
    done = nrccr_command("card", trained)
    assert done.code == 2 and "run.json" in done.err and not (trained / "README.md").exists()


def test_a_run_that_was_not_tested_says_so(trained: Path, nrccr_command: Command) -> None:
    assert nrccr_command("card", trained, "--license", "cc-by-4.0").code == 0
    text = (trained / "README.md").read_text(encoding="utf-8")
    assert "## Results\n\nNot tested" in text and "model-index" not in text
    assert "license: cc-by-4.0" in text and "The weights are under `cc-by-4.0`" in text
