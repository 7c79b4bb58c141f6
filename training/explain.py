"""Where the network looks: gradient-weighted class activation maps over pictures.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) in the form for layers before the last one, LayerCAM (Jiang et al.
2021, doi:10.1109/TIP.2021.3089943).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import keras
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box
from training.plots import INK, MUTED, STYLE
from training.readers import read_grey

# 6x6 places: the last stage has only 3x3, the one before no more idea of a mouth than of any other edge.
LAYER = "stage3_2_out"


def activation_maps(
    model: keras.Model, images: npt.NDArray[np.uint8], layer: str = LAYER
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What speaks for each emotion, and where.

    images: (n, 48, 48). Returns maps (n, 7, 48, 48), each from 0 to 1 of the largest value for its picture, and
    scores (n, 7). Raises BadDataError if the network lacks the layer or was not built by `training.model`.
    """
    try:
        features = keras.Model(model.input, [model.get_layer(layer).output, model.output])
        # Without the softmax: its gradient vanishes where the network is sure.
        tail = keras.Model(model.get_layer(layer).output, model.get_layer("logits").output)
    except ValueError as error:
        raise BadDataError(f"no layer {layer} with logits behind it in this network: {error}") from error
    values, scores = (keras.ops.convert_to_numpy(out) for out in features(images[..., None].astype(np.float32)))
    maps = []
    for emotion in range(len(EMOTIONS)):
        # Weights of each place, not of each channel as Grad-CAM has them: before the last stage one channel speaks
        # for an emotion here and against it there, and their mean hid the clearest smiles.
        maps.append((np.maximum(_gradient(tail, emotion)(values), 0) * values).sum(axis=-1))
    stacked = np.stack(maps, axis=1)
    if len(stacked) > len(images):  # of a network that looks at the mirror image too: turned back, and averaged
        stacked = (stacked[: len(images)] + stacked[len(images) :, ..., ::-1]) / 2
    largest = stacked.max(axis=(1, 2, 3), keepdims=True)
    scaled = stacked / np.maximum(largest, 1e-12)
    resized = [
        [cv2.resize(place, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_CUBIC) for place in one] for one in scaled
    ]
    return np.clip(np.array(resized, np.float32), 0, 1), np.asarray(scores, np.float32)


def _gradient(tail: keras.Model, emotion: int) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """The derivative of one emotion's logit by the features, by the backend's own means."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        def by_torch(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            watched = torch.tensor(values, requires_grad=True)
            (slope,) = torch.autograd.grad(tail(watched)[:, emotion].sum(), watched)
            return slope.numpy()

        return by_torch
    if backend == "jax":
        import jax

        state = [v.value for v in tail.trainable_variables], [v.value for v in tail.non_trainable_variables]

        def by_jax(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return np.asarray(jax.grad(lambda v: tail.stateless_call(*state, v)[0][:, emotion].sum())(values))

        return by_jax
    import tensorflow as tf

    def by_tensorflow(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        watched = tf.convert_to_tensor(values)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            logit = tf.reduce_sum(tail(watched)[:, emotion])
        return tape.gradient(logit, watched).numpy()

    return by_tensorflow


def read_face(path: Path) -> npt.NDArray[np.uint8]:
    """The largest face that Haar finds in a picture, or all of it: (48, 48) uint8, cut as the daemon cuts.

    Raises InputNotFoundError, or BadDataError for a file that is no picture.
    """
    if not path.is_file():
        raise InputNotFoundError(f"{path}: picture not found")
    grey = read_grey(path)
    height, width = grey.shape
    boxes: Sequence[Sequence[int]] = [(0, 0, width, height)]
    if min(height, width) >= 2 * FACE_SIZE:  # smaller ones are crops already
        cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
        found = cascade.detectMultiScale(grey, 1.1, 4, minSize=(FACE_SIZE, FACE_SIZE))
        boxes = found if len(found) else boxes
    x, y, w, h = (int(value) for value in max(boxes, key=lambda box: box[2] * box[3]))
    return crop_face(grey, Box(x, y, w, h))


@mpl.rc_context(STYLE)
def grid(
    images: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    names: Sequence[str],
    emotions: Sequence[str] = EMOTIONS,
) -> Figure:
    """One row per picture: the face, then its map for each emotion, with the probability. The likeliest is bold."""
    columns = 1 + len(emotions)
    figure = Figure(figsize=(1.35 * columns, 1.6 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for row, (image, face_maps, face_scores, name) in enumerate(zip(images, maps, scores, names, strict=True)):
        for axis in axes[row]:
            axis.set_axis_off()
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes[row, 0].set_title(name if len(name) < 18 else f"{name[:16]}..", fontsize=8, color=MUTED, loc="center")
        for axis, emotion in zip(axes[row, 1:], emotions, strict=True):
            label = EMOTIONS.index(emotion)
            heat = face_maps[label]
            axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * heat**0.5)
            likeliest = label == face_scores.argmax()
            title = f"{emotion} {face_scores[label]:.0%}"
            axis.set_title(title, fontsize=8, color=INK, loc="center", fontweight="bold" if likeliest else "normal")
    return figure
