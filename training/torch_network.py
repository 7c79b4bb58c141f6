"""The network of `training.model` as a torch module: the same weights, in the layout and precision that train fastest.

Keras on torch spends half of a training step between the operations: channel-last convolutions that torch computes
channel-first, a batch normalization of a dozen pieces, an optimizer that walks the weights one by one. Here a step is
torch's own, nearly twice as fast on a CPU. Files are always saved from the Keras network.
"""

import copy

import keras
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge.labels import EMOTIONS
from training.model import MEAN_GREY, NORM_EPSILON, NORM_MOMENTUM, SPREAD_GREY, STAGES, stem_channels


class _Convolution(nn.Module):
    """Convolution and batch normalization, padded as Keras's `same`: at the far side only, where a stride halves."""

    def __init__(self, inside: int, outside: int, stride: int, size: int) -> None:
        super().__init__()
        self.far = stride == 2 and size == 3
        padding = 0 if self.far or size == 1 else 1
        self.conv = nn.Conv2d(inside, outside, size, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outside, NORM_EPSILON, 1 - NORM_MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(nn.functional.pad(x, (0, 1, 0, 1)) if self.far else x))


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.skip = None if stride == 1 else _Convolution(inside, outside, stride, 1)
        self.a = _Convolution(inside, outside, stride, 3)
        self.b = _Convolution(outside, outside, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.skip is None else self.skip(x)
        return torch.relu_(self.b(torch.relu_(self.a(x))) + shortcut)


class TorchNetwork(nn.Module):
    """One view of a face. Input: (n, 1, 48, 48) grey levels, 0 to 255. Output: (n, 7) float32 logits."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        channels = stem_channels(width)
        self.stem = _Convolution(1, channels, 1, 3)
        self.blocks = nn.ModuleDict()
        for stage, (multiple, count) in enumerate(STAGES, start=1):
            for block in range(count):
                self.blocks[f"stage{stage}_{block + 1}"] = _Residual(channels, width * multiple, 1 if block else 2)
                channels = width * multiple
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(channels, len(EMOTIONS))
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of one view."""
        x = torch.relu_(self.stem((pixels - MEAN_GREY) / SPREAD_GREY))
        for block in self.blocks.values():
            x = block(x)
        x = self.dropout(x.float().mean(dim=(2, 3)))
        with torch.autocast(x.device.type, enabled=False):
            return self.logits(x)

    def tensors(self) -> list[torch.Tensor]:
        """Parameters and moving statistics, in the order of the Keras network's `weights`."""
        return [tensor for _name, tensor in self.named_tensors()]

    def units(self) -> list[tuple[str, nn.Module]]:
        """Each convolution with its normalization, by the name of its Keras layers without `_conv` or `_norm`."""
        found = [("stem", self.stem)]
        for name, block in self.blocks.items():
            found += [(f"{name}_{part}", getattr(block, part)) for part in ("a", "b", "skip")]
        return [(name, unit) for name, unit in found if unit is not None]

    def _by_layer(self) -> list[tuple[str, list[torch.Tensor]]]:
        found = []
        for name, unit in self.units():
            found.append((f"{name}_conv", [unit.conv.weight]))
            norm = unit.norm
            found.append((f"{name}_norm", [norm.weight, norm.bias, norm.running_mean, norm.running_var]))
        return [*found, ("logits", [self.logits.weight, self.logits.bias])]

    def named_tensors(self) -> list[tuple[str, torch.Tensor]]:
        """The same, each with its layer's name."""
        return [(name, tensor) for name, tensors in self._by_layer() for tensor in tensors]

    def take(self, model: keras.Model) -> "TorchNetwork":
        """Copy a Keras network's weights into this one."""
        with torch.no_grad():
            for name, tensors in self._by_layer():
                for tensor, value in zip(tensors, model.get_layer(name).get_weights(), strict=True):
                    tensor.copy_(torch.from_numpy(np.ascontiguousarray(_torch_order(value))))
        return self

    def give(self, model: keras.Model) -> None:
        """Copy this network's weights into a Keras network."""
        for name, tensors in self._by_layer():
            model.get_layer(name).set_weights([_keras_order(tensor.detach().cpu().numpy()) for tensor in tensors])

    def folded(self) -> "TorchNetwork":
        """A copy for inference, its normalizations folded into the convolutions."""
        result = copy.deepcopy(self).eval()
        for unit in [module for module in result.modules() if isinstance(module, _Convolution)]:
            unit.conv = nn.utils.fuse_conv_bn_eval(unit.conv, unit.norm)
            unit.norm = nn.Identity()
        return result.to(memory_format=torch.channels_last).requires_grad_(False)


def _torch_order(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keras's (height, width, in, out) or (in, out) to torch's (out, in, height, width) or (out, in)."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _keras_order(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
