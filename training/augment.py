"""Augmentation on the CPU: one warp per image for all geometry, then light, erasing and mixup.

numpy and OpenCV only, so that every Keras backend sees the same pictures. About 20 microseconds an image.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge.preprocess import FACE_SIZE
from training.config import TrainConfig

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def augment(images: npt.NDArray[np.uint8], config: TrainConfig, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """(n, 48, 48) uint8 to (n, 48, 48, 1) float32 grey levels, 0 to 255. The same generator gives the same pictures."""
    count = len(images)
    warped = np.empty((count, FACE_SIZE, FACE_SIZE), np.float32)
    for index, matrix in enumerate(warps(count, config, random)):
        # The border is repeated, as the deployed crop does at the edge of a frame.
        warped[index] = cv2.warpAffine(
            images[index], matrix, (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    _relight(warped, config, random)
    _damage(warped, config, random)
    _erase(warped, config, random)
    return warped[..., None]


def warps(count: int, config: TrainConfig, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """(count, 2, 3) affine matrices about the centre: flip, rotation, zoom, shear, shift, and a Haar box's noise."""
    angle = np.radians(random.uniform(-config.rotation, config.rotation, count))
    # A detector gets the box's side wrong as well as its place.
    scale = np.exp(random.uniform(-config.zoom, config.zoom, count) + random.normal(0, config.jitter, count))
    shear = random.uniform(-config.shear, config.shear, count)
    mirror = np.where(random.random(count) < config.flip, -1.0, 1.0)
    offset = random.uniform(-config.shift, config.shift, (count, 2)) + random.normal(0, config.jitter, (count, 2))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrices = np.empty((count, 2, 3))
    matrices[:, 0, 0] = scale * cosine * mirror
    matrices[:, 0, 1] = scale * (shear * cosine - sine)
    matrices[:, 1, 0] = scale * sine * mirror
    matrices[:, 1, 1] = scale * (shear * sine + cosine)
    centre = (FACE_SIZE - 1) / 2
    matrices[:, :, 2] = centre + offset * FACE_SIZE - matrices[:, :, :2].sum(axis=2) * centre
    return matrices


def _relight(images: npt.NDArray[np.float32], config: TrainConfig, random: np.random.Generator) -> None:
    """Change contrast about each image's mean, and brightness, in place."""
    count = len(images)
    gain = np.exp(random.uniform(-config.contrast, config.contrast, count)).astype(np.float32)
    lift = random.uniform(-config.brightness, config.brightness, count).astype(np.float32)
    mean = images.mean(axis=(1, 2))
    images *= gain[:, None, None]
    images += (mean * (1 - gain) + lift)[:, None, None]
    np.clip(images, 0, 255, out=images)


def _damage(images: npt.NDArray[np.float32], config: TrainConfig, random: np.random.Generator) -> None:
    """Spoil a share of the images as cameras do, in place: each of them in one or two ways."""
    ways = (_blur, _few_pixels, _dark_and_noisy, _jpeg)
    for index in np.flatnonzero(random.random(len(images)) < config.damage):
        # In this order: a lens blurs, a sensor adds noise, and the picture is packed at last.
        for way in sorted(random.choice(len(ways), random.integers(1, 3), replace=False)):
            images[index] = ways[way](images[index], random)


def _few_pixels(image: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """A face that was smaller than the network's input, enlarged as `edge.preprocess.crop_face` does it."""
    side = int(random.integers(20, 44))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_LINEAR), np.float32)


def _blur(image: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.3)), np.float32)


def _dark_and_noisy(image: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    noise = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(2, 14))
    return np.clip(image * np.float32(random.uniform(0.25, 1)) + noise, 0, 255)


def _jpeg(image: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 85))]
    packed = cv2.imencode(".jpg", np.rint(image).astype(np.uint8), quality)[1]
    return cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE).astype(np.float32)


def _erase(images: npt.NDArray[np.float32], config: TrainConfig, random: np.random.Generator) -> None:
    """Replace a rectangle of 2 to 20 % of the area by noise (Zhong et al. 2017, arXiv:1708.04896), in place."""
    for index in np.flatnonzero(random.random(len(images)) < config.erasing):
        area = random.uniform(0.02, 0.2) * FACE_SIZE**2
        aspect = math.exp(random.uniform(math.log(0.3), math.log(3.3)))
        height = min(FACE_SIZE, max(1, round(math.sqrt(area * aspect))))
        width = min(FACE_SIZE, max(1, round(math.sqrt(area / aspect))))
        top, left = random.integers(0, FACE_SIZE - height + 1), random.integers(0, FACE_SIZE - width + 1)
        images[index, top : top + height, left : left + width] = random.uniform(0, 255, (height, width))


def mixup(
    images: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], alpha: float, random: np.random.Generator
) -> Batch:
    """Blend each image and its target with another of the batch (Zhang et al. 2017, arXiv:1710.09412)."""
    share = np.float32(random.beta(alpha, alpha))
    partner = random.permutation(len(images))
    return share * images + (1 - share) * images[partner], share * targets + (1 - share) * targets[partner]
