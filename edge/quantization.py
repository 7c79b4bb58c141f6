"""Affine int8 quantization, in one place for the device, the converter and the benchmarks.

real = scale * (quantized - zero_point), after Jacob et al. 2018 (arXiv:1712.05877), as TFLite stores it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

INT8_MIN, INT8_MAX = -128, 127


class Quantization(NamedTuple):
    """The scale and zero point of one int8 tensor."""

    scale: float
    zero_point: int


# The network rescales inside, so that a raw pixel is its own real value and its int8 form is exactly `pixel - 128`.
PIXEL_QUANTIZATION = Quantization(scale=1.0, zero_point=-128)


def quantize(real: npt.ArrayLike, quantization: Quantization) -> npt.NDArray[np.int8]:
    """Real values of any shape to int8: rounded half to even and saturated, never wrapped."""
    steps = np.rint(np.asarray(real, np.float32) / quantization.scale) + quantization.zero_point
    return np.asarray(np.clip(steps, INT8_MIN, INT8_MAX), np.int8)


def dequantize(quantized: npt.NDArray[np.int8], quantization: Quantization) -> npt.NDArray[np.float32]:
    """int8 values of any shape back to float32 real values."""
    return np.asarray((quantized.astype(np.float32) - quantization.zero_point) * quantization.scale, np.float32)


def pixels_to_int8(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """uint8 pixels to a model input with `PIXEL_QUANTIZATION`: flipping the top bit subtracts 128."""
    return np.asarray(pixels ^ np.uint8(0x80)).view(np.int8)
