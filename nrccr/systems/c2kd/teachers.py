"""C2KD's frozen teachers: their scores of a batch, in the loop or from embeddings computed once.

N videos in a batch, n of them with an English caption, K teachers, D a teacher's own joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nrccr.data.batch import ENGLISH
from nrccr.errors import UserError
from nrccr.evaluation.encode import encode_texts, encode_visuals, require_finite
from nrccr.processes import gather
from nrccr.systems.c2kd.batch import MultilingualBatch
from nrccr.systems.c2kd.data import LanguagePairs
from nrccr.systems.c2kd.network import C2KD
from nrccr.systems.c2kd.objective import teacher_scores


class TeachersInLoop:
    """Teachers that encode every batch: once, in evaluation mode, without gradients, in float32.

    Of several processes each encodes its own share, and all have all scores.

    Args:
        networks: K of them; frozen here.
    """

    def __init__(self, networks: Sequence[C2KD]) -> None:
        self.networks = [network.eval().requires_grad_(False) for network in networks]

    def __call__(self, batch: MultilingualBatch) -> Tensor:
        """Cosines (K, n, n) of the English captions, rows, and their videos; the batch has each teacher's `taught`."""
        rows = batch.rows[ENGLISH]
        embeddings = []
        with torch.autocast(device_type=rows.device.type, enabled=False):
            for network, text in zip(self.networks, batch.taught, strict=True):
                visual = network.embed_visual(batch.visual)[rows]  # (n, D)
                embeddings.append(gather(network.embed_text(text) if len(rows) else visual, visual))
        return teacher_scores(embeddings)


class PrecomputedTeachers:
    """Teachers with precomputed embeddings of the whole training set: frozen ones never change.

    Args:
        embeddings: for each teacher all English captions (captions, D) and all videos (videos, D), on the device.
    """

    def __init__(self, embeddings: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.embeddings = embeddings

    def __call__(self, batch: MultilingualBatch) -> Tensor:
        """Cosines (K, n, n) of the English captions, rows, and their videos; the batch has `english` and `items`."""
        assert batch.english is not None and batch.items is not None
        videos = batch.items[batch.rows[ENGLISH]]  # (n,)
        return teacher_scores([gather(texts[batch.english], visual[videos]) for texts, visual in self.embeddings])


def precompute(
    networks: Sequence[C2KD], names: Sequence[str], pairs: LanguagePairs, batch_size: int, device: torch.device
) -> PrecomputedTeachers:
    """Encode every English caption and every video of the training set once, by each teacher.

    Args:
        networks: K teachers on the device.
        names: of the teachers, for messages.
        pairs: the training set, with each teacher's `taught`.
        batch_size: captions or videos encoded together.
        device: where the embeddings are kept: 4 (captions + videos) D bytes a teacher.

    Raises:
        UserError: an embedding that is not finite.
    """
    embeddings = []
    for network, name, texts in zip(TeachersInLoop(networks).networks, names, pairs.taught, strict=True):
        both = (
            encode_texts(network, texts, batch_size, device),
            encode_visuals(network, pairs.visuals, batch_size, device),
        )
        try:
            require_finite(both[0], [f"English caption {row + 1}" for row in range(len(texts))])
            require_finite(both[1], pairs.visuals.ids)
        except UserError as error:
            raise UserError(f"teacher {name}: {error}") from error
        # Made in inference mode, which autograd would refuse: clones are ordinary tensors.
        embeddings.append((both[0].clone(), both[1].clone()))
    return PrecomputedTeachers(embeddings)
