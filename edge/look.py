"""How a face looked where it was found: that tells where it is a few frames later, without searching for it."""

import cv2
import numpy as np
import numpy.typing as npt

from edge.preprocess import as_grey
from edge.records import Box, Frame

SIDE = 24  # px; what the cascade sees of a face
# Grey levels, as root mean square. Faces of the test clips that differ by about as much have moved by a hundredth of
# their side on average, no more than their boxes jitter.
ALIKE = 5.0
MOVE_MIN = 0.3  # px of SIDE; less is noise
MOVE_MAX = 1.0  # px of SIDE; farther away the face's gradient says nothing of what is there
# Of the look's contrast, what a movement leaves unexplained: in most frames of the test clips 0.1 to 0.4, also where
# people speak.
UNEXPLAINED_MAX = 0.5
STRAIGHT = 1e-3  # of a straight edge nobody can say how far it has moved along itself

Floats = npt.NDArray[np.float32]


class Look:
    """A face as it was in one frame."""

    def __init__(self, frame: Frame, box: Box) -> None:
        """box: where the face was. Raises ValueError if it does not touch the frame."""
        inside = frame.part(box)
        if inside is None:
            raise ValueError(f"{box} lies outside the frame")
        self._box, self._inside = box, inside
        self._cells = _cells_of(frame, inside).astype(np.float32)
        self._movements: _Movements | None = None

    def found_in(self, frame: Frame) -> Box | None:
        """Where the face is in a later frame of the same size: at its place or beside; None if something else is."""
        change = _cells_of(frame, self._inside) - self._cells
        squares = float(change.dot(change))
        if squares < ALIKE**2 * change.size:
            return self._box
        self._movements = self._movements or _Movements(self._cells)
        movement = self._movements.that_explain(change, squares)
        if movement is None:
            return None
        (right, down), box, seen = movement, self._box, self._inside
        if max(abs(right), abs(down)) < MOVE_MIN:
            return box
        return Box(box.x + round(right * seen.w / SIDE), box.y + round(down * seen.h / SIDE), box.w, box.h)


class _Movements:
    """What small movements do to a look: one step of Lucas and Kanade 1981, by the gradient of the earlier picture
    (Baker and Matthews 2004), which is the same for all later ones. To become lighter or darker is no movement.
    """

    def __init__(self, cells: Floats) -> None:
        """cells: (576,)."""
        picture, self._pixels = cells.reshape(SIDE, SIDE), cells.size
        effects = np.zeros((3, SIDE, SIDE), np.float32)
        effects[0, :, 1:-1] = (picture[:, :-2] - picture[:, 2:]) / 2  # of a pixel to the right
        effects[1, 1:-1] = (picture[:-2] - picture[2:]) / 2  # of a pixel down
        effects[2] = 1.0  # of a grey level more
        self._effects = effects.reshape(3, -1)
        (xx, xy, x), (_, yy, y), _ = (self._effects @ self._effects.T).tolist()
        # The normal equations; what a change of all pixels does too is taken out of both movements.
        self._x, self._y = x / self._pixels, y / self._pixels
        self._xx, self._xy, self._yy = xx - x * self._x, xy - x * self._y, yy - y * self._y
        self._determinant = self._xx * self._yy - self._xy**2
        self._contrast = float(cells.dot(cells)) - float(self._effects[2].dot(cells)) ** 2 / self._pixels

    def that_explain(self, change: Floats, squares: float) -> tuple[float, float] | None:
        """Pixels to the right and down by which a look has moved; None if it has not, or too far.

        change: (576,), grey levels; squares: their sum of squares.
        """
        if self._determinant <= STRAIGHT * self._xx * self._yy:
            return None
        x, y, lighter = self._effects.dot(change).tolist()
        x, y = x - self._x * lighter, y - self._y * lighter
        right = (self._yy * x - self._xy * y) / self._determinant
        down = (self._xx * y - self._xy * x) / self._determinant
        unexplained = squares - lighter**2 / self._pixels - right * x - down * y
        if max(abs(right), abs(down)) > MOVE_MAX or unexplained > UNEXPLAINED_MAX**2 * self._contrast:
            return None
        return right, down


def _cells_of(frame: Frame, inside: Box) -> npt.NDArray[np.uint8]:
    """(576,): what is in a box, made small."""
    small = cv2.resize(as_grey(inside.cut(frame.image)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()
