"""`nrccr qbnorm`: the published script's metrics, its files, and choosing parameters on validation."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nrccr.evaluation.qbnorm import published_metrics

Array = npt.NDArray[Any]
Command = Callable[..., Any]


def places(row: list[float], column: int) -> float:
    """0-based mean place of an entry among those equal to it."""
    better = sum(value > row[column] for value in row)
    return better + (sum(value == row[column] for value in row) - 1) / 2


def brute(scores: Array, mask: Array) -> dict[str, list[float]]:
    """0-based ranks of both directions, caption by caption and item by item."""
    each = mask.shape[1]
    kept = mask.reshape(-1).tolist()
    forward = [places(row, i // each) for i, row in enumerate(scores.tolist()) if kept[i]]
    backward = []
    for item in range(scores.shape[1]):
        column = [value if keep else -1e8 for value, keep in zip(scores[:, item].tolist(), kept, strict=True)]
        own = [places(column, each * item + c) for c in range(each) if mask[item, c]]
        backward.append(min(own, default=float("inf")))
    return {"text_to_visual": forward, "visual_to_text": backward}


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 12, (60, 15)).astype(np.float32)
    mask = random.random((15, 4)) < 0.7
    mask[3] = False  # an item without captions
    mask[4, 0] = True
    for given in (mask, np.ones_like(mask)):
        found = published_metrics(scores, given)
        for direction, expected in brute(scores, given).items():
            metrics = found[direction]
            for k in (1, 5, 10, 50):
                hits = [rank == 0 if k == 1 else rank < k for rank in expected]
                assert metrics[f"R@{k}"] == pytest.approx(100 * sum(hits) / len(hits))
            assert metrics["MedR"] == pytest.approx(np.median(expected) + 1)
            assert metrics["MeanR"] == pytest.approx(np.mean(expected) + 1)
            cube = metrics["R@1"] * metrics["R@5"] * metrics["R@10"]
            assert metrics["geometric"] ** 3 == pytest.approx(cube)
    assert published_metrics(scores) == published_metrics(scores, np.ones_like(mask))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Scores with hubs: items 0 to 4 are near everything. Test, banks, validation, a mask."""
    random = np.random.default_rng(0)
    hubs = np.where(np.arange(20) < 5, 0.25, 0.0)
    made = {}
    for name, rows, own in (("test", 60, 3), ("bank", 80, 4), ("gallery", 40, 2), ("val", 40, 2), ("val_bank", 80, 4)):
        scores = random.normal(0, 0.15, (rows, 20)) + hubs
        scores[np.arange(rows), np.arange(rows) // own] += 0.3
        made[name] = tmp_path / f"{name}.npy"
        np.save(made[name], scores.astype(np.float32))
    made["mask"] = tmp_path / "mask.pkl"
    made["mask"].write_bytes(pickle.dumps(random.random((20, 3)) < 0.9))
    return made


def numbers(line: str) -> list[float]:
    return [float(word) for word in line.replace("│", " ").split() if word.replace(".", "").isdigit()]


def lines_of(out: str) -> dict[str, list[float]]:
    rows = [line for line in out.splitlines() if ", before" in line or ", after" in line]
    return {re.sub(r"[^a-z, ]", "", row).strip(): numbers(row) for row in rows}


def test_before_and_after(nrccr_command: Command, files: dict[str, Path]) -> None:
    arguments = ["--sims_test_path", files["test"], "--sims_train_test_path", files["bank"]]
    done = nrccr_command("qbnorm", *arguments, "--test_query_masks_path", files["mask"])
    assert done.code == 0 and done.err == "", done.err
    rows = lines_of(done.out)
    mask = pickle.loads(files["mask"].read_bytes())
    before = published_metrics(np.load(files["test"]), mask)
    for direction, label in (("text_to_visual", "text to visual"), ("visual_to_text", "visual to text")):
        assert rows[f"{label}, before"] == [round(value, 1) for value in before[direction].values()]
    assert rows["text to visual, after"][0] > rows["text to visual, before"][0]
    assert "dis, beta 20, k 1" in done.out


@pytest.mark.parametrize("method", ["is", "dual_is", "dual_dis", "csls", "nnn", "dsl", "sinkhorn"])
def test_every_method(method: str, nrccr_command: Command, files: dict[str, Path]) -> None:
    arguments = ["--sims_test_path", files["test"], "--method", method, "--beta", 7, "--k", 2]
    if method not in ("dsl", "sinkhorn"):
        arguments += ["--sims_train_test_path", files["bank"]]
    if method.startswith("dual"):
        arguments += ["--gallery_bank_path", files["gallery"]]
    done = nrccr_command("qbnorm", *arguments)
    assert done.code == 0, done.err
    rows = lines_of(done.out)
    assert rows["text to visual, after"][0] > rows["text to visual, before"][0]


def test_tune_chooses_on_validation_alone(nrccr_command: Command, files: dict[str, Path]) -> None:
    arguments = ["--sims_test_path", files["test"], "--sims_train_test_path", files["bank"], "--method", "nnn"]
    held_out = ["--tune", "--sims_val_path", files["val"], "--sims_train_val_path", files["val_bank"]]
    done = nrccr_command("qbnorm", *arguments, *held_out)
    assert done.code == 0 and "chosen on validation: k=" in done.out, done.err
    chosen = done.out.splitlines()[0].split(", geometric")[0].removeprefix("chosen on validation: ")
    values = [part for pair in chosen.split(", ") for part in ("--" + pair.split("=")[0], pair.split("=")[1])]
    by_hand = nrccr_command("qbnorm", *arguments, *values)
    assert by_hand.out.splitlines() == done.out.splitlines()[1:]
    np.save(files["test"], np.load(files["test"])[::-1])
    again = nrccr_command("qbnorm", *arguments, *held_out)
    assert again.out.splitlines()[0] == done.out.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--method": "softmax"}, "choose one of is, dis"),
        ({"--beta": "0"}, "beta is 0.0"),
        ({"--k": "-1"}, "k is -1"),
        ({"--method": "dual_is"}, "--gallery_bank_path"),
        ({"--sims_train_test_path": None}, "--sims_train_test_path"),
        ({"--sims_train_test_path": "narrow"}, "both need the same items"),
        ({"--sims_test_path": "uneven"}, "grouped by item"),
        ({"--sims_test_path": "nan"}, "NaN"),
        ({"--sims_test_path": "flat"}, "give a matrix"),
        ({"--sims_test_path": "missing"}, "no such file"),
        ({"--test_query_masks_path": "flat"}, "give booleans of shape (20, 3)"),
        ({"--test_query_masks_path": "empty"}, "leaves out every caption"),
        ({"--tune": None, "--sims_val_path": "val"}, "go together"),
        ({"--tune": "", "--sims_val_path": "val"}, "--sims_train_val_path"),
    ],
)
def test_bad_input_is_one_line(
    options: dict[str, str | None], words: str, nrccr_command: Command, files: dict[str, Path], tmp_path: Path
) -> None:
    test = np.load(files["test"])
    bad = {"narrow": test[:, :19], "uneven": test[:59], "nan": test * np.nan, "flat": test[0]}
    for name, array in (bad | {"empty": np.zeros((20, 3), dtype=np.bool_)}).items():
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], array)
    files["missing"] = tmp_path / "missing.npy"
    given = {"--sims_test_path": "test", "--sims_train_test_path": "bank"} | options
    arguments: list[object] = []
    for option, value in given.items():
        if option == "--tune":
            arguments += [option] if value is not None else []
        elif value is not None:
            arguments += [option, files.get(value, value)]
    done = nrccr_command("qbnorm", *arguments)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and words in done.err


