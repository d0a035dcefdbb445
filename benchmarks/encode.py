"""Encoding captions, ours beside the plain way, in turns in one run: captions a second and where the gain comes from.

    python benchmarks/encode.py [CONFIG --root ROOT] [--captions 15000] [--rounds 3] [key=value ...]

The plain way takes captions in file order, pads each batch to its longest, computes attention step by step (eager), in
fp32. Ours gathers captions of like length under the corrected reading, in fp32 and in bf16. Weights are random;
captions are ROOT's of test and validation (from the first again where they are too few), or generated. In fp32 all must
agree within 1e-5.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, alternating, best_seconds, record
from torch import Tensor, nn

from nrccr.config.schema import Config
from nrccr.data.captions import read_captions
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.sampling import ordered_batches
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.evaluation.encode import encode_texts
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.nrccr.data import locate_data
from nrccr.systems.nrccr.network import NRCCR, build_nrccr
from nrccr.systems.settings import load_config

CONFIGS = Path(__file__).parents[1] / "configs" / "nrccr"
CPU = torch.device("cpu")
FEATURE_WIDTH = 1024


def captions_of(config: Config, root: Path, count: int) -> list[str]:
    """Queries of test and validation, as many as wanted."""
    collection = locate_data(config, root)
    texts = [text for split in ("test", "val") for text in read_captions(collection.split(split).target).texts]
    return [texts[index % len(texts)] for index in range(count)]


@contextmanager
def attention(network: NRCCR, name: str) -> Iterator[None]:
    """Another implementation of attention inside."""
    backbone: Any = network.text.backbone
    before = backbone.config._attn_implementation
    backbone.set_attn_implementation(name)
    yield
    backbone.set_attn_implementation(before)


@torch.inference_mode()
def in_file_order(network: NRCCR, table: TokenTable, batch_size: int) -> Tensor:
    """(N, D), batch after batch, each padded to its longest caption."""
    parts = []
    for start in range(0, len(table), batch_size):
        parts.append(network.embed_text(table.batch(range(start, min(start + batch_size, len(table))))))
    return torch.cat(parts)


def positions(table: TokenTable, batch_size: int, *, by_length: bool) -> int:
    """How many positions are computed, padding included."""
    batches = ordered_batches(table.lengths, batch_size, by_length=by_length)
    return sum(len(chosen) * int(table.lengths[chosen].max()) for chosen in batches)


def product_rate(dtype: torch.dtype, width: int) -> float:
    """Operations a second of a matrix product of the backbone's shape."""
    one, other = torch.randn(1024, width).to(dtype), torch.randn(width, 4 * width).to(dtype)
    return 2 * 1024 * width * 4 * width / best_seconds(lambda: one @ other, rounds=30)


def main() -> None:
    """Measure, compare, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--root", type=Path, help="of the captions; without one they are generated")
    parser.add_argument("--captions", type=int, default=15_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="encode", help="of the record")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    if (arguments.config is None) != (arguments.root is None):
        parser.error("give CONFIG and --root together, or neither")
    with tempfile.TemporaryDirectory() as name:
        root, overrides = arguments.root, ["reading=corrected", "text.pretrained=false", *arguments.overrides]
        if root is None:
            root = Path(name)
            overrides = [f"text.model={generate(root, Recipe()) / 'backbone'}", *overrides]
        config = load_config(arguments.config or CONFIGS / "generated.yaml", overrides)
        texts = captions_of(config, root, arguments.captions)
        table = CaptionTokenizer(config.text.model, config.text.max_tokens).encode(texts)
        torch.manual_seed(0)
        backbone = build_backbone(backbone_config(config.text.model, config.text.backbone), pretrained=None)
    network = build_nrccr(config, backbone, FEATURE_WIDTH).eval()
    size = config.evaluation.batch_size

    def eager() -> Tensor:
        with attention(network, "eager"):
            return in_file_order(network, table, size)

    def bf16() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return encode_texts(network, table, size, CPU).float()

    ways = {
        "plain": eager,
        "fused_attention": lambda: in_file_order(network, table, size),
        "ours_fp32": lambda: encode_texts(network, table, size, CPU),
        "ours_bf16": bf16,
    }
    measured = alternating(ways, arguments.rounds)
    plain = measured["plain"]
    for name in ("fused_attention", "ours_fp32"):
        torch.testing.assert_close(measured[name].result, plain.result, atol=1e-5, rtol=0)
    cosines = (measured["ours_bf16"].result * plain.result).sum(dim=1)

    weights = sum(module.weight.numel() for module in network.text.modules() if isinstance(module, nn.Linear))
    operations = 2 * weights * int(table.lengths.sum())
    width = int(backbone.config.hidden_size)
    floor: dict[str, Any] = {"operations": operations, "real_tokens": int(table.lengths.sum())}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rate = product_rate(dtype, width)
        floor[name] = {"operations_per_second": rate, "seconds": operations / rate}
    figures = {
        "captions": len(table),
        "batch_size": size,
        "backbone": {"width": width, "layers": backbone.config.num_hidden_layers, "weights": weights},
        "positions": {
            "file_order": positions(table, size, by_length=False),
            "by_length": positions(table, size, by_length=True),
        },
        "ways": {name: own.figures() for name, own in measured.items()},
        "ratio": {name: plain.median / own.median for name, own in measured.items()},
        "ratio_of_processor_time": {name: plain.processor / own.processor for name, own in measured.items()},
        "lowest_cosine_of_bf16": float(cosines.min()),
        "floor": floor,
        "distance": {name: measured[f"ours_{name}"].processor / floor[name]["seconds"] for name in ("fp32", "bf16")},
    }
    for name, own in measured.items():
        print(
            f"{name:16s} {len(table) / own.median:9,.0f} captions/s   {own.median:8.2f} s ({own.processor:.2f} of the "
            f"processor)   ratio {plain.median / own.median:5.2f}, of processor time "
            f"{plain.processor / own.processor:5.2f}   peak memory +{own.peak_mb:.0f} MB"
        )
    floors = ", ".join(f"{name} {floor[name]['seconds']:.2f} s" for name in ("fp32", "bf16"))
    print(f"floor {floors} of the processor; positions {figures['positions']}")
    print(f"equal within 1e-5 in fp32; lowest cosine of bf16 {figures['lowest_cosine_of_bf16']:.5f}")
    print(record(arguments.name, figures, arguments.out))


if __name__ == "__main__":
    main()
