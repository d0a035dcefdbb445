"""`nrccr test`: a run or a published checkpoint."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nrccr.cli.launch import in_processes
from nrccr.cli.options import Devices, Overrides, Root, SplitOption, split_of
from nrccr.config.choices import TEXT_TO_TEXT
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config.schema import Config
    from nrccr.data.queries import Split
    from nrccr.evaluation.choice import Choice
    from nrccr.evaluation.rule import Rule
    from nrccr.systems.retriever import Retriever


def test(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    overrides: Overrides = None,
    split: SplitOption = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: <RUN_DIR>/<split>, or with -text-to-text or -tuned after it."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="text-to-visual, or text-to-text: queries against their translations.")
    ] = "text-to-visual",
    by_length: Annotated[bool, typer.Option("--by-length", help="Also recalls by the query's length.")] = False,
    device: Devices = None,
    bank: Annotated[
        Path | None,
        typer.Option(help="Folder of the bank for evaluation.normalise or --tune; default: <RUN_DIR>/bank."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Choose weight and normalisation on the validation split; with evaluation.normalise=METHOD its "
            "beta, k and alpha alone.",
        ),
    ] = False,
    trec: Annotated[Path | None, typer.Option(help="Folder for TREC files: run.trec, qrels.trec.")] = None,
) -> None:
    """Test a run or a published checkpoint: writes metrics.json and ranks.tsv, prints a table."""
    if task not in ("text-to-visual", TEXT_TO_TEXT):
        raise UserError(f"--task {task}: give text-to-visual or text-to-text")

    among_texts = task == TEXT_TO_TEXT
    options = EvaluationOptions(overrides or [], split_of(split), out, device, among_texts, by_length, bank, tune, trec)
    in_processes(device, lambda: test_run(path, root, options))


@dataclass(frozen=True)
class EvaluationOptions:
    """What a test is asked for.

    Attributes:
        overrides: `key=value`, over the recorded configuration.
        split: the split to test on.
        out: where to write; None takes the run folder, or the folder of the checkpoint.
        device: see nrccr.distributed.choose_device.
        among_texts: rank the queries' translations, not the items.
        by_length: also recalls by the query's length.
        bank: folder of the bank for `evaluation.normalise` or `tune`; None takes the run's.
        tune: choose weight and normalisation on the validation split, or the parameters of the one that is set.
        trec: folder for TREC files; None writes none.
    """

    overrides: Sequence[str] = ()
    split: Literal["test", "val"] = "test"
    out: Path | None = None
    device: str | None = None
    among_texts: bool = False
    by_length: bool = False
    bank: Path | None = None
    tune: bool = False
    trec: Path | None = None


def test_run(path: Path, root: Path, options: EvaluationOptions) -> None:
    """Test a run or a checkpoint: tables, and files in `options.out` or the folder of the split.

    Raises:
        UserError: no model, no such split, features or a bank that do not fit, a folder that cannot be written.
    """
    from nrccr.cli.bank import bank_folder
    from nrccr.config.schema import resolved_switches
    from nrccr.data.queries import among_texts
    from nrccr.evaluation.banks import require_apart
    from nrccr.evaluation.encode import encode_split
    from nrccr.evaluation.evaluate import evaluate
    from nrccr.evaluation.languages import write_together
    from nrccr.evaluation.outputs import written
    from nrccr.evaluation.rule import Rule
    from nrccr.evaluation.trec import trec_files
    from nrccr.files import refuse_links
    from nrccr.processes import is_first
    from nrccr.report.screen import counts_line, test_tables, together_table
    from nrccr.systems.base import splits_of
    from nrccr.systems.loading import load_retriever
    from nrccr.terminal import say

    retriever = load_retriever(path, options.overrides, options.device)
    config = retriever.config
    _require_together(config, options)
    both = options.tune and config.evaluation.normalise == "none"  # the weight, and which method
    kind = TEXT_TO_TEXT if options.among_texts else "tuned" if both else ""
    name = f"{options.split}-{kind}" if kind else options.split
    run = path if path.is_dir() else path.parent
    folder = options.out if options.out is not None else run / name
    _require_writable(folder, "--out")
    if options.trec is not None:
        _require_writable(options.trec, "--trec")
    rule = replace(Rule.of(config, retriever.device), by_length=options.by_length)
    choices = _choices(retriever, path, root, rule, options.bank) if both else None  # before test queries are read
    splits = list(splits_of(retriever, root, options.split))
    for split in splits:
        inside = [Path(split.folder, file) for file in written(list(split.queries) if split.by_language else [])]
        if options.out is None:
            refuse_links(run, [Path(name, file) for file in inside])
        else:
            refuse_links(folder, inside)
        if options.trec is not None:
            refuse_links(options.trec, trec_files(split))
    rules = [rule] * len(splits)
    if choices is not None:
        for split, chosen in zip(splits, choices, strict=True):
            for language, choice in chosen.items():
                if choice.bank is not None:
                    require_apart({language: choice.bank.query_ids}, choice.bank.split, split)
        rules = [replace(rule, choices=chosen) for chosen in choices]
    if options.among_texts:
        rules = [replace(rule, save_scores=False)] * len(splits)
    elif config.evaluation.normalise != "none":  # all banks are read before anything is written
        bank = bank_folder(path, options.bank)
        held_out = list(splits_of(retriever, root, "val")) if options.tune else [None] * len(splits)
        rules = [_normalising(retriever, rule, *pair, bank) for pair in zip(splits, held_out, strict=True)]
    found: dict[str, dict[str, Any]] = {}
    for split, rule in zip(splits, rules, strict=True):
        label = f"{split.name}, queries in {split.language}" if len(splits) > 1 else split.name
        say(counts_line(label, dict(split.counts)))
        header = {
            "collection": split.collection,
            **({"queries_in": split.language} if len(splits) > 1 else {}),
            "split": split.name,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        }
        if options.trec is not None:
            rule = replace(rule, trec=options.trec / split.folder)
        searched = among_texts(split) if options.among_texts else split
        if not is_first():  # all encode, the first ranks and writes
            with rule.encoding():
                deque(encode_split(retriever.network, searched, rule.batch_size, rule.device), maxlen=0)
            continue
        found[split.language] = evaluate(retriever.network, searched, rule, folder / split.folder, header)
        for table in test_tables(found[split.language], config):
            say(table)
    if len(found) > 1 and not options.among_texts:
        say(together_table(found, write_together(folder, found, [folder / split.folder for split in splits])))
    say(f"written: {folder}" + (f", {options.trec}" if options.trec is not None else ""))


def _choices(retriever: Retriever, path: Path, root: Path, rule: Rule, bank: Path | None) -> list[dict[str, Choice]]:
    """Weight and normalisation of each folder of the test, with one line about each."""
    from nrccr.cli.bank import bank_folder
    from nrccr.report.screen import choice_line
    from nrccr.systems.tuning import choose_on_validation
    from nrccr.terminal import say

    folder = bank_folder(path, bank)
    is_there = bank is not None or (folder / "bank.json").is_file()
    started = time.monotonic()
    found = choose_on_validation(retriever, root, rule, folder if is_there else None)
    seconds = time.monotonic() - started
    several = sum(map(len, found)) > 1
    for language, choice in ((language, choice) for chosen in found for language, choice in chosen.items()):
        say(choice_line(choice, language if several else ""))
    say(f"chosen in {seconds:.0f} s")
    return found


def _normalising(retriever: Retriever, rule: Rule, split: Split, held_out: Split | None, bank: Path) -> Rule:
    """The rule with the normalisation of `evaluation.normalise`, tuned on `held_out` if there is one."""
    from nrccr.evaluation.banks import BankFolder, normalisation_with, tuned
    from nrccr.evaluation.tune import settings_of
    from nrccr.terminal import say

    evaluation = retriever.config.evaluation
    settings = settings_of(evaluation.normalise, evaluation.beta, evaluation.k, evaluation.alpha)
    place = BankFolder(bank / split.folder, retriever.checkpoint)
    normalisation = normalisation_with(settings, place, split, retriever.device)
    if held_out is not None:
        normalisation, best = tuned(retriever.network, normalisation, held_out, rule, place)
        chosen = ", ".join(f"{name}={value:g}" for name, value in normalisation.settings.used().items())
        say(f"chosen on validation: {chosen}, SumR {best:.1f}")
    return replace(rule, normalisation=normalisation)


def _require_together(config: Config, options: EvaluationOptions) -> None:
    """Options that need each other, exclude each other, or do nothing for this model."""
    from nrccr.config.keys import declared
    from nrccr.config.yaml import parse_override
    from nrccr.evaluation.normalise import TRANSDUCTIVE

    method = config.evaluation.normalise
    is_read = config.model in config.readers(declared(type(config))["evaluation.normalise"])
    if options.bank is not None:
        if not is_read:
            raise UserError(f"--bank: scores of model={config.model} are not normalised by it; leave it out")
        if method == "none" and not options.tune:
            raise UserError("--bank: no scores are normalised; give evaluation.normalise=dis or another method, "
                            "or --tune")  # fmt: skip
        if method in TRANSDUCTIVE:
            raise UserError(f"--bank: {method} uses no bank; leave it out")
    if options.among_texts and (options.tune or method != "none"):
        raise UserError("--task text-to-text: scores among texts are not normalised; leave out evaluation.normalise")
    if options.tune and options.split == "val":
        raise UserError("--tune with --split val: parameters are chosen on val; test them on --split test")
    chosen = ["beta", "k", "alpha", *(["target_weight"] if method == "none" else [])]
    layers = [parse_override(override) for override in options.overrides] if options.tune else []
    for key in (f"evaluation.{name}" for name in chosen):
        if any(layer.sets(key) for layer in layers):
            raise UserError(f"--tune chooses {key}; leave it out")


def _require_writable(folder: Path, option: str) -> None:
    """Find out before hours of encoding that results cannot be written."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with {option}")
