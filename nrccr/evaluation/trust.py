"""What a teacher looks at: attention between words, and its trust in each target word.

S and T pieces of source and target, V and W words of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
SPECIAL = -1  # the word of a special token


def word_attention(
    weights: Floats, source_words: Sequence[int], target_words: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Attention between words from attention between pieces.

    Weights are summed over the pieces of a target word and averaged over those of a source word. Special tokens and
    padding are left out; what a source word gives to the target's words then sums to 1.

    Args:
        weights: (S or more, T or more), a row for each source piece; what goes beyond the words is padding.
        source_words: (S,) the word of each source piece, SPECIAL for special tokens; words count from 0.
        target_words: (T,) likewise.

    Returns:
        (V, W), rows sum to 1.

    Raises:
        ValueError: no words on a side.
    """
    given: npt.NDArray[np.float64] = np.asarray(weights, dtype=np.float64)[: len(source_words), : len(target_words)]
    rows, columns = _members(source_words), _members(target_words)  # (V, S), (W, T)
    words: npt.NDArray[np.float64] = (rows / rows.sum(axis=1, keepdims=True)) @ given @ columns.T  # (V, W)
    total: npt.NDArray[np.float64] = words.sum(axis=1, keepdims=True)  # (V, 1)
    return words / total


def trust(attention: npt.NDArray[np.float64], target_words: Sequence[int]) -> npt.NDArray[np.float64]:
    """The teacher's trust in each target word (W,): the attention that it gets from the source words, on average.

    1 is an even share. A word's share is as large as its share of the pieces, so that a word cut into many is not
    trusted for its length.

    Args:
        attention: (V, W) from `word_attention`.
        target_words: (T,) as there.
    """
    pieces: npt.NDArray[np.float64] = _members(target_words).sum(axis=1)  # (W,)
    received: npt.NDArray[np.float64] = attention.mean(axis=0)  # (W,), sums to 1
    found: npt.NDArray[np.float64] = received * pieces.sum() / pieces
    return found


def word_similarity(
    cosines: Floats, source_words: Sequence[int], target_words: Sequence[int]
) -> npt.NDArray[np.float64]:
    """How similar each target word (W,) is to the source words: the mean over these, and over the pieces of both.

    Args:
        cosines: (S or more, T or more) of pieces; the rest as `word_attention`.
        source_words: (S,) as there.
        target_words: (T,) as there.

    Raises:
        ValueError: no words on a side.
    """
    given: npt.NDArray[np.float64] = np.asarray(cosines, dtype=np.float64)[: len(source_words), : len(target_words)]
    rows, columns = _members(source_words), _members(target_words)  # (V, S), (W, T)
    of_source: npt.NDArray[np.float64] = (rows / rows.sum(axis=1, keepdims=True)).mean(axis=0) @ given  # (T,)
    found: npt.NDArray[np.float64] = (columns / columns.sum(axis=1, keepdims=True)) @ of_source
    return found


def special_share(weights: Floats, source_words: Sequence[int], target_words: Sequence[int]) -> float:
    """The share of the attention of words that goes to special tokens, 0..1; arguments as `word_attention`."""
    given = np.asarray(weights, dtype=np.float64)[: len(source_words), : len(target_words)]  # (S, T)
    words, special = np.asarray(source_words) != SPECIAL, np.asarray(target_words) == SPECIAL
    return float(given[words][:, special].sum(axis=1).mean())


def _members(words: Sequence[int]) -> npt.NDArray[np.float64]:
    """Which pieces belong to which word, (W, T) of 0 and 1."""
    numbers = np.asarray(words, dtype=np.int64)  # (T,)
    if not len(numbers) or numbers.max() < 0:
        raise ValueError("a caption without words has no attention between words")
    members: npt.NDArray[np.bool_] = np.arange(numbers.max() + 1)[:, None] == numbers
    return members.astype(np.float64)
