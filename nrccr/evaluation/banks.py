"""Query banks: captions of a split and their items, embedded like the test split, and their files.

M bank captions, P their items, N test items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrccr.data.queries import Split
from nrccr.errors import UserError, first_line
from nrccr.evaluation.blocks import Cosines, dense, fits
from nrccr.evaluation.directions import Bank, Directions, Normalisation
from nrccr.evaluation.encode import Embeddings, Encoder, encode_gallery, encode_split
from nrccr.evaluation.normalise import TRANSDUCTIVE, Settings
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.tune import choose, quality
from nrccr.files import atomic_path, digest_of, read_json, write_json
from nrccr.processes import is_first
from nrccr.sizes import require_npz

SIDES = ("text_source", "text_target")
WRITTEN = ("bank.json", "bank.npz", "scores.npz", "gallery_scores.npz")
ARRAYS = {"text_source": 2, "text_target": 2, "visual": 2, "query_ids": 1, "item_ids": 1}  # and their dimensions


@dataclass(frozen=True)
class BankFolder:
    """The folder of the query bank of some weights.

    Attributes:
        path: the folder.
        checkpoint: the weights' file.
    """

    path: Path
    checkpoint: Path


def write_bank(
    network: Encoder, drawn: Split, tested: Split, rule: Rule, place: BankFolder, draw: dict[str, Any]
) -> bool:
    """Embed a bank, score it against the test items, and write both.

    Args:
        network: the model.
        drawn: the bank's captions, and their items as gallery.
        tested: the test split.
        rule: how they are encoded and mixed.
        place: folder to write, and the weights' file.
        draw: seed and whether test queries may be in it, for `bank.json`.

    Returns:
        whether the score matrices were written too; they are left out where they exceed `rule.memory_mb`.

    Raises:
        UserError: an embedding is not finite.
    """
    folder, queries = place.path, drawn.headline
    with rule.encoding():
        _, encoded = next(encode_split(network, drawn, rule.batch_size, rule.device))
        items = encode_gallery(network, tested, rule.batch_size, rule.device)  # (N, D)
    written = fits((len(queries.ids), len(items)), rule.memory_mb)
    if not is_first():  # all encode, the first writes
        return written
    bank = encoded.embeddings
    for stale in ("bank.json", "scores.npz", "gallery_scores.npz"):  # bank.json is the last written, the first to go
        (folder / stale).unlink(missing_ok=True)
    vectors = {"text_source": bank.source, "text_target": bank.target, "visual": bank.visual}
    ids = {"query_ids": queries.ids, "item_ids": drawn.gallery.ids}
    _save(folder / "bank.npz", vectors, ids)
    if written:
        names = {"item_ids": tested.gallery.ids}
        across = Directions(Embeddings(bank.source, bank.target, items), "raw", rule.memory_mb)
        mixed = dense(across.plain(rule.target_weight)[0])  # (M, N)
        _save(folder / "scores.npz", {"scores": mixed}, {"query_ids": queries.ids} | names)
        gallery = dense(Cosines(bank.visual, items))  # (P, N)
        _save(folder / "gallery_scores.npz", {"scores": gallery}, {"bank_item_ids": drawn.gallery.ids} | names)
    record = {
        "collection": drawn.collection,
        "split": drawn.name,
        "size": len(queries.ids),
        "items": len(drawn.gallery),
        **draw,
        "checkpoint": str(place.checkpoint),
        "sha256": digest_of(place.checkpoint),
        "target_weight": rule.target_weight,
    }
    write_json(folder / "bank.json", record)
    return written


def sampled_banks(network: Encoder, drawn: Split, tested: Split, rule: Rule, seed: int) -> dict[str, Bank]:
    """Banks by query language that are embedded now and not written.

    Args:
        network: the model.
        drawn: the banks' captions, and their items as gallery.
        tested: the split whose scores they will normalise.
        rule: how they are encoded.
        seed: of the draw, for the record.

    Raises:
        UserError: an embedding is not finite, or a caption of a bank is a query that is tested.
    """
    require_apart({language: queries.ids for language, queries in drawn.queries.items()}, drawn.name, tested)
    with rule.encoding():
        return {
            language: Bank(encoded.embeddings, encoded.ids, drawn.name, seed, transductive=False)
            for language, encoded in encode_split(network, drawn, rule.batch_size, rule.device)
        }


def require_apart(drawn: Mapping[str, Sequence[str]], split: str, tested: Split) -> None:
    """Make sure that no query of a bank is tested.

    Args:
        drawn: ids of the bank's queries, by language.
        split: where they come from.
        tested: the split that the bank's scores normalise.

    Raises:
        UserError: some are.
    """
    for language, ids in drawn.items():
        shared = set(ids) & set(tested.queries[language].ids if language in tested.queries else ())
        if shared:
            raise UserError(
                f"{tested.collection}: {min(shared)} and {len(shared) - 1} others are in split {split} and in "
                f"{tested.name}; rename them in one of the two"
            )


def normalisation_with(settings: Settings, place: BankFolder, split: Split, device: torch.device) -> Normalisation:
    """A normalisation of a split's scores, with its bank where the method uses one.

    Raises:
        UserError: no bank, one of other weights, or one that holds the split's queries.
    """
    if settings.method in TRANSDUCTIVE:
        return Normalisation(settings)
    bank = read_bank(place.path, place.checkpoint, device)
    _refuse_test_queries(bank, split, place.path)
    return Normalisation(settings, bank)


def tuned(
    network: Encoder, normalisation: Normalisation, held_out: Split, rule: Rule, place: BankFolder
) -> tuple[Normalisation, float]:
    """The normalisation with the parameters that reach the highest SumR on the validation split, and that SumR.

    Raises:
        UserError: the bank holds validation queries.
    """
    bank = normalisation.bank
    if bank is not None:
        _refuse_test_queries(bank, held_out, place.path)
    settings, best = choose(normalisation.settings.method, quality(network, held_out, rule, bank))
    return Normalisation(settings, bank, tuned_on=held_out.name), best


def read_bank(folder: Path, checkpoint: Path, device: torch.device) -> Bank:
    """Read what `write_bank` wrote.

    Raises:
        UserError: no bank, a damaged one, or one of other weights.
    """
    where = f"make one with `nrccr bank`, into {folder}, or name its folder with --bank"
    for name in ("bank.json", "bank.npz"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no bank there; {where}")
    try:
        record = read_json(folder / "bank.json", where)
        require_npz(folder / "bank.npz")
        with np.load(folder / "bank.npz", allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ARRAYS if name != "text_source" or name in arrays}
        split, seed, transductive = str(record["split"]), int(record["seed"]), bool(record["transductive"])
        digest = record["sha256"]
    except UserError:
        raise
    except Exception as error:  # zip files and JSON can be damaged in many ways
        raise UserError(f"{folder}: cannot be read as a bank ({first_line(error)}); {where}") from error
    # Vectors are floats, ids are text.
    right = all(
        array.ndim == ARRAYS[name] and array.dtype.kind == ("f" if array.ndim == 2 else "U")
        for name, array in found.items()
    )
    sizes = {name: len(array) for name, array in found.items() if array.ndim}
    right = right and all(sizes.values())
    if not right or any(sizes.get(name, sizes["query_ids"]) != sizes["query_ids"] for name in SIDES):
        raise UserError(f"{folder}/bank.npz: arrays do not fit together; {where}")
    if digest != digest_of(checkpoint):
        raise UserError(f"{folder}: written with other weights than {checkpoint}; {where}")
    on_device = {name: torch.from_numpy(found[name]).to(device) for name in (*SIDES, "visual") if name in found}
    embeddings = Embeddings(on_device.get("text_source"), on_device["text_target"], on_device["visual"])
    return Bank(embeddings, found["query_ids"].tolist(), split, seed, transductive)


def _refuse_test_queries(bank: Bank, split: Split, folder: Path) -> None:
    shared = set(bank.query_ids) & set(split.headline.ids)
    if not bank.transductive and (bank.split == split.name or shared):
        example = f" ({min(shared)} and {len(shared) - 1} others are in it)" if shared else ""
        raise UserError(
            f"{folder}: the bank comes from split {bank.split}, whose queries {split.name} measures{example}; "
            "make another with `nrccr bank --split train`, or with --transductive"
        )


def _save(path: Path, arrays: dict[str, torch.Tensor | None], ids: dict[str, list[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        content: dict[str, Any] = {
            name: tensor.float().cpu().numpy() for name, tensor in arrays.items() if tensor is not None
        }
        content |= {name: np.array(values) for name, values in ids.items()}
        np.savez(file, **content)
