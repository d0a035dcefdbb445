"""Several processes that train together: losses, gradients and update are those of one process on the whole batch."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from nrccr.distributed import random_state, restore_random_state
from tests.systems.quartet.parts import EVERYTHING, TRIPLET
from tests.training.shared_steps import Job, in_process, steps_of

PROCESSES = 2


@pytest.fixture
def jobs(
    tiny_config: Path,
    tiny_collection: Path,
    mlcmr_config: Path,
    both_languages: Path,
    quartet_config: Path,
    c2kd_config: Path,
    tiny_languages: Path,
    nrccr_command: Callable[..., Any],
    tmp_path: Path,
) -> list[Job]:
    """Every system in readings where padding counts and where it does not, with batches of an odd size."""
    odd = "train.batch_size=7"
    where = ("--root", tiny_languages, "--device", "cpu")
    assert nrccr_command("train", c2kd_config, *where, "--out", tmp_path / "teacher", "train.epochs=1").code == 0
    teachers = ["c2kd.stage=distill", f"c2kd.teachers=[{tmp_path / 'teacher'}]"]
    few = shutil.copytree(tiny_collection, tmp_path / "few")
    (path,) = (few / "vatex" / "TextData").glob("vatextrain_google_enc2zh.caption.txt")
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[::5]), "utf-8")
    untranslated = [odd, *EVERYTHING, "data.mismatch_tolerance=1", "train.micro_batch=2"]
    return [
        Job("released", tiny_config, tiny_collection, [odd]),
        Job("paper", tiny_config, tiny_collection, [odd, "reading=paper"]),
        Job("corrected", tiny_config, tiny_collection, [odd, "reading=corrected", "loss.mask_same_item=true"]),
        Job("micro", tiny_config, tiny_collection, [odd, "train.micro_batch=2"]),
        Job("mlcmr", mlcmr_config, both_languages, [odd]),
        Job("mlcmr_corrected", mlcmr_config, both_languages, [odd, "reading=corrected"]),
        Job("quartet", quartet_config, tiny_collection, [odd, "quartet.trust_from=2"], epoch=1),
        Job("quartet_everything", quartet_config, tiny_collection, [odd, *EVERYTHING], epoch=1),
        Job("quartet_few", quartet_config, few, untranslated, epoch=1),
        Job("quartet_triplet", quartet_config, tiny_collection, [odd, *TRIPLET]),
        Job("mlcmr_micro", mlcmr_config, both_languages, [odd, "reading=corrected", "train.micro_batch=2"]),
        Job("c2kd", c2kd_config, tiny_languages),
        Job("c2kd_micro", c2kd_config, tiny_languages, ["train.micro_batch=2"]),
        Job("c2kd_loop", c2kd_config, tiny_languages, [*teachers, "c2kd.precompute=false"]),
        Job("c2kd_mixed", c2kd_config, tiny_languages, [*teachers, "c2kd.pooling=learned_pools"]),
    ]


def test_two_processes_take_the_step_of_one(jobs: list[Job], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_process, (PROCESSES, port, jobs, tmp_path), nprocs=PROCESSES)
    for job in jobs:
        alone = steps_of(job)
        for process in range(PROCESSES):
            _compare(job.name, alone, torch.load(tmp_path / f"{job.name}-{process}.pt", weights_only=True))


def test_a_random_state_may_be_part_of_another_tensor() -> None:
    before = random_state(torch.device("cpu"))
    drawn = torch.rand(3)
    rows = torch.stack([torch.zeros_like(before["cpu"]), before["cpu"]])
    assert restore_random_state({"cpu": rows[1]}, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)


def _compare(job: str, alone: dict[str, Any], shared: dict[str, Any]) -> None:
    for step, (one, other) in enumerate(zip(alone["reports"], shared["reports"], strict=True)):
        # After a step of Adam those parameters differ whose gradient is zero up to rounding.
        assert other == pytest.approx(one, rel=1e-5 if step == 0 else 1e-3, abs=1e-7), (job, step)
    assert shared["gradients"].keys() == alone["gradients"].keys() and alone["gradients"]
    rounding = 1e-6 * max(gradient.abs().max().item() for gradient in alone["gradients"].values())
    for name, gradient in alone["gradients"].items():
        largest = gradient.abs().max().item()
        close = torch.isclose(shared["gradients"][name], gradient, rtol=1e-5, atol=1e-5 * largest + rounding)
        assert close.all(), (job, name, shared["gradients"][name], gradient)
    for name, weight in alone["weights"].items():
        gradient = alone["gradients"].get(name, torch.ones(()))  # statistics of a batch have none
        certain = (gradient.abs() > 100 * rounding).expand_as(weight)
        close = torch.isclose(shared["weights"][name], weight, rtol=1e-5, atol=1e-5)
        assert close[certain].all(), (job, name, shared["weights"][name], weight)
