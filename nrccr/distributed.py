"""Devices and precision: the only file that knows about them."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import islice
from typing import Protocol, Self, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from nrccr.config.choices import Precision
from nrccr.errors import UserError
from nrccr.processes import gather, rank, world

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


def choose_device(name: str | None) -> torch.device:
    """The device of `--device` for this process: `cpu`, `cuda`, `cuda:1`; without a name the first GPU, or the CPU.

    Of several processes on a machine each has its own: of a list its entry, of `cuda` or no name the GPU of its number.

    Raises:
        UserError: an unknown name, no such GPU, or a list where there is one process.
    """
    own = int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else 0
    if name is not None and "," in name:
        devices = choose_devices(name)
        if world() == 1:
            raise UserError(f"--device {name}: only train, test and bank take several devices; give one")
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if len(devices) != here:
            raise UserError(
                f"--device {name}: {len(devices)} devices for {here} processes on this machine; give one each"
            )
        return devices[own]
    if name is None:
        return torch.device("cuda", own) if own < _gpus() else torch.device("cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise UserError(f"--device {name}: unknown device; give cpu, cuda, cuda:1, or several as 0,1")
    if name == "cpu":
        return torch.device("cpu")
    count, index = _gpus(), own if match[1] is None else int(match[1])
    if index >= count:
        has = f"GPUs 0 to {count - 1}" if count > 1 else "GPU 0 only" if count else "no CUDA GPU"
        raise UserError(f"--device {name}: this machine has {has}; give another device or cpu")
    return torch.device("cuda", index)


def choose_devices(names: str) -> list[torch.device]:
    """The devices of a list as `0,1` or `cpu,cpu`: one process each.

    Raises:
        UserError: an unknown name, no such GPU, one GPU twice, or GPUs beside the CPU.
    """
    devices = [choose_device(f"cuda:{name}" if name.isdecimal() else name) for name in names.split(",")]
    gpus = {device.index for device in devices if device.type == "cuda"}
    if gpus and len(gpus) < len(devices):
        raise UserError(f"--device {names}: give each GPU once, or cpu alone")
    return devices


def _gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def make_deterministic(seed: int) -> None:
    """Seed every generator and choose deterministic kernels, so that a run repeats on one machine and device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Only a debugging aid, and slow.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, in the discriminator's convolutions too
    if torch.cuda.is_available():
        # The fused attention kernels of a GPU add up gradients in any order, and only warn of it. The first of these
        # switches off that of processors too, which keeps an order.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc keep what is freed, for the next step: on a processor; with another C library nothing changes.

    Otherwise it gives large tensors back to the system at once (all of 32 MB or more: of BERT-base at 128 pairs every
    wide one), which then has to find and clear their pages again in each step.
    """
    if device.type == "cpu":
        with suppress(OSError, TypeError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, -1)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory, in MB, that this process has held, and on a GPU its tensors there; what is known of them."""
    peaks = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
        peaks["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
    if device.type == "cuda":
        peaks["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peaks


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators' states, as tensors; those of the second process as `cpu.1` and so on."""
    state = own_random_state(device)
    every = gather(*(own[None] for own in state.values()))  # each (processes, bytes)
    return {
        f"{kind}.{process}" if process else kind: _apart(own)
        for kind, states in zip(state, every, strict=True)
        for process, own in enumerate(states)
    }


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> bool:
    """Put the generators back where `random_state` saw them.

    Returns:
        whether there were as many processes; if not, all but the first draw their seeds from the first one's generator.
    """
    same = world() == sum(key.partition(".")[0] == "cpu" for key in state)
    own = f".{rank()}" if same and rank() else ""
    # A copy: torch crashes on a state that is part of another tensor.
    torch.set_rng_state(_apart(state[f"cpu{own}"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_apart(state[f"cuda{own}"]), device)
    if not same and rank():
        make_different(int(torch.randint(2**31, ())))
    return same


def own_random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's generators, so that `draw_again` can repeat what it draws next."""
    return {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    )


def draw_again(state: dict[str, Tensor], device: torch.device) -> None:
    """Put this process's generators back where `own_random_state` saw them."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _apart(state: Tensor) -> Tensor:
    return state.cpu().clone(memory_format=torch.contiguous_format)


def make_different(seed: int) -> None:
    """Seed the generators of all processes but the first anew, each in its own way: the same weights, other dropout."""
    if rank():
        torch.manual_seed(seed + 2**32 * rank())


def describe_device(device: torch.device) -> str:
    """The device by name, for run.json."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.processor() or platform.machine()})"


class Movable(Protocol):
    """What can be copied to a device: see TensorRecord."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with `change` applied to every tensor in it."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """The same on a device."""

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""


Moved = TypeVar("Moved", bound=Movable)
Sent = TypeVar("Sent")


def moved(batches: Iterable[Moved], device: torch.device) -> Iterator[Moved]:
    """The batches on a device; on a GPU each is read, and copied beside other work, while the one before is used."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    work = torch.cuda.current_stream(device)

    def send(batch: Moved) -> tuple[Moved, torch.cuda.Event]:
        pinned = batch.pin_memory()
        with torch.cuda.stream(copies):
            return pinned.to(device, non_blocking=True), copies.record_event()

    def receive(sent: tuple[Moved, torch.cuda.Event]) -> Moved:
        def keep(tensor: Tensor) -> Tensor:
            if tensor.is_cuda:
                tensor.record_stream(work)  # its memory is not given to a later batch before this work is done
            return tensor

        batch, arrival = sent
        work.wait_event(arrival)
        return batch.map(keep)

    yield from one_ahead(batches, send, receive)


def one_ahead(
    batches: Iterable[Moved], send: Callable[[Moved], Sent], receive: Callable[[Sent], Moved]
) -> Iterator[Moved]:
    """Each batch after `send` and `receive`; the next one is sent before a batch is given out.

    An error in reading or sending waits until all batches before it were given out.
    """
    source = iter(batches)

    def following() -> tuple[list[Sent], Exception | None]:
        try:
            return [send(batch) for batch in islice(source, 1)], None
        except Exception as error:
            return [], error

    sent, error = following()
    while sent:
        here, (sent, error) = sent[0], following()
        yield receive(here)
    if error is not None:
        raise error


class Runtime:
    """One process on one device through accelerate.

    Args:
        device: where to compute, see choose_device.
        precision: "bf16" computes forward passes in bfloat16; weights, losses and optimisers stay float32.
    """

    def __init__(self, device: torch.device, precision: Precision = "fp32") -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # A second run in one process may use another device.
        AcceleratorState._reset_state(reset_partial_state=True)
        self.device = device
        self.accelerator = Accelerator(
            cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no"
        )

    @property
    def pins_memory(self) -> bool:
        """Whether batches should wait in page-locked memory."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[None]:
        """The context of forward passes."""
        context: AbstractContextManager[None] = self.accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss."""
        self.accelerator.backward(loss)

    def clip(self, parameters: list[nn.Parameter], norm: float | None) -> Tensor:
        """Clip the gradients' common norm, or with none only measure it; returns the norm before clipping."""
        before: Tensor = self.accelerator.clip_grad_norm_(parameters, math.inf if norm is None else norm)
        return before
