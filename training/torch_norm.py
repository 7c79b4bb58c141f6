"""Batch normalization by torch's own fused kernel, for training only.

Keras composes it from a dozen operations on torch, which took 45 % of a training step on a CPU; this one takes 9 %.
The weights are the same, and files are always saved from a network with the ordinary layer.
"""

from typing import Any

import keras
import torch


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Normalizes the last axis of (n, height, width, channels)."""

    def call(self, inputs: torch.Tensor, training: bool | None = None, mask: Any = None) -> torch.Tensor:
        """The fused kernel while training; it updates the moving statistics in place."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        normalized = torch.nn.functional.batch_norm(
            inputs.permute(0, 3, 1, 2),
            self.moving_mean.value,
            self.moving_variance.value,
            self.gamma.value,
            self.beta.value,
            training=True,
            momentum=1 - self.momentum,  # torch counts the share of the new value
            eps=self.epsilon,
        )
        return normalized.permute(0, 2, 3, 1)
