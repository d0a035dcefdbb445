"""`nrccr test`: a run or a published checkpoint."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nrccr.cli.launch import in_processes
from nrccr.cli.options import Devices, Overrides, Root, SplitOption, split_of
from nrccr.config.choices import TEXT_TO_TEXT
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config.schema import Config
    from nrccr.data.queries import Split
    from nrccr.evaluation.rule import Rule
    from nrccr.systems.retriever import Retriever


def test(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    overrides: Overrides = None,
    split: SplitOption = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: <RUN_DIR>/<split>, or <RUN_DIR>/<split>-text-to-text."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="text-to-visual, or text-to-text: queries against their translations.")
    ] = "text-to-visual",
    by_length: Annotated[bool, typer.Option("--by-length", help="Also recalls by the query's length.")] = False,
    device: Devices = None,
    bank: Annotated[
        Path | None, typer.Option(help="Folder of the bank for evaluation.normalise; default: <RUN_DIR>/bank.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose beta, k and alpha of evaluation.normalise on the validation split.")
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
        bank: folder of the bank for `evaluation.normalise`; None takes the run's.
        tune: choose the normalisation's parameters on the validation split.
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
    from nrccr.evaluation.encode import encode_split
    from nrccr.evaluation.evaluate import evaluate
    from nrccr.evaluation.outputs import written
    from nrccr.evaluation.rule import Rule
    from nrccr.evaluation.trec import trec_files
    from nrccr.files import refuse_links
    from nrccr.processes import is_first
    from nrccr.report.screen import counts_line, test_tables
    from nrccr.systems.base import splits_of
    from nrccr.systems.loading import load_retriever
    from nrccr.terminal import say

    retriever = load_retriever(path, options.overrides, options.device)
    config = retriever.config
    _require_together(config, options)
    name = f"{options.split}-{TEXT_TO_TEXT}" if options.among_texts else options.split
    run = path if path.is_dir() else path.parent
    folder = options.out if options.out is not None else run / name
    _require_writable(folder, "--out")
    if options.trec is not None:
        _require_writable(options.trec, "--trec")
    splits = list(splits_of(retriever, root, options.split))
    for split in splits:
        inside = [Path(split.folder, file) for file in written(list(split.queries) if split.by_language else [])]
        if options.out is None:
            refuse_links(run, [Path(name, file) for file in inside])
        else:
            refuse_links(folder, inside)
        if options.trec is not None:
            refuse_links(options.trec, trec_files(split))
    rule = replace(Rule.of(config, retriever.device), by_length=options.by_length)
    rules = [rule] * len(splits)
    if options.among_texts:
        rules = [replace(rule, save_scores=False)] * len(splits)
    elif config.evaluation.normalise != "none":  # all banks are read before anything is written
        bank = bank_folder(path, options.bank)
        held_out = list(splits_of(retriever, root, "val")) if options.tune else [None] * len(splits)
        rules = [_normalising(retriever, rule, *both, bank) for both in zip(splits, held_out, strict=True)]
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
        metrics = evaluate(retriever.network, searched, rule, folder / split.folder, header)
        for table in test_tables(metrics, config):
            say(table)
    say(f"written: {folder}" + (f", {options.trec}" if options.trec is not None else ""))


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
    from nrccr.evaluation.normalise import TRANSDUCTIVE

    method = config.evaluation.normalise
    given = {"--tune": options.tune, "--bank": options.bank is not None}
    for option in (option for option, is_given in given.items() if is_given):
        if config.model not in config.readers(declared(type(config))["evaluation.normalise"]):
            raise UserError(f"{option}: scores of model={config.model} are not normalised; leave it out")
        if method == "none":
            raise UserError(f"{option}: no scores are normalised; give evaluation.normalise=dis or another method")
        if option == "--bank" and method in TRANSDUCTIVE:
            raise UserError(f"--bank: {method} uses no bank; leave it out")
    if options.among_texts and (options.tune or method != "none"):
        raise UserError("--task text-to-text: scores among texts are not normalised; leave out evaluation.normalise")
    if options.tune and options.split == "val":
        raise UserError("--tune with --split val: parameters are chosen on val; test them on --split test")


def _require_writable(folder: Path, option: str) -> None:
    """Find out before hours of encoding that results cannot be written."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with {option}")
