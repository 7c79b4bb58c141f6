"""What has changed in the picture: an unchanged one need not be searched, and a changed part is searched alone."""

import cv2
import numpy as np
import numpy.typing as npt

from edge.preprocess import as_grey
from edge.records import Box, Frame

COLUMNS = 80  # cells across a picture
ROWS_SKIPPED = 4  # every fourth row is enough for a cell's mean
CELL_CHANGE = 6  # grey levels of a cell's mean; the noise of a webcam is averaged away below that
STILL_CELLS = 2  # so many changed cells are no motion yet: a flickering lamp, a clock

Cells = npt.NDArray[np.uint8]


def cells_of(frame: Frame) -> Cells:
    """(rows, 80) uint8: the mean grey level of each cell of the frame."""
    height, width = frame.image.shape[:2]
    columns = min(COLUMNS, width)
    rows = max(1, round(height * columns / width))
    sparse = frame.image[:: ROWS_SKIPPED if height >= ROWS_SKIPPED * rows else 1]
    return np.asarray(cv2.resize(as_grey(sparse), (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def changed_part(before: Cells | None, now: Cells, frame: Frame) -> Box | None:
    """The box, in pixels of the frame, around all cells that changed; None if hardly any did.

    before: the cells of an earlier frame; None, or those of another resolution, means that all has changed.
    """
    if before is None or before.shape != now.shape:
        return frame.whole
    changed = cv2.absdiff(before, now) >= CELL_CHANGE
    if np.count_nonzero(changed) <= STILL_CELLS:
        return None
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    width, height = frame.size
    left, right = columns[0] * width // now.shape[1], -(-(columns[-1] + 1) * width // now.shape[1])
    top, bottom = rows[0] * height // now.shape[0], -(-(rows[-1] + 1) * height // now.shape[0])
    return Box(int(left), int(top), int(right - left), int(bottom - top))
