"""Curves of a training: every number of the log is in the rows, and nothing that is none."""

from __future__ import annotations

from nrccr.report.curves import parts, training_curves, validation_curves
from nrccr.report.page import draw
from tests.report.runs import finished_run

LOG = [
    {"kind": "train", "step": 2, "epoch": 1, "learning_rate": 0.1, "source_loss": 4.0, "total": 5.0,
     "discriminator_source_accuracy": 0.75, "gradient_norm": 2.0, "step_seconds": 1.0},
    {"kind": "validation", "step": 3, "epoch": 1, "score": 30.0, "seconds": 2.0,
     "text_to_visual": {"R@1": 5.0, "R@5": 10.0, "R@10": 15.0, "MedR": 4}, "visual_to_text": {"R@1": None},
     "SumR": 60.0},
    {"kind": "train", "step": 4, "epoch": 2, "learning_rate": 0.05, "source_loss": 3.0, "total": 4.5,
     "cycle_loss": True, "feature_loss": "x"},
    {"kind": "validation", "step": 6, "epoch": 2, "score": 40.0, "text_to_visual": {"R@1": 7.0}, "SumR": 70.0},
]  # fmt: skip
BY_LANGUAGE = [
    {"kind": "validation", "step": 3, "epoch": 1, "score": 12.0,
     "mean": {"text_to_visual": {"R@1": 1.0}, "visual_to_text": {"R@1": 2.0}, "SumR": 9.0}, "languages": {}},
]  # fmt: skip


def test_rows_are_the_log() -> None:
    made = {part.name: part for part in parts([finished_run("a", log=LOG)])}
    assert list(made) == ["losses", "validation", "learning-rate", "discriminator"]
    assert made["losses"].rows == [
        {"run": "a", "name": "source_loss", "training step": 2, "value": 4.0},
        {"run": "a", "name": "source_loss", "training step": 4, "value": 3.0},
        {"run": "a", "name": "total", "training step": 2, "value": 5.0},
        {"run": "a", "name": "total", "training step": 4, "value": 4.5},
    ]
    assert [row["value"] for row in made["learning-rate"].rows] == [0.1, 0.05]
    assert [row["value"] for row in made["discriminator"].rows] == [75.0]
    validation = {(row["name"], row["epoch"]): row["value"] for row in made["validation"].rows}
    assert validation == {
        ("text to visual R@1", 1): 5.0,
        ("text to visual R@1", 2): 7.0,
        ("text to visual R@5", 1): 10.0,
        ("text to visual R@10", 1): 15.0,
        ("SumR", 1): 60.0,
        ("SumR", 2): 70.0,
        ("score", 1): 30.0,
        ("score", 2): 40.0,
    }
    assert "total ends at 4.5 (a)" in made["losses"].alt


def test_languages_give_their_mean() -> None:
    curves = {curve.name: curve for curve in validation_curves(finished_run("c", log=BY_LANGUAGE))}
    assert {name: list(curve.values) for name, curve in curves.items()} == {
        "text to visual R@1": [1.0], "visual to text R@1": [2.0], "SumR": [9.0], "score": [12.0],
    }  # fmt: skip
    assert curves["score"].best == 2


def test_figures_show_every_number_of_every_run_with_axes_named() -> None:
    runs = [finished_run("a", log=LOG), finished_run("b", log=[*LOG, *BY_LANGUAGE])]
    for part in parts(runs):
        assert part.figure is not None
        shown = [axes for axes in part.figure.axes if axes.get_visible()]
        assert len(shown) == len({row["name"] for row in part.rows})
        assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title() for axes in shown)
        assert len(part.figure.legends[0].get_texts()) == 2
        for axes in shown:
            lines = [line for line in axes.get_lines() if line.get_label() in ("a", "b")]
            assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines)
            own = [row for row in part.rows if str(row["name"]).replace("_", " ") == axes.get_title()]
            assert sorted(value for line in lines for value in line.get_ydata()) == sorted(row["value"] for row in own)


def test_a_run_without_log_has_no_curves() -> None:
    assert parts([finished_run("a")]) == [] and training_curves(finished_run("a")) == []


def test_stars_mark_the_kept_epoch() -> None:
    part = next(part for part in parts([finished_run("a", log=LOG)]) if part.name == "validation")
    assert part.figure is not None and draw(part) is not None
    stars = {axes.get_title(): line.get_xydata().tolist() for axes in part.figure.axes for line in axes.get_lines()
             if line.get_marker() == "*"}  # fmt: skip
    assert stars == {"text to visual R@1": [[2.0, 7.0]], "SumR": [[2.0, 70.0]], "score": [[2.0, 40.0]]}


def test_numbers_of_any_size_are_drawn() -> None:
    lines = [
        {"kind": "train", "step": step, "total": value, "learning_rate": 10**99}
        for step, value in enumerate([1e99, -1e99, 5e-324, 0, 10**99])
    ]
    part, rate = parts(
        [finished_run("a", log=[*lines, {"kind": "train", "step": 2**52, "total": 1e300, "x": 10**299}])]
    )
    assert draw(part) is not None and draw(rate) is not None
    assert [row["value"] for row in part.rows] == [1e99, -1e99, 5e-324, 0.0, 1e99]
