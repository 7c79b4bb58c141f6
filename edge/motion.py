"""What has changed in the picture: an unchanged one need not be searched, and a changed part is searched alone."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge.preprocess import as_grey
from edge.records import Box, Frame

COLUMNS = 80  # cells across a picture
ROWS_SKIPPED = 4  # every fourth row is enough for a cell's mean
CELL_CHANGE = 6  # grey levels of a cell's mean; the noise of a webcam is averaged away below that
CHANGED = 255  # stands where a cell did
STILL_CELLS = 2  # so many changed cells are no motion yet: a flickering lamp, a clock

# Of the cells that a face covers so many change when it comes: in 640x480 at 99.8 % of 1,500 places where a face of 48
# px was pasted into a test clip, in 1920x1440 at 94 %. Of noise and small movements so many in one place hardly ever
# do.
PLACE_CHANGES = 0.6
INSIDE = 0.85  # of a face's side, in which the background has no part

Cells = npt.NDArray[np.uint8]


def cells_of(frame: Frame) -> Cells:
    """(rows, 80) uint8: the mean grey level of each cell of the frame."""
    height, width = frame.image.shape[:2]
    columns = min(COLUMNS, width)
    rows = max(1, round(height * columns / width))
    sparse = frame.image[:: ROWS_SKIPPED if height >= ROWS_SKIPPED * rows else 1]
    return np.asarray(cv2.resize(as_grey(sparse), (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def has_changed(before: Cells | None, now: Cells) -> bool:
    """Whether more than hardly any cells did.

    before: the cells of an earlier frame; None, or those of another resolution, means that all has changed.
    """
    return cv2.countNonZero(_changes(before, now)) > STILL_CELLS


def changed_parts(
    before: Cells | None, now: Cells, frame: Frame, margin: int, least: int = 1, but: Sequence[Box] = ()
) -> list[Box]:
    """Boxes, in pixels of the frame, that hold all places of `least` px and more that changed, and `margin` px around.

    There is none if hardly any cells changed, as `has_changed`. before: as there. but: parts of the frame where no
    change counts.
    """
    changes = _changes(before, now)
    rows, columns = changes.shape
    for box in but:
        if (cells := Box(0, 0, columns, rows).common(_scaled(box, frame.size, (columns, rows)))) is not None:
            cells.cut(changes)[:] = 0
    if cv2.countNonZero(changes) <= STILL_CELLS:
        return []
    side = max(1, int(INSIDE * least * columns / frame.size[0]))
    share = cv2.blur(changes, (side, side), borderType=cv2.BORDER_CONSTANT)
    middles = np.asarray(share >= PLACE_CHANGES * CHANGED, np.uint8)
    reach = side // 2 + math.ceil(margin * columns / frame.size[0])
    around = cv2.dilate(middles, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    boxes = [Box(*map(int, place[:4])) for place in cv2.connectedComponentsWithStats(around)[2][1:]]
    return [_scaled(box, (columns, rows), frame.size) for box in _apart(boxes)]


def _apart(boxes: Sequence[Box]) -> list[Box]:
    """The same, but those that overlap as one around them."""
    found: list[Box] = []
    for box in boxes:
        while (other := next((each for each in found if each.common(box) is not None), None)) is not None:
            found.remove(other)
            box = box.joined(other)
        found.append(box)
    return found


def _changes(before: Cells | None, now: Cells) -> Cells:
    """0 where a cell stayed as it was, else `CHANGED`."""
    if before is None or before.shape != now.shape:
        return np.full_like(now, CHANGED)
    _, changes = cv2.threshold(cv2.absdiff(before, now), CELL_CHANGE - 1, CHANGED, cv2.THRESH_BINARY)
    return np.asarray(changes, np.uint8)


def _scaled(box: Box, size: tuple[int, int], to: tuple[int, int]) -> Box:
    """What a box in a picture of one size, width and height, covers wholly or in part in another size."""
    left, top = box.x * to[0] // size[0], box.y * to[1] // size[1]
    right, bottom = -(-(box.x + box.w) * to[0] // size[0]), -(-(box.y + box.h) * to[1] // size[1])
    return Box(left, top, right - left, bottom - top)
