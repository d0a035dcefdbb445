"""Query banks: captions of a split, with their items, embedded as the test's are, and where they lie on disk.

M bank captions, P their items, N test items, D joint-space width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nrccr.data.collections import Split
from nrccr.errors import UserError, first_line
from nrccr.evaluation.blocks import Cosines, dense, fits
from nrccr.evaluation.directions import Bank, Embeddings, Normalisation
from nrccr.evaluation.encode import encode_videos
from nrccr.evaluation.evaluate import encode, quality
from nrccr.evaluation.normalise import TRANSDUCTIVE
from nrccr.evaluation.qbnorm import settings_of
from nrccr.evaluation.score import Mixed
from nrccr.evaluation.tune import choose
from nrccr.files import atomic_path, digest_of, write_json
from nrccr.report.screen import counts_line
from nrccr.systems.nrccr.data import Queries, Reader
from nrccr.systems.retriever import Retriever, load_retriever
from nrccr.terminal import say

FOLDER = "bank"
ARRAYS = {"text_source": 2, "text_target": 2, "visual": 2, "query_ids": 1, "item_ids": 1}  # and their dimensions


def bank_run(
    path: Path,
    root: Path,
    overrides: list[str],
    split: Split,
    size: int,
    seed: int,
    transductive: bool,
    out: Path | None,
    device: str | None,
) -> None:
    """Sample a bank, embed it, score it against the test items, and write both.

    Args:
        path: run folder or published checkpoint.
        root: folder of the collections.
        overrides: `key=value`.
        split: where the captions come from; test only if `transductive`.
        size: how many captions.
        seed: of the draw.
        transductive: let test queries into the bank.
        out: folder to write; by default `bank` in the run folder.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: test queries without `transductive`, too few captions, no model or collection there.
    """
    if split == "test" and not transductive:
        raise UserError(
            "--split test: its queries are what a test measures; give train or val, or --transductive if results that "
            "looked at all test queries are what you want"
        )
    retriever = load_retriever(path, overrides, device)
    config = retriever.config
    reader = retriever.reader(root)
    queries = reader.sample(split, size, seed)
    say(counts_line(f"bank from {split}", {"captions": len(queries.query_ids), "items": len(queries.videos)}))
    batch_size = config.evaluation.batch_size
    with torch.inference_mode():
        embeddings = encode(retriever.network, queries, batch_size, retriever.device)
        tested = reader.queries("test")
        retriever.require_fitting(tested.videos)
        videos = tested.videos
        items = encode_videos(retriever.network, videos, batch_size, retriever.device)
    folder = bank_folder(path, out)
    record: dict[str, Any] = {
        "collection": reader.collection.name,
        "split": split,
        "size": len(queries.query_ids),
        "items": len(queries.videos),
        "seed": seed,
        "transductive": transductive,
        "checkpoint": str(retriever.checkpoint),
        "sha256": digest_of(retriever.checkpoint),
        "target_weight": config.evaluation.target_weight,
    }
    (folder / "bank.json").unlink(missing_ok=True)  # last to be written, first to go
    for stale in ("scores.npz", "gallery_scores.npz"):
        (folder / stale).unlink(missing_ok=True)
    vectors = {
        "text_source": embeddings.source,
        "text_target": embeddings.target,
        "visual": embeddings.visual,
    }
    ids = {"query_ids": queries.query_ids, "item_ids": queries.videos.ids}
    _save(folder / "bank.npz", vectors, ids)
    if fits((len(queries.query_ids), len(videos)), config.evaluation.memory_mb):
        halves = (Cosines(embeddings.source, items), Cosines(embeddings.target, items))
        names = {"item_ids": videos.ids}
        mixed = dense(Mixed(halves[0], halves[1], config.evaluation.target_weight))  # (M, N)
        _save(folder / "scores.npz", {"scores": mixed}, {"query_ids": queries.query_ids} | names)
        gallery = dense(Cosines(embeddings.visual, items))  # (P, N)
        _save(folder / "gallery_scores.npz", {"scores": gallery}, {"bank_item_ids": queries.videos.ids} | names)
    else:
        say("note: scores.npz left out, it needs more than evaluation.memory_mb; a test scores the bank by itself")
    write_json(folder / "bank.json", record)
    say(f"written: {folder}")


def bank_folder(path: Path, given: Path | None) -> Path:
    """Where the bank of a run or checkpoint lies."""
    return given if given is not None else (path if path.is_dir() else path.parent) / FOLDER


def normalisation_of(
    retriever: Retriever, reader: Reader, queries: Queries, split: Literal["val", "test"], folder: Path, tune: bool
) -> Normalisation | None:
    """The normalisation that `evaluation.normalise` asks for, with its bank; none for `none`.

    Args:
        retriever: the model.
        reader: of its collection.
        queries: the split to be tested.
        split: its name.
        folder: of the bank.
        tune: choose the parameters by SumR on the validation split.

    Raises:
        UserError: no bank, one of another model, one that test queries are in, nothing to tune or to tune on.
    """
    config = retriever.config.evaluation
    if config.normalise == "none":
        if tune:
            raise UserError("--tune: there is nothing to choose; give evaluation.normalise=dis or another method")
        return None
    settings = settings_of(config.normalise, config.beta, config.k, config.alpha)
    bank = None
    if settings.method not in TRANSDUCTIVE:
        bank = read_bank(folder, retriever)
        _refuse_test_queries(bank, queries, split, folder)
    if not tune:
        return Normalisation(settings, bank)
    if split == "val":
        raise UserError("--tune with --split val: parameters are chosen on val; test them on --split test")
    held_out = reader.queries("val")
    if bank is not None:
        _refuse_test_queries(bank, held_out, "val", folder)
    reached = quality(
        retriever.network,
        held_out,
        batch_size=config.batch_size,
        target_weight=config.target_weight,
        device=retriever.device,
        bank=bank,
        memory_mb=config.memory_mb,
    )
    settings, best = choose(settings.method, reached)
    chosen = ", ".join(f"{name}={value:g}" for name, value in settings.used().items())
    say(f"chosen on validation: {chosen}, SumR {best:.1f}")
    return Normalisation(settings, bank, tuned_on="val")


def read_bank(folder: Path, retriever: Retriever) -> Bank:
    """Read what `bank_run` wrote.

    Raises:
        UserError: no bank, a damaged one, or one of other weights.
    """
    where = f"make one with `nrccr bank`, into {folder}, or name its folder with --bank"
    try:
        record = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        with np.load(folder / "bank.npz", allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ARRAYS}
        split, seed, transductive = str(record["split"]), int(record["seed"]), bool(record["transductive"])
        digest = record["sha256"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no bank there; {where}") from error
    except Exception as error:  # zip files and JSON can be damaged in many ways
        raise UserError(f"{folder}: cannot be read as a bank ({first_line(error)}); {where}") from error
    sizes = {name: len(array) for name, array in found.items()}
    right = all(found[name].ndim == dimensions for name, dimensions in ARRAYS.items())
    if not right or sizes["text_source"] != sizes["query_ids"] or sizes["text_target"] != sizes["query_ids"]:
        raise UserError(f"{folder}/bank.npz: arrays do not fit together; {where}")
    if digest != digest_of(retriever.checkpoint):
        raise UserError(f"{folder}: made with other weights than {retriever.checkpoint}; {where}")
    source, target, visual = (
        torch.from_numpy(found[name]).to(retriever.device) for name in ("text_source", "text_target", "visual")
    )
    return Bank(Embeddings(source, target, visual), found["query_ids"].tolist(), split, seed, transductive)


def _refuse_test_queries(bank: Bank, queries: Queries, split: str, folder: Path) -> None:
    shared = set(bank.query_ids) & set(queries.query_ids)
    if not bank.transductive and (bank.split == split or shared):
        example = f" ({min(shared)} and {len(shared) - 1} others are in it)" if shared else ""
        raise UserError(
            f"{folder}: the bank comes from split {bank.split}, whose queries {split} asks for{example}; "
            "make another with `nrccr bank --split train`, or with --transductive"
        )


def _save(path: Path, arrays: dict[str, torch.Tensor], ids: dict[str, list[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        content: dict[str, Any] = {name: tensor.float().cpu().numpy() for name, tensor in arrays.items()}
        content |= {name: np.array(values) for name, values in ids.items()}
        np.savez(file, **content)
