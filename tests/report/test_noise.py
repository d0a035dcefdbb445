"""Models under translation noise: rows, plot, and the command, which keeps what is finished."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nrccr.data.generated.collection import Recipe, generate, rate_of
from nrccr.report.noise import Cell, NoiseRow, cells, collect, plot, to_markdown
from nrccr.systems.nrccr.settings import VARIANTS
from nrccr.systems.settings import load_config

Command = Callable[..., Any]
BASE = Path(__file__).resolve().parents[2] / "configs" / "base.yaml"


def metrics(value: float) -> dict[str, Any]:
    return {"SumR": 6 * value, "text_to_visual": {"R@1": value, "R@5": value + 1, "R@10": value + 2}}


def test_rows_are_means_over_seeds() -> None:
    order = cells({name: VARIANTS[name] for name in ("basic", "nrccr")}, ["noise0", "noise40"], [0, 1])
    assert [cell.name for cell in order][:4] == [
        "basic-noise0-s0",
        "nrccr-noise0-s0",
        "basic-noise40-s0",
        "nrccr-noise40-s0",
    ]
    rows = collect({cell: metrics(number) for number, cell in enumerate(order)})
    assert [(row.model, row.translator) for row in rows] == [(cell.model, cell.translator) for cell in order[:4]]
    assert rows[1] == NoiseRow("nrccr", "noise0", [1 * 3 + 3, 5 * 3 + 3], [6, 30])
    mean, deviation = 18, statistics.stdev([6, 30])
    assert f"| noise0 | nrccr | 12.0 ± 8.5 | {mean:.1f} ± {deviation:.1f} | 2 |" in to_markdown(rows)
    assert "| 6.0 | 6.0 | 1 |" in to_markdown([NoiseRow("nrccr", "noise0", [6], [6])])


def test_cells_change_only_what_they_name() -> None:
    full = load_config(BASE, Cell("nrccr", "google", 7, VARIANTS["nrccr"]).overrides)
    assert (full.seed, full.data.translator) == (7, "google")
    assert full.loss == load_config(BASE).loss
    basic = load_config(BASE, Cell("basic", "google", 7, VARIANTS["basic"]).overrides).loss
    assert (basic.similarity, basic.feature, basic.cycle, basic.adversary) == (0, 0, 0, 0)
    assert (basic.target, basic.margin) == (full.loss.target, full.loss.margin)
    for term in ("similarity", "feature", "cycle", "adversary"):
        loss = load_config(BASE, Cell(f"no-{term}", "google", 7, VARIANTS[f"no-{term}"]).overrides).loss
        assert {key for key, value in vars(loss).items() if value != getattr(full.loss, key)} == {term}


@pytest.mark.parametrize("names", [("noise0", "noise40"), ("google", "baidu")])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plot(names: tuple[str, ...], ending: str, tmp_path: Path) -> None:
    assert [rate_of(name) for name in names] in ([0, 40], [None, None])
    rows = [NoiseRow(model, name, [1.0, 2.0], [10.0, 20.0]) for model in ("basic", "nrccr") for name in names]
    plot(rows, tmp_path / f"noise.{ending}")
    written = (tmp_path / f"noise.{ending}").read_bytes()
    assert written.startswith(b"\x89PNG" if ending == "png" else b"<?xml") and len(written) > 3000


@pytest.fixture
def small(tiny_config: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    data = {"collection": "generated", "target": "de", "translator": "noise0"}
    values = {"extends": str(tiny_config), "data": data, "train": {"epochs": 1}}
    path.write_text(yaml.safe_dump(values))
    return path


def test_command_keeps_what_is_finished(small: Path, tmp_path: Path, nrccr_command: Command) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    generate(root, Recipe(rates=(0.0, 0.4), videos=(10, 4, 6), captions=2))
    arguments = ["noise", small, "--root", root, "--out", out, "--device", "cpu", "--seeds", "5"]
    two = [*arguments, "--translators", "noise0,noise40"]
    stopped = nrccr_command(*two, "--models", "basic,nrccr", "train.epochs=0")
    assert stopped.code == 2 and not out.exists()
    done = nrccr_command(*two, "--models", "nrccr")
    assert done.code == 0 and "written" in done.out, done.err
    first = (out / "nrccr-noise40-s5" / "test" / "metrics.json").stat().st_mtime_ns
    done = nrccr_command(*two, "--models", "basic,nrccr")
    assert done.code == 0 and done.out.count("finished before") == 2, done.err
    assert (out / "nrccr-noise40-s5" / "test" / "metrics.json").stat().st_mtime_ns == first
    assert "± " not in (out / "noise.md").read_text() and (out / "noise.png").stat().st_size > 3000
    rows = json.loads((out / "noise.json").read_text())
    assert [(row["model"], row["translator"]) for row in rows] == [
        (model, name) for name in ("noise0", "noise40") for model in ("basic", "nrccr")
    ]
    for row in rows:
        found = json.loads((out / f"{row['model']}-{row['translator']}-s5" / "test" / "metrics.json").read_text())
        assert row["sumr"] == [found["SumR"]]
    for change in ("loss.margin=0.5", "train.epochs=2"):
        changed = nrccr_command(*two, change)
        assert changed.code == 2 and ("loss.margin" in changed.err or "other epochs" in changed.err)


def test_stopped_run_goes_on(small: Path, tmp_path: Path, nrccr_command: Command) -> None:
    """A cell that was trained but not tested is taken up, and gives what an unstopped one gives."""
    root = tmp_path / "root"
    generate(root, Recipe(rates=(0.4,), videos=(10, 4, 6), captions=2))
    options = ["--root", root, "--device", "cpu"]
    noise = ["noise", small, *options, "--models", "nrccr", "--seeds", "0", "--translators", "noise40"]
    begun = tmp_path / "stopped" / "nrccr-noise40-s0"
    done = nrccr_command("train", small, *options, "--out", begun, "data.translator=noise40", "seed=0")
    assert done.code == 0, done.err
    for out in ("stopped", "whole"):
        assert nrccr_command(*noise, "--out", tmp_path / out, "train.epochs=2").code == 0
    assert (tmp_path / "stopped" / "noise.json").read_text() == (tmp_path / "whole" / "noise.json").read_text()


def test_own_collection_and_quick(small: Path, tmp_path: Path, nrccr_command: Command, tiny_config: Path) -> None:
    out = tmp_path / "out"
    refused = nrccr_command("noise", tiny_config, "--out", out)
    assert refused.code == 2 and "--root" in refused.err
    refused = nrccr_command("noise", small, "--out", out, "--translators", "google")
    assert refused.code == 2 and "noise0" in refused.err
    refused = nrccr_command("noise", small, "--out", out, "--models", "best")
    assert refused.code == 2 and "no-cycle" in refused.err
    assert not out.exists()
    options = ["train.batch_size=64", "text.backbone.num_hidden_layers=1"]
    done = nrccr_command("noise", small, "--quick", "--out", out, "--models", "nrccr", "--device", "cpu", *options)
    assert done.code == 0, done.err
    assert sum(path.is_dir() for path in out.glob("nrccr-*")) == 2
    assert len((out / "VisualSearch" / "generated" / "scenes.jsonl").read_text().splitlines()) == 240
    again = nrccr_command(
        "noise", small, "--out", out, "--models", "nrccr", "--seeds", "1", "--device", "cpu", *options
    )
    assert again.code == 2 and "another comparison" in again.err


def test_other_systems_are_refused(tmp_path: Path, nrccr_command: Command) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "c2kd" / "multi30k-small-student.yaml"
    done = nrccr_command("noise", config, "--out", tmp_path / "noise")
    said = f"{config}, a configuration of c2kd; it has no variants; give another configuration"
    assert done.code == 2 and done.err.strip().endswith(said) and len(done.err.splitlines()) == 1
    assert not (tmp_path / "noise").exists()
