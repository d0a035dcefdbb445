"""Devices and precision: the only file that knows about them."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from contextlib import AbstractContextManager

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
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
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
