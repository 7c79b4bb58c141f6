"""The float32 network as a Keras model: what a project would run that had never heard of TFLite.

The Keras file that training wrote is not shipped. Its TFLite twin holds the same operations and weights, so the model
is built from that; batch normalization stays folded into the convolutions, which favours Keras a little.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import ConfigError, pip

BACKENDS = ("tensorflow", "torch", "jax")
DIFFERENCE_MAX = 1e-3  # of a probability, between Keras and TFLite


def choose_backend() -> str | None:
    """The Keras backend to take: KERAS_BACKEND, else the first that is installed; None without Keras or backend."""
    if importlib.util.find_spec("keras") is None:
        return None
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    return next((name for name in BACKENDS if importlib.util.find_spec(name)), None)


def limit_threads(backend: str, threads: int) -> None:
    """Let the backend use so many threads; before its first operation. JAX takes no such wish."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)


def build(path: Path) -> Any:
    """A `keras.Model` with the operations and weights of a float32 TFLite file. Raises ConfigError.

    Input (n, 48, 48, 1) and output (n, 7), float32 like the file's.
    """
    import keras

    graph = _Graph(path)
    tensors: dict[int, Any] = {}
    inputs = keras.Input(graph.shape(graph.inputs[0])[1:])
    tensors[graph.inputs[0]] = inputs
    for name, operator in graph.operators:
        builder = OPERATIONS.get(name)
        if builder is None:
            raise ConfigError(f"{path}: its operation {name} has no Keras twin in benchmarks/keras_twin.py")
        sources = [tensors[i] if i in tensors else graph.constant(i) for i in operator.inputs if i >= 0]
        tensors[operator.outputs[0]] = builder(graph, operator, sources)
    return keras.Model(inputs, tensors[graph.outputs[0]])


class _Graph:
    """A TFLite file's operators in their order, and its constants."""

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert import schema_py_generated as schema
        except ImportError:
            from tensorflow.lite.python import schema_py_generated as schema
        self.schema = schema
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        graph = model.subgraphs[0]
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        # An old field holds the code of old operators, a new one that of all.
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        self._buffers, self._tensors = model.buffers, graph.tensors
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.operators = [(names[codes[operator.opcodeIndex]], operator) for operator in graph.operators]

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(side) for side in self._tensors[index].shape)

    def constant(self, index: int) -> np.ndarray:
        """The values of a tensor that is no operator's output."""
        kinds = {self.schema.TensorType.FLOAT32: np.float32, self.schema.TensorType.INT32: np.int32}
        tensor = self._tensors[index]
        return (
            np.asarray(self._buffers[tensor.buffer].data, np.uint8).view(kinds[tensor.type]).reshape(self.shape(index))
        )

    def activated(self, x: Any, code: int) -> Any:
        """`x` after the activation that is fused into an operator."""
        from keras import layers

        kinds = self.schema.ActivationFunctionType
        if code == kinds.NONE:
            return x
        if code == kinds.RELU:
            return layers.ReLU()(x)
        raise ConfigError(f"fused activation {code} has no Keras twin in benchmarks/keras_twin.py")

    def padding(self, code: int) -> str:
        return "same" if code == self.schema.Padding.SAME else "valid"


def _convolution(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import layers

    x, kernel, bias = sources
    options = operator.builtinOptions
    layer = layers.Conv2D(
        kernel.shape[0], kernel.shape[1:3], (options.strideH, options.strideW), graph.padding(options.padding)
    )
    y = layer(x)
    layer.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    return graph.activated(y, options.fusedActivationFunction)


def _dense(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import layers

    x, kernel, *bias = sources
    layer = layers.Dense(kernel.shape[0], use_bias=bool(bias))
    y = layer(layers.Flatten()(x))
    layer.set_weights([kernel.T, *bias])
    return graph.activated(y, operator.builtinOptions.fusedActivationFunction)


def _arithmetic(act: Callable[[Any, Any], Any]) -> Callable[[_Graph, Any, list[Any]], Any]:
    def build_operation(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
        return graph.activated(act(*sources), operator.builtinOptions.fusedActivationFunction)

    return build_operation


def _mean(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import ops

    x, axes = sources
    return ops.mean(x, axis=tuple(map(int, np.atleast_1d(axes))), keepdims=operator.builtinOptions.keepDims)


def _reshape(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import layers, ops

    wanted = [int(side) for side in sources[1]] if len(sources) > 1 else []
    if wanted and wanted[0] > 1:  # not the batch, which Keras leaves open: two views of each face, say
        return ops.reshape(sources[0], wanted)
    return layers.Reshape(graph.shape(operator.outputs[0])[1:])(sources[0])


def _concatenation(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import ops

    joined = ops.concatenate(sources, axis=operator.builtinOptions.axis)
    return graph.activated(joined, operator.builtinOptions.fusedActivationFunction)


def _reverse(graph: _Graph, operator: Any, sources: list[Any]) -> Any:
    from keras import ops

    x, axes = sources
    return ops.flip(x, axis=tuple(map(int, np.atleast_1d(axes))))


def _softmax(_graph: _Graph, _operator: Any, sources: list[Any]) -> Any:
    from keras import ops

    return ops.softmax(sources[0])


# Those of the shipped network.
OPERATIONS: dict[str, Callable[[_Graph, Any, list[Any]], Any]] = {
    "CONV_2D": _convolution,
    "FULLY_CONNECTED": _dense,
    "ADD": _arithmetic(lambda a, b: a + b),
    "MUL": _arithmetic(lambda a, b: a * b),
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "CONCATENATION": _concatenation,
    "REVERSE_V2": _reverse,
    "SOFTMAX": _softmax,
}


def load(path: Path, threads: int | None = None) -> tuple[Any, str]:
    """The Keras twin of a float32 TFLite file, and the backend that runs it. Raises ConfigError."""
    backend = choose_backend()
    if backend is None:
        raise ConfigError(f"Keras is not installed, or none of its backends: {pip('install', '.[train]')}")
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # a device has none: processors are compared
    with contextlib.suppress(RuntimeError):  # something ran already: then the threads are as they are
        if threads is not None:
            limit_threads(backend, threads)
    return build(path), backend