def test_the_published_numbers(nrccr_command: Command, shared: Path) -> None:
    folder = shared / "golden" / "qbnorm"
    expected = json.loads((folder / "expected.json").read_text())
    arguments = ["--sims_test_path", folder / "test.pkl", "--sims_train_test_path", folder / "bank.pkl"]
    for key, beta in (("20.000", 20), ("0.503", 1 / 1.99)):
        for k in (1, 3):
            done = nrccr_command("qbnorm", *arguments, "--beta", beta, "--k", k)
            assert done.code == 0, done.err
            rows = lines_of(done.out)
            assert rows["text to visual, after"] == list(expected[f"t2v_qbnorm_beta{key}_k{k}"].values())
            assert rows["text to visual, before"] == list(expected["t2v_test"].values())
            assert rows["visual to text, before"] == list(expected["v2t_test"].values())
    done = nrccr_command("qbnorm", *arguments, "--test_query_masks_path", folder / "query_masks.pkl")
    rows = lines_of(done.out)
    assert rows["text to visual, before"] == list(expected["t2v_test_masked"].values())
    assert rows["visual to text, before"] == list(expected["v2t_test_masked"].values())
    with np.load(folder / "arrays.npz") as arrays:
        ties, mask = arrays["test_with_ties"], arrays["query_masks"]
    for suffix, given in (("", None), ("_masked", mask)):
        found = published_metrics(ties, given)
        for name, direction in (("t2v", "text_to_visual"), ("v2t", "visual_to_text")):
            rounded = [round(value, 1) for value in found[direction].values()]
            assert rounded == list(expected[f"{name}_ties{suffix}"].values())
