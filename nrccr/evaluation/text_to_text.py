"""Queries against their own translations (the paper's table 5): how well the two languages meet in the joint space.

Q queries, D joint-space width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nrccr.evaluation.blocks import Cosines
from nrccr.evaluation.encode import Network, encode_texts
from nrccr.evaluation.evaluate import require_finite
from nrccr.evaluation.metrics import ranks, recalls_by_length, retrieval_metrics
from nrccr.files import write_json
from nrccr.systems.nrccr.data import Queries

TASK = "text-to-text"


@torch.inference_mode()
def evaluate_text_to_text(
    network: Network,
    queries: Queries,
    *,
    batch_size: int,
    device: torch.device,
    header: dict[str, Any],
    folder: Path,
    lengths: npt.NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Rank all translations for each query and all queries for each translation, by their cosines.

    One caption is relevant to each: the one with the same item and number, even where others of the item say the same.

    Args:
        network: the model, in evaluation mode.
        queries: the split.
        batch_size: captions encoded together.
        device: where the network is.
        header: first entries of `metrics.json`.
        folder: gets `metrics.json`.
        lengths: (Q,) tokens of each query; where given, `metrics.json` also has the queries' recalls by length.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: an embedding is not finite.
    """
    source = encode_texts(network, queries.source, batch_size, device)  # (Q, D)
    target = encode_texts(network, queries.target, batch_size, device)  # (Q, D)
    for embedded in (source, target):
        require_finite(embedded, queries.query_ids)
    own = np.arange(len(queries.query_ids))  # (Q,) the two files are matched line by line
    metrics = {
        **header,
        "task": TASK,
        "queries": len(own),
        "batch_size": batch_size,
        "target_to_source": retrieval_metrics(Cosines(target, source), own),
        "source_to_target": retrieval_metrics(Cosines(source, target), own),
    }
    if lengths is not None:
        metrics["by_length"] = recalls_by_length(ranks(Cosines(target, source), own), lengths)
    write_json(folder / "metrics.json", metrics)
    return metrics
