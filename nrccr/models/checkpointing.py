"""Activation checkpointing: a transformer layer keeps its input alone, and computes again what its gradients need."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from nrccr.errors import UserError


def checkpoint_layers(network: nn.Module) -> None:
    """Let the encoders that train, of text and of raw images, compute their layers again in the backward pass.

    They draw the same random numbers again: losses and gradients stay as they are.

    Raises:
        UserError: no encoder trains, or one whose layers cannot.
    """
    encoders = [module for module in network.modules() if isinstance(module, PreTrainedModel)]
    training = [own for own in encoders if any(parameter.requires_grad for parameter in own.parameters())]
    if not training:
        raise UserError("train.checkpointing=true: no encoder trains, so none keeps anything; remove it")
    for encoder in training:
        if not encoder.supports_gradient_checkpointing:
            raise UserError(f"train.checkpointing=true: {type(encoder).__name__} cannot; remove it")
        if getattr(encoder.config, "use_cache", False):  # of decoders; transformers would say that it switches it off
            encoder.config.use_cache = False
        # The older name warns where there is the newer one.
        enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
        enable({"use_reentrant": False, "preserve_rng_state": True})
