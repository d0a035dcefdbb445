"""The language discriminator's loss and the encoder's answer to it.

Logits are (B, C): C = 2 in the released reading, where both logits are trained to the same label, C = 1 in the paper's.
Source language is label 1, target language label 0; BCE is binary cross entropy with logits, mean over B x C.
The discriminator's loss takes logits of detached states, the encoder's takes logits of attached ones. Each loss is a
scalar.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.similarity import at_least_float32


def _bce(logits: Tensor, label: float) -> Tensor:
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, logits.new_full(logits.shape, label))


def discriminator_terms(source_logits: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the discriminator's loss, for the log: BCE(D(m_S), 1) and BCE(D(m_T), 0)."""
    return _bce(source_logits, 1.0), _bce(target_logits, 0.0)


def discriminator_loss(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """0.5 (BCE(D(m_S), 1) + BCE(D(m_T), 0)), the same formula in both readings."""
    real, fake = discriminator_terms(source_logits, target_logits)
    return 0.5 * (real + fake)


def non_saturating_encoder_loss(target_logits: Tensor) -> Tensor:
    """BCE(D(m_T), 1): target-language states should pass for source (released; the source side gets no gradient)."""
    return _bce(target_logits, 1.0)


def minimax_encoder_loss(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """-0.5 (BCE(D(m_S), 1) + BCE(D(m_T), 0)) <= 0: the encoder maximises the discriminator's loss (paper, eq. 11)."""
    return -discriminator_loss(source_logits, target_logits)


def accuracy(source_logits: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The share of each language, 0..1, that the discriminator recognises.

    Two logits decide by argmax, one by its sign; an undecided row (equal logits, or zero) counts as target.
    """
    return _says_source(source_logits).float().mean(), (~_says_source(target_logits)).float().mean()


def _says_source(logits: Tensor) -> Tensor:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits[:, 1] > logits[:, 0]  # (B,)
