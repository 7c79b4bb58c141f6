"""Reads a picture's file, whatever is in it, in bounded memory."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError
from edge.preprocess import usable

# With edge.people_commands' limit on the pixels that OpenCV decodes, this bounds what one picture can take.
FILE_SIZE_MAX = 256 * 2**20  # bytes


def load(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes of a file, (n,) uint8. Raises BadDataError for what cannot be read or can be no picture."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise BadDataError(f"cannot be read: {error.strerror}") from None
    if not content:
        raise BadDataError("the file is empty")
    if len(content) > FILE_SIZE_MAX:
        raise BadDataError(f"larger than {FILE_SIZE_MAX >> 20} MB, which no picture needs")
    return np.frombuffer(content, np.uint8)


def decode(data: npt.NDArray[np.uint8], grey: bool = False) -> npt.NDArray[np.uint8]:
    """The first picture of a file, upright, in eight bits, without transparency: (h, w, 3) BGR, or (h, w) grey.

    data: (n,) uint8, the file's bytes. A JPEG that is too large is decoded at half its size; grey, it takes half of the
    time. Raises BadDataError, whose text says what is wrong.
    """
    whole, half = (
        (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_REDUCED_GRAYSCALE_2)
        if grey
        else (cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2)
    )
    for flags in (whole, half):
        try:
            # OpenCV looks at the size in the header before it takes memory; only JPEG can be decoded smaller.
            image = usable(cv2.imdecode(data, flags))
        except cv2.error as error:
            if "MAX_IMAGE" not in str(error.err):
                raise BadDataError("damaged, or of a kind that OpenCV cannot read") from None
            continue
        if image is None:
            raise BadDataError("not a picture that OpenCV can read")
        return image
    raise BadDataError("has too many pixels; make it smaller first")
