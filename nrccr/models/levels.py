"""Frames of a video -> one vector at three levels, as MLCMR encodes them.

N videos in the batch, F frames, D feature width, G GRU width a direction, M maps a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nrccr.config.choices import Pooling
from nrccr.data.batch import VideoBatch
from nrccr.models.layers import mean_over_positions

KERNELS = (2, 3, 4, 5)  # frames that a convolution sees at once


def mean_of_frames(video: VideoBatch) -> Tensor:
    """Videos -> (N, D), the mean of all frames, of those too that a batch leaves out."""
    return video.mean if video.mean is not None else mean_over_positions(video.frames, video.mask, "masked")


class MeanVideo(nn.Module):
    """Videos as the mean of their frames; nothing is learned before the mapping.

    Args:
        features: width D of the frame features.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.feature_width = self.width = features

    def forward(self, video: VideoBatch) -> Tensor:
        """Videos -> (N, D)."""
        return mean_of_frames(video)


class MultiLevelVideo(nn.Module):
    """Videos at three levels: mean of the frames, bidirectional GRU, convolutions over the GRU's states.

    Args:
        features: width D of the frame features.
        gru: G, width of the GRU in each direction.
        maps: M, maps of each of the four convolutions.
        dropout: on the GRU's and on the convolutions' vector.
        pooling: "padded" (released): the GRU runs over the padding too, its backward direction first, and windows of
            nothing but padding enter the convolutions' maximum; "masked": as if each video were alone.
    """

    def __init__(self, features: int, gru: int, maps: int, dropout: float, pooling: Pooling) -> None:
        super().__init__()
        self.maps = maps
        self.pooling = pooling
        self.gru = nn.GRU(features, gru, batch_first=True, bidirectional=True)
        # As many zeros on either side as let a window reach over one real frame alone.
        self.convolutions = nn.ModuleList(nn.Conv1d(2 * gru, maps, size, padding=size - 1) for size in KERNELS)
        self.dropout = nn.Dropout(dropout)

    @property
    def feature_width(self) -> int:
        """Width D of the frame features it takes."""
        return self.gru.input_size

    @property
    def width(self) -> int:
        """Width of its vectors, 2 G + 4 M + D."""
        return 2 * self.gru.hidden_size + len(KERNELS) * self.maps + self.feature_width

    def forward(self, video: VideoBatch) -> Tensor:
        """Videos -> (N, 2 G + 4 M + D)."""
        states = self._run(video)  # (N, F, 2 G), zeros at padding
        levels = [
            self.dropout(mean_over_positions(states, video.mask, "masked")),  # (N, 2 G)
            self.dropout(self._convolve(states, video.mask)),  # (N, 4 M)
            mean_of_frames(video),  # (N, D)
        ]
        return torch.cat(levels, dim=1)

    def _run(self, video: VideoBatch) -> Tensor:
        if self.pooling == "masked":
            counted = video.lengths
            lengths = video.mask.sum(dim=1).cpu() if counted is None else torch.from_numpy(counted)  # (N,)
            # Sorted here: torch, sorting for itself, would wait for the device to send the order back.
            lengths, longest_first = lengths.sort(descending=True, stable=True)  # (N,)
            order, back = (
                places.to(video.frames.device, non_blocking=True) for places in (longest_first, longest_first.argsort())
            )
            packed = pack_padded_sequence(video.frames.index_select(0, order), lengths, batch_first=True)
            unpacked = pad_packed_sequence(self.gru(packed)[0], True, total_length=video.mask.shape[1])[0]
            found: Tensor = unpacked.index_select(0, back)  # (N, F, 2 G)
            return found
        states: Tensor = self.gru(video.frames)[0]  # (N, F, 2 G)
        return states * video.mask.to(states.dtype).unsqueeze(-1)

    def _convolve(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (N, F, 2 G) -> the largest answer of each map to any window (N, 4 M)."""
        channels = states.transpose(1, 2)  # (N, 2 G, F)
        largest = []
        for size, convolution in zip(KERNELS, self.convolutions, strict=True):
            answers = convolution(channels)  # (N, M, F + size - 1), a window for each last frame
            if self.pooling == "masked":  # windows of padding alone would answer ReLU(bias)
                seen = functional.pad(mask.bool(), (size - 1, 0), value=True)  # (N, F + size - 1)
                answers = answers.masked_fill(~seen.unsqueeze(1), -torch.inf)
            largest.append(functional.relu(answers.max(dim=2).values))  # (N, M); ReLU keeps the order
        return torch.cat(largest, dim=1)
