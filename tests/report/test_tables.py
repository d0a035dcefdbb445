"""Tables from finished runs: which runs stand where, what is averaged, and the files that come out."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.config.schema import resolved_switches, to_yaml
from nrccr.errors import UserError
from nrccr.report.papers import METRICS, PAPER_TABLES, SUMR, row_of
from nrccr.report.runs import by_seed, find_runs
from nrccr.report.tables import BEGIN, END, TextTable, make_tables, to_latex, to_markdown, update_docs
from nrccr.systems.settings import load_config

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = CHECKOUT / "configs"
ROWS = [(table, row) for table in PAPER_TABLES for row in table.rows]
Finish = Callable[..., Path]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def finish(runs: Path) -> Finish:
    """A function that writes a finished run: its name, configuration, SumR, overrides, and changes of its metrics."""

    def write(name: str, config: str, sumr: float, *overrides: str, data: str = "", **changes: Any) -> Path:
        loaded = load_config(CONFIGS / (config if "/" in config else f"nrccr/{config}.yaml"), overrides)
        folder = runs / name
        (folder / "test").mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(loaded))
        if data:
            (folder / "run.json").write_text(json.dumps({"fingerprint": data}))
        direction = dict.fromkeys(METRICS, sumr / 6) | {"MeanR": 9.0}
        metrics = {
            "collection": loaded.data.collection,
            "split": "test",
            "switches": resolved_switches(loaded),
            "target_weight": loaded.evaluation.target_weight,
            "batch_size": loaded.evaluation.batch_size,
            "normalisation": {"method": "none", "scores": "minmax"},
            "text_to_visual": direction,
            "visual_to_text": direction,
            "SumR": sumr,
        }
        if loaded.model == "c2kd":
            for key in ("text_to_visual", "visual_to_text", "SumR", "normalisation", "target_weight"):
                del metrics[key]
            own = {"text_to_visual": direction | {"geometric_mean": 8.0}}
            metrics |= {"languages": dict.fromkeys(changes.pop("spoken", ("en", "zh")), own), "mean": own}
        (folder / "test" / "metrics.json").write_text(json.dumps(metrics | changes))
        return folder

    return write


def column(table: TextTable, name: str) -> dict[tuple[str, str], str]:
    """A column by the two words of its line; the label of a row holds for the lines below it."""
    at, found, label = list(table.head).index(name), {}, ""
    for line in table.lines:
        label = line[0] or label
        found[label, line[1]] = line[at]
    return found


def named(tables: list[TextTable], title: str) -> TextTable:
    return next(table for table in tables if table.title == title)


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_seeds_are_averaged_beside_the_paper(finish: Finish, runs: Path) -> None:
    sums = (360.0, 363.0, 369.0)
    for seed, sumr in enumerate(sums):
        finish(f"vatex-s{seed}", "vatex", sumr, f"seed={seed}", "text.model=/disk/bert-base-multilingual-cased")
    papers, others = make_tables([runs])
    assert others == []
    found = column(named(papers, "Video collections"), "SumR")
    mean, deviation = statistics.fmean(sums), statistics.stdev(sums)
    assert found["VATEX", "ours"] == f"{mean:.1f} ± {deviation:.1f}" == "364.0 ± 4.6"
    assert (found["VATEX", "paper"], found["VATEX", "published code"]) == ("364.7", "366.5")
    assert found["MSR-VTT-CN", "ours"] == "not run"
    assert column(named(papers, "Video collections"), "seeds")["VATEX", "ours"] == "3"
    # The ablation's last row is the same run, at the metrics that the paper prints there.
    assert column(named(papers, "Ablation on VATEX"), "SumR")["all (NRCCR)", "ours"] == "364.0 ± 4.6"
    cell = f"{mean / 6:.2f} ± {statistics.stdev([sumr / 6 for sumr in sums]):.2f}"
    assert column(named(papers, "Ablation on VATEX"), "V2T mAP")["all (NRCCR)", "ours"] == cell


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda value: getattr(value, "config", None))
def test_every_row_is_found_by_its_own_configuration(table: Any, row: Any, finish: Finish, runs: Path) -> None:
    config = load_config(CONFIGS / row.file)
    assert row_of(table, config, config.data.collection) is row
    if table.folder == "test":
        finish("one", row.file, 300.0)
        papers, others = make_tables([runs])
        assert others == []
        name, figure = ("SumR", "300.0") if table.languages is None else ("mean R@1", "50.0")
        assert column(named(papers, table.title), name)[row.label, "ours"] == figure


def test_what_differs_is_not_averaged_but_named(finish: Finish, runs: Path) -> None:
    finish("a-s0", "vatex", 360.0)
    finish("a-s1", "vatex", 362.0, "seed=1", "data.workers=0")
    finish("b-s0", "vatex", 370.0, "train.batch_size=64")
    finish("c-s0", "vatex", 380.0, target_weight=0.5)  # tested with another weight than trained with
    finish("d-s0", "vatex", 390.0, normalisation={"method": "dis", "scores": "raw"})
    (papers, others) = make_tables([runs])
    found = column(named(papers, "Video collections"), "SumR")
    own = {who: cell for (label, who), cell in found.items() if label == "VATEX" and who.startswith("ours")}
    assert others == [] and own == {
        "ours": "361.0 ± 1.4",
        "ours, train.batch_size=64": "370.0",
        "ours, evaluation.target_weight=0.5": "380.0",
        "ours, normalisation.method=dis": "390.0",
    }


def test_other_training_data_is_another_line(finish: Finish, runs: Path) -> None:
    for seed, data in enumerate(("aaaaaaaaaa", "aaaaaaaaaa", "bbbbbbbbbb")):
        finish(f"x-s{seed}", "vatex", 300.0 + seed, f"seed={seed}", data=data)
    found = column(named(make_tables([runs])[0], "Video collections"), "SumR")
    assert found["VATEX", "ours, data aaaaaaaa"] == "300.5 ± 0.7"
    assert found["VATEX", "ours, data bbbbbbbb"] == "302.0"


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("vatex-small", ()),
        ("vatex", ("text.pretrained=false",)),
        ("vatex", ("text.pretrained=false", "text.backbone.num_hidden_layers=2", "text.freeze=none")),
        ("vatex", ("text.model=xlm-roberta-base",)),
        ("vatex", ("joint.width=512",)),
        ("vatex", ("reading=corrected",)),
        ("vatex-paper", ()),
        ("vatex", ("switches.pooling=masked",)),
        ("vatex", ("loss.feature=0",)),
        ("generated", ()),
    ],
)
def test_another_model_reading_or_collection_has_a_table_of_its_own(
    config: str, overrides: tuple[str, ...], finish: Finish, runs: Path
) -> None:
    finish("mine-s0", config, 200.0, *overrides)
    finish("mine-s1", config, 210.0, *overrides, "seed=1")
    papers, (others,) = make_tables([runs])
    assert papers == make_tables([])[0]
    loaded = load_config(CONFIGS / (config if "/" in config else f"nrccr/{config}.yaml"), overrides)
    label = f"{loaded.data.collection}, {loaded.reading} reading"
    assert column(others, "SumR") == {("mine", label): "205.0 ± 7.1"}


def test_namesakes_outside_the_papers_tables_are_told_apart(finish: Finish, runs: Path) -> None:
    finish("a/small-s0", "vatex-small", 200.0)
    finish("b/small-s0", "vatex-small", 210.0, "loss.cycle=0")
    _, (others,) = make_tables([runs])
    assert column(others, "SumR") == {
        ("small", "vatex, released reading, loss.cycle=0.5"): "200.0",
        ("small", "vatex, released reading, loss.cycle=0.0"): "210.0",
    }


def test_text_to_text_has_a_table(finish: Finish, runs: Path) -> None:
    folder = finish("vatex-s0", "vatex", 360.0)
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    texts = {key: value for key, value in metrics.items() if key in ("collection", "split", "switches", "batch_size")}
    both = {"target_to_source": dict.fromkeys(METRICS, 80.0), "source_to_target": dict.fromkeys(METRICS, 79.0)}
    (folder / "test-text-to-text").mkdir()
    (folder / "test-text-to-text" / "metrics.json").write_text(json.dumps(texts | both))
    papers, others = make_tables([runs])
    table = named(papers, "Text to text on VATEX")
    assert others == [] and column(table, "zh→en mAP") == {
        ("basic", "paper"): "61.84",
        ("basic", "ours"): "not run",
        ("NRCCR", "paper"): "81.28",
        ("NRCCR", "ours"): "80.00",
    }
    assert column(table, "en→zh mAP")["NRCCR", "ours"] == "79.00"


def test_c2kd_stands_beside_the_others_by_language(finish: Finish, runs: Path) -> None:
    finish("vatex-s0", "vatex", 360.0)
    for seed, sumr in enumerate((300.0, 306.0)):
        teachers = f"c2kd.teachers=[/disk/teacher-a-s{seed},/disk/teacher-b-s{seed}]"
        finish(f"student-s{seed}", "c2kd/vatex-student.yaml", sumr, f"seed={seed}", teachers)
    finish("english-s0", "c2kd/vatex-zero-shot.yaml", 240.0, spoken=["en"])
    finish("tiny-s0", "c2kd/multi30k-small-zero-shot.yaml", 120.0, spoken=["en", "de"])
    papers, (others,) = make_tables([runs])
    assert column(named(papers, "Video collections"), "SumR")["VATEX", "ours"] == "360.0"
    table = named(papers, "C2KD on VATEX, text to video")
    assert list(table.head)[2:] == [
        *("en R@1", "zh R@1", "mean R@1", "mean R@5", "mean R@10", "mean MedR", "mean geom.", "seeds", "config"),
    ]
    student = next(who for label, who in column(table, "zh R@1") if label == "C2KD")
    assert student == "ours, c2kd.teachers=['teacher-a', 'teacher-b']"
    assert column(table, "zh R@1")["C2KD", student] == column(table, "mean R@1")["C2KD", student] == "50.5 ± 0.7"
    assert column(table, "en R@1")["zero-shot", "ours"] == "40.0" and column(table, "zh R@1")["zero-shot", "ours"] == ""
    assert column(table, "mean R@1")["translate-train", "ours"] == "not run"
    assert column(others, "mean R@1") == {("tiny", "multi30k, corrected reading"): "20.0"}


def test_only_finished_tests_of_the_test_split_count(finish: Finish, runs: Path) -> None:
    finish("val-s0", "vatex", 1.0, split="val")
    (finish("unfinished-s0", "vatex", 2.0) / "test" / "metrics.json").unlink()
    finish(".half.tmp", "vatex", 3.0)
    finish("deep/er/vatex-s0", "vatex", 4.0)
    found = find_runs([runs, runs / "deep"], PAPER_TABLES[0])
    assert [run.folder for run in found] == [runs / "deep" / "er" / "vatex-s0"]


def test_bad_runs_are_one_line(finish: Finish, runs: Path, tmp_path: Path) -> None:
    assert complaint(lambda: make_tables([tmp_path / "no"])).startswith(f"{tmp_path / 'no'}: no such folder")
    first, second = finish("one-s0", "vatex", 1.0), finish("two-s0", "vatex", 2.0)
    assert complaint(lambda: make_tables([runs])).startswith(f"{first} and {second}: the same configuration and seed")
    metrics = second / "test" / "metrics.json"
    other = "not the metrics of a finished run"
    whole = metrics.read_text().replace("SumR", "sum")
    cases = {"{": "cannot be read", "[]": "holds no JSON object", "{}": other, '{"collection": "vatex"}': other}
    for text, says in {**cases, whole: other}.items():
        metrics.write_text(text)
        assert complaint(lambda: make_tables([runs])).startswith(f"{metrics}: {says}")
    (second / "config.yaml").write_text("nonsense: 1\n")
    assert "unknown key nonsense" in complaint(lambda: make_tables([runs]))


def test_groups_do_not_depend_on_the_order_on_disk(finish: Finish, runs: Path) -> None:
    finish("b", "vatex", 1.0, "seed=1")
    finish("a", "vatex", 2.0, "seed=2")
    found = find_runs([runs], PAPER_TABLES[0])
    for order in (found, found[::-1]):
        (group,) = by_seed(order)
        assert [run.config.seed for run in group.runs] == [1, 2] and group.numbers(SUMR) == [1.0, 2.0]


def test_markdown_and_latex() -> None:
    table = TextTable(
        "A & B", ["", "", "R@1", "config"], [["x_1", "ours", "1.0 ± 0.5", "a.yaml"], ["", "50 %", "", ""]]
    )
    assert to_markdown([table]) == (
        "**A & B**\n\n|  |  | R@1 | config |\n| --- | --- | ---: | ---: |\n"
        "| x_1 | ours | 1.0 ± 0.5 | a.yaml |\n|  | 50 % |  |  |\n"
    )
    assert to_latex([table]).splitlines() == [
        r"\begin{table}",
        r"\caption{A \& B}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r" &  & R@1 \\",
        r"\midrule",
        r"x\_1 & ours & 1.0 $\pm$ 0.5 \\",
        r" & 50 \% &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_command(finish: Finish, runs: Path, tmp_path: Path, nrccr_command: Callable[..., Any]) -> None:
    finish("vatex-s0", "vatex", 360.0)
    finish("small-s0", "vatex-small", 123.4)
    docs = tmp_path / "docs.md"
    docs.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    done = nrccr_command("table", "--runs", runs, "--out", tmp_path / "out", "--docs", docs)
    assert done.code == 0 and done.err == "", done.err
    papers, others = make_tables([runs])
    assert (tmp_path / "out" / "tables.md").read_text(encoding="utf-8") == to_markdown([*papers, *others])
    assert (tmp_path / "out" / "tables.tex").read_text(encoding="utf-8") == to_latex([*papers, *others])
    for words in ("366.5", "360.0", "123.4", "Other runs"):
        assert words in done.out
    # The docs get the papers' tables alone; a second time changes nothing.
    text = docs.read_text(encoding="utf-8")
    assert text == f"before\n{BEGIN}\n\n{to_markdown(papers)}\n{END}\nafter\n"
    assert nrccr_command("table", "--runs", runs, "--docs", docs).code == 0
    assert docs.read_text(encoding="utf-8") == text


def test_docs_without_marks_stay_as_they_are(tmp_path: Path, nrccr_command: Callable[..., Any]) -> None:
    docs = tmp_path / "docs.md"
    for text in ("nothing\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n", f"{BEGIN}\n{END}\n{END}\n"):
        docs.write_text(text, encoding="utf-8")
        done = nrccr_command("table", "--runs", tmp_path, "--docs", docs)
        assert done.code == 2 and done.err.startswith(f"nrccr: {docs}: needs the lines")
        assert docs.read_text(encoding="utf-8") == text
    assert complaint(lambda: update_docs(tmp_path / "no.md", [])).startswith(f"{tmp_path / 'no.md'}: cannot be read")


def test_docs_in_the_checkout_are_up_to_date(tmp_path: Path) -> None:
    kept = CHECKOUT / "docs" / "reproduction.md"
    copy = tmp_path / "reproduction.md"
    copy.write_bytes(kept.read_bytes())
    update_docs(copy, make_tables([])[0])
    assert copy.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), "run nrccr table --docs"


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda value: getattr(value, "config", None))
def test_headers_of_configurations_have_the_published_sum(table: Any, row: Any) -> None:
    header = (CONFIGS / row.file).read_text(encoding="utf-8")
    said = re.search(r"^#   paper  SumR (\d+\.\d)", header, re.MULTILINE)
    for figures in list(row.figures.values())[:1]:
        if SUMR in figures:
            assert said is not None and said[1] == figures[SUMR]
    if not row.figures:
        assert said is None


def test_tuned_tests_are_averaged_apart_from_plain_ones(runs: Path, finish: Finish) -> None:
    """Whatever was chosen for each seed; a run stands in both groups."""
    for seed, weight in ((0, 0.5), (1, 0.65)):
        folder = finish(f"vatex-s{seed}", "vatex", 300.0 + seed, f"seed={seed}")
        tuned = json.loads((folder / "test" / "metrics.json").read_text())
        tuned |= {"SumR": 320.0 + seed, "target_weight": weight, "tuned": {"split": "val"}}
        tuned |= {"normalisation": {"method": "dis", "beta": 10.0 + seed, "k": 1, "scores": "raw"}}
        (folder / "test-tuned").mkdir()
        (folder / "test-tuned" / "metrics.json").write_text(json.dumps(tuned))
    plain, tuned = by_seed(find_runs([runs], PAPER_TABLES[0]))
    assert plain.numbers(SUMR) == [300, 301] and tuned.numbers(SUMR) == [320, 321]
    assert tuned.first.values["evaluation.target_weight"] == "tuned"


def test_several_languages_and_what_was_tuned(finish: Finish, runs: Path) -> None:
    """Every language, the mean with the rank variance; what was chosen, beside the configured weight."""
    folder = finish("mine-s0", "quartet/generated.yaml", 200.0)
    direction = dict.fromkeys(METRICS, 10.0)
    both = {"text_to_visual": direction, "visual_to_text": direction}
    together = {"languages": ["de", "zh"], "mean": {**both, "SumR": 190.0}, "rank_variance": 4.25}
    chosen = {"target_weight": {"configured": 0.55, "chosen": 0.9}, "normalisation": {"chosen": {"method": "none"}}}
    for test, more in (("test", 0.0), ("test-tuned", 5.0)):
        for place, own in (("", 200.0), ("zh", 180.0)):
            (folder / test / place).mkdir(parents=True, exist_ok=True)
            metrics = {**both, "SumR": own + more, "queries_in": place or "de", "untuned": {"SumR": own}}
            path = folder / test / place / "metrics.json"
            metrics |= json.loads(path.read_text()) if path.is_file() else {}
            if test == "test-tuned":
                method = {"method": "csls", "k": 10} if place else {"method": "none"}
                metrics |= {"split": "test", "collection": "generated"}
                metrics["tuned"] = chosen | {"normalisation": {"chosen": method}}
            path.write_text(json.dumps(metrics))
        (folder / test / "languages.json").write_text(json.dumps(together))
    _, others = make_tables([runs])
    lines = named(others, "Several query languages").lines
    assert [line[:2] for line in lines] == [
        [run, language] for run in ("mine-s0", "mine-s0, tuned") for language in ("de", "zh", "mean")
    ]
    assert [line[-2:] for line in lines[:3]] == [["200.0", ""], ["180.0", ""], ["190.0", "4.2"]]
    assert named(others, "Tuned on validation").lines == [
        ["mine-s0", "de", "0.90", "none", "205.0", "0.55", "200.0"],
        ["mine-s0", "zh", "0.90", "csls, k 10", "185.0", "0.55", "180.0"],
    ]
    (folder / "test" / "languages.json").write_text('{"languages": ["de"]}')
    with pytest.raises(UserError, match=r"languages\.json: not what a test writes"):
        make_tables([runs])
