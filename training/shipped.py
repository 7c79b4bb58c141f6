"""A float32 TFLite file that `convert` made, read back as a torch network: the shipped network as a teacher."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge.errors import BadDataError, InputNotFoundError
from training.model import STAGES
from training.torch_network import TorchNetwork

MATRIX_OPS = ("CONV_2D", "FULLY_CONNECTED")


def load_shipped(path: Path) -> TorchNetwork:
    """The network in the file, normalizations folded in, for inference.

    Raises InputNotFoundError, or BadDataError for any other file than the float32 one of a network of this shape.
    """
    layers = _matrices(path)
    try:
        network = TorchNetwork(layers["stage1_1_a"][0].shape[0], 0.0).folded()
        for name, unit in network.units():
            _fill(unit.conv, *layers.pop(name))
        _fill(network.logits, *layers.pop("logits"))
    except (KeyError, RuntimeError) as error:
        raise BadDataError(f"{path}: a network of another shape than this version trains: {error}") from error
    if layers:
        raise BadDataError(f"{path}: a network of another shape than this version trains: {', '.join(layers)}")
    return network


def unfolded(folded: TorchNetwork, images: npt.NDArray[np.uint8]) -> TorchNetwork:
    """A network that says the same, with batch normalizations that can be trained on.

    What they would have measured is measured on `images`, (n, 48, 48) faces.
    """
    network = TorchNetwork(folded.logits.in_features // STAGES[-1][0], 0.0)
    pixels = torch.from_numpy(images.astype(np.float32))[:, None]
    for (_name, unit), (_, old) in zip(network.units(), folded.units(), strict=True):
        old.register_forward_hook(lambda _, __, out, unit=unit, old=old: _measure(unit, old, out))
    with torch.no_grad():
        network.logits.load_state_dict(folded.logits.state_dict())
        folded(pixels)
    return network


def _measure(unit: nn.Module, old: nn.Module, out: torch.Tensor) -> None:
    """Give a convolution and its normalization what makes them say `out`, which the folded one said."""
    norm, raw = unit.norm, out - old.conv.bias[:, None, None]
    unit.conv.weight.copy_(old.conv.weight)
    norm.running_mean.copy_(raw.mean(dim=(0, 2, 3)))
    norm.running_var.copy_(raw.var(dim=(0, 2, 3)))
    norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
    norm.bias.copy_(old.conv.bias + norm.running_mean)


def _matrices(path: Path) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Kernel and bias of each convolution and dense layer, by its name without `_conv`."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if not path.is_file():
        raise InputNotFoundError(f"{path}: no such file")
    try:
        # Without a delegate: it would hide the layers in one operation of its own.
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        reader = Interpreter(str(path), experimental_op_resolver_type=resolver)
        reader.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BadDataError(f"{path}: not a TFLite file: {' '.join(str(error).split())}") from error
    names = {tensor["index"]: tensor["name"] for tensor in reader.get_tensor_details()}
    found = {}
    for operation in reader._get_ops_details():  # there is no public door to them
        if operation["op_name"] in MATRIX_OPS:
            kernel, bias = (int(index) for index in operation["inputs"][1:])
            name = names[kernel].split("/")[1].removesuffix("_1").removesuffix("_conv")
            found[name] = [reader.get_tensor(kernel), reader.get_tensor(bias)]
    if any(array.dtype != np.float32 for arrays in found.values() for array in arrays):
        raise BadDataError(f"{path}: is quantized; give the float32 file that was made beside it")
    return found


def _fill(layer: nn.Module, kernel: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
    """Copy a kernel, (out, height, width, in) or (out, in), and a bias into a layer."""
    order = (0, 3, 1, 2) if kernel.ndim == 4 else (0, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(order))))
        layer.bias.copy_(torch.from_numpy(bias))
