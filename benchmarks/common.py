"""What the benchmarks of training steps share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a benchmark of steps: config, root, device, number of steps, overrides."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("overrides", nargs="*")
    return parser


def wait(device: torch.device) -> None:
    """Wait until a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
