"""Processes that compute one run together: the only file that knows of torch.distributed.

Alone, each function is what it says of one process, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nrccr.errors import PeerLostError, first_line

Item = TypeVar("Item")
PATIENCE = timedelta(hours=2)  # with a process that is there and does not answer; one that died is noticed at once
BUCKET_BYTES = 2**25  # gradients averaged together
SPOKEN = "nrccr/spoken"  # the key of the process that says why a run ended


def world() -> int:
    """How many processes compute this run together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; the first alone writes and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """This process as one of those that torchrun, accelerate or `--device 0,1` started: gloo on CPUs, NCCL on GPUs.

    An error leaves the group to the end of the process, whose connections the others then find closed.

    Raises:
        PeerLostError: the others are not there.
    """
    with _with_others():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    yield
    leave()


def leave() -> None:
    """End the group, once all are here.

    Raises:
        PeerLostError: the others are not there.
    """
    wait_for_all()
    dist.destroy_process_group()


def may_speak() -> bool:
    """Whether this process is the one that says why the run ended: the first that asks."""
    if world() == 1:
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        return bool(store.compare_set(SPOKEN, "", str(rank())).decode() == str(rank()))
    except RuntimeError:  # the store has gone, with the process that kept it
        return True


@contextmanager
def _with_others() -> Iterator[None]:
    """Around one call that needs the other processes."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            f"another process of this run has ended or cannot be reached ({first_line(error)}); look for its message, "
            "then go on with --resume"
        ) from error


def _sum(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    with _with_others():
        dist.all_reduce(values)
    return values


def own_part(listed: list[Item]) -> list[Item]:
    """This process's share of things to do: every so-manieth, so that work in order of size is shared fairly."""
    return listed[rank() :: world()]


def sum_of_all(values: Tensor) -> Tensor:
    """The sum over all processes, in place; exact where only one has something else than zeros."""
    return values if world() == 1 else _sum(values)


def largest(value: int) -> int:
    """The largest of all processes' numbers."""
    if world() == 1:
        return value
    found = torch.tensor(value)
    with _with_others():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world() > 1:
        _sum(torch.zeros(1))


def any_says(*said: bool) -> list[bool]:
    """Of each statement, whether a process makes it; the same answer for all."""
    if world() == 1:
        return list(said)
    return [count > 0 for count in _sum(torch.tensor(said, dtype=torch.int64)).tolist()]


def mean_of_all(values: Tensor) -> Tensor:
    """The mean over all processes, element by element; alone, the values themselves."""
    return values if world() == 1 else _sum(values) / world()


def as_first(values: Tensor) -> Tensor:
    """The first process's values, in place; they have the same shape and type everywhere."""
    if world() > 1:
        with _with_others():
            dist.broadcast(values, 0)
    return values


def rows_before(count: int) -> int:
    """Where this process's `count` rows begin among those of all."""
    if world() == 1:
        return 0
    counts = torch.zeros(world(), dtype=torch.int64)
    counts[rank()] = count
    return int(_sum(counts)[: rank()].sum())


def gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows (n, ...) of every process one below the other, in the order of processes, with gradients.

    Losses are then computed everywhere from everything, and `average` of their gradients is the gradient of the whole
    batch's loss: the gradient of a row is the sum of what all processes' losses give it.

    Returns:
        (N, ...) of each, floats in float32 or better; alone, the tensors themselves.
    """
    if world() == 1:
        return tensors
    counts = torch.zeros(world(), len(tensors), dtype=torch.int64)
    counts[rank()] = torch.tensor([len(tensor) for tensor in tensors])
    _sum(counts)
    spans = list(zip(counts[: rank()].sum(dim=0).tolist(), counts.sum(dim=0).tolist(), strict=True))
    widened = [
        tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor
        for tensor in tensors
    ]
    gathered: tuple[Tensor, ...] = _Gather.apply(spans, *widened)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Sums of rows that only one process has, the others zeros: exact, and of any number of rows in each process."""

    @staticmethod
    def forward(ctx: Any, spans: list[tuple[int, int]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.places = [(start, len(tensor)) for (start, _), tensor in zip(spans, tensors, strict=True)]
        wholes = []
        for (start, count), tensor in zip(spans, tensors, strict=True):
            whole = tensor.new_zeros(count, *tensor.shape[1:])
            whole[start : start + len(tensor)] = tensor
            wholes.append(_sum(whole))
        ctx.mark_non_differentiable(*(whole for whole in wholes if not whole.is_floating_point()))
        return tuple(wholes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own: list[Tensor | None] = [None]
        for (start, count), gradient in zip(ctx.places, gradients, strict=True):
            whole = _sum(gradient.contiguous().clone()) if gradient.is_floating_point() else None
            own.append(None if whole is None else whole[start : start + count])
        return tuple(own)


def average(parameters: Sequence[nn.Parameter]) -> None:
    """Give all processes the mean of their gradients; one that a process lacks counts as zero there.

    A parameter without a gradient anywhere stays without: its optimiser leaves it alone.
    """
    if world() == 1:
        return
    has = any_says(*(parameter.grad is not None for parameter in parameters))
    bucket: list[Tensor] = []
    for parameter, anywhere in zip(parameters, has, strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad.nbytes >= BUCKET_BYTES:
                _average([parameter.grad])
                continue
            bucket.append(parameter.grad)
            if sum(gradient.nbytes for gradient in bucket) >= BUCKET_BYTES:
                _average(bucket)
                bucket = []
    _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    """The mean of some gradients, in place, in one message."""
    if not gradients:
        return
    if len(gradients) == 1 and gradients[0].is_contiguous():
        _sum(gradients[0]).div_(world())  # a word table, without a copy of it
        return
    means = _sum(torch.cat([gradient.flatten() for gradient in gradients])).div_(world())
    parts = torch.split(means, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
