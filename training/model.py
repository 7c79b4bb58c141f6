"""The network: a compact residual CNN of plain 3x3 convolutions, the kind that int8 speeds up most (3.5-4x on x86)."""

from dataclasses import dataclass

import keras
from keras import layers

from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE
from training.console import quiet

INPUT_SHAPE = (FACE_SIZE, FACE_SIZE, 1)
# Channels in units of the width, and residual blocks: 24, 12, 6 and 3 pixels wide.
STAGES = ((1, 1), (2, 1), (4, 2), (8, 1))
# FER2013's mean grey level is 129 and its deviation 65: about [-2, 2].
MEAN_GREY, SPREAD_GREY = 128.0, 64.0
NORM_MOMENTUM, NORM_EPSILON = 0.9, 1e-5


def stem_channels(width: int) -> int:
    """Half of the first stage's: at 48x48 it is memory that takes the time, and the other half bought no accuracy."""
    return max(1, width // 2)


def build_model(
    width: int = 32,
    dropout: float = 0.1,
    policy: str = "float32",
    seed: int = 0,
    mirror: bool = False,
) -> keras.Model:
    """The untrained network, the same on every Keras backend.

    Input: (n, 48, 48, 1) raw grey levels, 0 to 255, so that the int8 input is exactly `pixel - 128`.
    Output: (n, 7) float32 probabilities in `EMOTIONS` order.
    policy: the Keras dtype policy of the layers; files are always saved from a float32 one.
    seed: of the first weights and of dropout.
    mirror: look at the face and at its mirror image, and average. The weights are the same and stay one copy; the
    work doubles. For the files that are used, not for training.
    """
    with quiet():  # Keras imports TensorFlow here, where it is installed, on any backend
        keras.utils.set_random_seed(seed)
    make = _Layers(policy)
    pixels = keras.Input(INPUT_SHAPE, name="pixels")
    # On the batch axis, as a second picture: two calls of the same layers would become two copies in a TFLite file.
    views = keras.ops.concatenate([pixels, keras.ops.flip(pixels, axis=2)], axis=0) if mirror else pixels
    x = layers.Rescaling(1 / SPREAD_GREY, offset=-MEAN_GREY / SPREAD_GREY, dtype=policy, name="rescale")(views)
    x = make.convolution(x, stem_channels(width), 1, "stem")
    for stage, (multiple, blocks) in enumerate(STAGES, start=1):
        for block in range(blocks):
            x = make.residual(x, width * multiple, 2 if block == 0 else 1, f"stage{stage}_{block + 1}")
    x = layers.GlobalAveragePooling2D(dtype=policy, name="pool")(x)
    if mirror:
        # The layer behind is linear: the mean of the features gives the mean of the logits.
        x = keras.ops.mean(keras.ops.reshape(x, (2, -1, x.shape[-1])), axis=0)
    x = layers.Dropout(dropout, seed=seed, dtype=policy, name="dropout")(x)
    x = layers.Dense(len(EMOTIONS), dtype=policy, name="logits")(x)
    scores = layers.Softmax(dtype="float32", name="scores")(x)
    return keras.Model(pixels, scores, name="emotiond")


@dataclass(frozen=True)
class _Layers:
    policy: str

    def convolution(
        self, x: keras.KerasTensor, channels: int, stride: int, name: str, relu: bool = True, size: int = 3
    ) -> keras.KerasTensor:
        """Convolution, batch normalization and ReLU: the converter folds the three into one int8 operation."""
        options = {"use_bias": False, "kernel_initializer": "he_normal", "dtype": self.policy}
        x = layers.Conv2D(channels, size, stride, "same", name=f"{name}_conv", **options)(x)
        norm = {"momentum": NORM_MOMENTUM, "epsilon": NORM_EPSILON, "dtype": self.policy}
        x = layers.BatchNormalization(**norm, name=f"{name}_norm")(x)
        return layers.ReLU(dtype=self.policy, name=f"{name}_relu")(x) if relu else x

    def residual(self, x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
        """Two 3x3 convolutions beside a shortcut (He et al. 2015, arXiv:1512.03385)."""
        shortcut = x if stride == 1 else self.convolution(x, channels, stride, f"{name}_skip", relu=False, size=1)
        x = self.convolution(x, channels, stride, f"{name}_a")
        x = self.convolution(x, channels, 1, f"{name}_b", relu=False)
        x = layers.Add(dtype=self.policy, name=f"{name}_add")([x, shortcut])
        return layers.ReLU(dtype=self.policy, name=f"{name}_out")(x)
