"""A Keras network to TFLite, in float32 and in full int8. Needs Keras on the TensorFlow backend."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge.errors import BadDataError
from edge.preprocess import FACE_SIZE
from edge.quantization import PIXEL_QUANTIZATION, Quantization
from training.evaluate import load_keras

INPUT_SHAPE = (1, FACE_SIZE, FACE_SIZE, 1)
Samples = Callable[[], Iterable[npt.NDArray[np.float32]]]


def load_float32(path: Path) -> keras.Model:
    """The network in a `.keras` file, every layer in float32 whatever precision it was trained with.

    Raises InputNotFoundError, or BadDataError for a file that is no such network.
    """
    trained = load_keras(path)
    rebuilt = keras.models.model_from_json(json.dumps(_without_mixed_precision(json.loads(trained.to_json()))))
    rebuilt.set_weights(trained.get_weights())
    return rebuilt


def _without_mixed_precision(config: Any) -> Any:
    """The same configuration with float32 in place of every mixed policy."""
    if isinstance(config, dict):
        return {key: _without_mixed_precision(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_mixed_precision(value) for value in config]
    return "float32" if config in ("mixed_bfloat16", "mixed_float16") else config


def to_tflite(model: keras.Model, samples: Samples) -> tuple[bytes, bytes]:
    """The float32 and the int8 file's contents.

    samples: yields (1, 48, 48, 1) float32 inputs, which set the ranges of the int8 tensors.
    Raises BadDataError if the int8 input is not exactly `pixel - 128`.
    """
    with tempfile.TemporaryDirectory() as folder:
        signature = [keras.InputSpec(shape=INPUT_SHAPE, dtype="float32", name="pixels")]
        model.export(folder, input_signature=signature, verbose=False)
        # Each file from its own converter: settings of one must not leak into the float32 it is compared with.
        float32 = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        int8 = converter.convert()
    check_input(int8)
    return float32, int8


def check_input(content: bytes) -> None:
    """Raise BadDataError unless the model's input is int8 with PIXEL_QUANTIZATION, and every weight is int8."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    details = interpreter.get_input_details()[0]
    found = Quantization(*details["quantization"])
    if details["dtype"] is not np.int8 or found != PIXEL_QUANTIZATION:
        raise BadDataError(
            f"the quantized input is {details['dtype'].__name__} with scale {found.scale} and zero point "
            f"{found.zero_point}, not `pixel - 128`: the network must rescale inside, and calibration reach 0 and 255"
        )
    floats = [tensor["name"] for tensor in interpreter.get_tensor_details() if tensor["dtype"] is np.float32]
    if floats:
        raise BadDataError(f"the quantized network still computes {', '.join(floats[:3])} in float32")
