"""Face search with OpenCV's Haar cascade (Viola and Jones 2001): over a whole frame, and near a face that is known."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.config import HaarConfig
from edge.errors import ConfigError
from edge.preprocess import as_grey
from edge.records import SAME_FACE, Box, Face, Frame, distinct

CASCADE = "haarcascade_frontalface_default.xml"
# Debian's python3-opencv keeps the cascades in a package of their own (opencv-data).
DEBIAN_CASCADES = Path("/usr/share/opencv4/haarcascades")

WINDOW = 24  # px; the smallest face that the cascade sees

# A whole frame is first searched coarsely, in halves of its size: OpenCV steps by two pixels as long as a face is below
# twice the window (and by single ones above, which is four times the work). One hit makes a candidate, which is then
# searched for finely, at sizes for which the steps are single. On 258 pictures, the test clips' at random sizes, that
# takes two thirds of the time of searching all of it finely (1.2/4) and finds 93 % in place of 90 %, with half as many
# false ones.
OCTAVE_LARGEST = 2 * WINDOW - 2
# A second cascade, which was trained otherwise, must see a face too of which there are few fine hits: on thirteen clips
# that loses none, and the built-in clip shows no false one where it showed three in 240 frames. In a large picture more
# places look like a face by chance: there it is asked about all, and a candidate takes more hits. In 80 made pictures
# of 4000x3000, full of textures, with 703 pasted faces, three coarse hits alone found 406 of these and 74 false ones;
# so it is 450 and 7. The same cascade once more (mirrored, blurred, at other sizes) tells false ones hardly from faces.
HITS_MIN_LARGE = 2
SURE_HITS = 9
SECOND_CASCADE = "haarcascade_frontalface_alt.xml"
SECOND_SIDE = 40  # px of a face
SECOND_HITS_MIN = 3
SAME_SIZE = 0.1  # of a coarse hit and a known face: the follower finds faces that have changed by that
FINE_SIDE = 60  # px of a face
FINE_REACH = 0.3  # of its side

# The search near a known face, at its size alone: sweeps tell when a face has become larger or smaller. At first hardly
# beside its place, since most faces hardly move between two frames: OpenCV looks at nine windows there, at sixteen with
# the second reach. On thirteen test clips that takes two thirds of the time of beginning with the sixteen (with the
# built-in one, whose face moves fast, three quarters), and misses 40 faces in place of 52; with four windows (0.03) it
# takes less, and misses more. The first 16 or 20 of the cascade's 25 stages alone would take a half or 70 % of the
# time; even with all of them four times a second, more faces that walk were lost, and more ids exchanged.
FOLLOW_SIDE = 50  # px of the face; one for which the steps are single
NEXT_TO = (0.04, 0.06)  # of its side


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which faces to look for, in pixels of the picture that is searched."""

    smallest: int
    largest: int
    step: float
    """Ratio of one size to the next; OpenCV counts them from the window's own."""


FINE_SIZES = Sizes(round(0.7 * FINE_SIDE), round(1.4 * FINE_SIDE), 1.1)  # candidates may be wrong by two coarse steps
SECOND_SIZES = Sizes(round(0.7 * SECOND_SIDE), round(1.4 * SECOND_SIDE), 1.1)
FOLLOW_SIZES = Sizes(FOLLOW_SIDE - 2, FOLLOW_SIDE + 2, FOLLOW_SIDE / WINDOW)


class HaarDetector:
    """Searches frames, shrunk until `min_face` is 24 px, or to `search_width`: by far the dearest step of the pipeline.

    One thread at a time. coarsest: the most that a frame is shrunk by, however wide it is.
    """

    def __init__(self, config: HaarConfig, coarsest: float = math.inf) -> None:
        self._config, self._coarsest = config, coarsest
        self._cascade = _load_cascade(config)
        self._second: _Cascade | None = None

    def detect(self, frame: Frame, window: Box | None = None, known: Sequence[Box] = ()) -> list[Face]:
        """The frontal faces of a frame, largest first. `confidence` is the number of overlapping hits.

        window: look only there, at the same scale. known: faces that were just found in this frame; one is left out
        if it still seems to have its size, for looking closer is a quarter of the time.
        """
        inside = frame.part(window)
        if inside is None:
            return []
        coarse = max(self._config.min_face / WINDOW, frame.size[0] / self._config.search_width)
        large = coarse > self._coarsest
        shrink = max(1.0, min(coarse, self._coarsest))
        places = _places(self._hits(frame, inside, shrink), HITS_MIN_LARGE if large else 1)
        faces = [face for place in places if not _is_known(place, known) for face in self._fine(frame, place)]
        if self._config.cascade is None:
            sure = math.inf if large else SURE_HITS
            faces = [face for face in faces if face.confidence >= sure or self._is_seen_otherwise(frame, face.box)]
        found = distinct(sorted(faces, key=lambda face: -face.confidence))
        return sorted(found, key=lambda face: -face.box.w)

    def _hits(self, frame: Frame, inside: Box, shrink: float) -> list[Face]:
        """Where a face may be, in the frame shrunk so many times and in halves of that."""
        # The smallest face may be larger than the window at the scale that the frame is shrunk to.
        least = max(WINDOW, round(self._config.min_face / shrink))
        grey, found = _shrunk(as_grey(inside.cut(frame.image)), shrink), []
        while min(grey.shape) >= WINDOW:
            if least <= OCTAVE_LARGEST:
                hits = self._cascade.search(grey, Sizes(least, OCTAVE_LARGEST, self._config.scale_factor), neighbors=0)
                found += [_in_frame(hit, shrink, inside) for hit in hits]
            grey, shrink, least = _shrunk(grey, 2.0), shrink * 2, max(WINDOW, least // 2)
        return found

    def _fine(self, frame: Frame, box: Box) -> list[Face]:
        patch = frame.whole.common(box.grown(round(FINE_REACH * box.w)))
        if patch is None:
            return []
        found = self._cascade.search_part(frame, patch, box.w / FINE_SIDE, FINE_SIZES, self._config.min_neighbors)
        return [face for face in found if face.box.w >= self._config.min_face]

    def _is_seen_otherwise(self, frame: Frame, box: Box) -> bool:
        patch = frame.whole.common(box.grown(round(FINE_REACH * box.w)))
        if patch is None:
            return False
        self._second = self._second or _load_file(_installed(SECOND_CASCADE))
        hits = self._second.search_part(frame, patch, box.w / SECOND_SIDE, SECOND_SIZES, neighbors=0)
        return len(hits) >= SECOND_HITS_MIN


class HaarFollower:
    """Searches around faces that are known, at about their size: 30 times cheaper than a frame. One thread at a time.

    It has a cascade of its own, because a search over a whole frame may run at the same time.
    """

    def __init__(self, config: HaarConfig) -> None:
        self._config = config
        self._cascade = _load_cascade(config)

    def near(self, frame: Frame, box: Box, reach: float) -> Face | None:
        """The face that lies around `box`, if it is still there; the nearest to its place if there are several.

        reach: how far from the box to look, in shares of its side.
        """
        side = max(box.w, box.h)
        for within in (*(near for near in NEXT_TO if near < reach), reach):
            patch = frame.whole.common(box.grown(round(within * side)))
            if patch is None:
                return None
            faces = self._cascade.search_part(
                frame, patch, side / FOLLOW_SIDE, FOLLOW_SIZES, self._config.follow_neighbors
            )
            if faces:
                return max(faces, key=lambda face: face.box.overlap(box))
        return None


def _shrunk(grey: npt.NDArray[np.uint8], shrink: float) -> npt.NDArray[np.uint8]:
    height, width = grey.shape
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    if size == (width, height):
        return grey
    return np.asarray(
        cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrink > 1 else cv2.INTER_LINEAR), np.uint8
    )


def _places(hits: list[Face], hits_min: int) -> list[Box]:
    """The mean boxes of hits that belong together, if there are enough of them."""
    groups: list[list[Box]] = []
    for box in (hit.box for hit in hits):
        group = next((group for group in groups if group[0].overlap(box) >= SAME_FACE), None)
        if group is None:
            groups.append([box])
        else:
            group.append(box)
    return [
        Box(*(round(sum(sides) / len(group)) for sides in zip(*map(astuple, group), strict=True)))
        for group in groups
        if len(group) >= hits_min
    ]


def _is_known(place: Box, known: Sequence[Box]) -> bool:
    return any(place.overlap(box) >= SAME_FACE and abs(place.w / box.w - 1) < SAME_SIZE for box in known)


def _in_frame(hit: Face, shrink: float, inside: Box) -> Face:
    """A face found in a part of the frame that was shrunk, in pixels of the frame."""
    x, y, w, h = (round(side * shrink) for side in (hit.box.x, hit.box.y, hit.box.w, hit.box.h))
    return Face(Box(inside.x + x, inside.y + y, w, h), hit.confidence)


class _Cascade:
    def __init__(self, cascade: cv2.CascadeClassifier) -> None:
        self._cascade = cascade

    def search(self, grey: npt.NDArray[np.uint8], sizes: Sizes, neighbors: int) -> list[Face]:
        """The faces of a grey picture, in its pixels, smallest first; with 0 neighbours every single hit."""
        boxes, hits = self._cascade.detectMultiScale2(
            grey,
            scaleFactor=sizes.step,
            minNeighbors=neighbors,
            minSize=(sizes.smallest, sizes.smallest),
            maxSize=(sizes.largest, sizes.largest),
        )
        faces = [Face(Box(*map(int, box)), float(count)) for box, count in zip(boxes, hits, strict=True)]
        # OpenCV's threads add theirs as they come; this is the order of a single one.
        return sorted(faces, key=lambda face: (face.box.w, face.box.y, face.box.x))

    def search_part(self, frame: Frame, part: Box, shrink: float, sizes: Sizes, neighbors: int) -> list[Face]:
        """The faces in a part of a frame, in the frame's pixels. sizes: in those of the part when it is shrunk."""
        hits = self.search(_shrunk(as_grey(part.cut(frame.image)), shrink), sizes, neighbors)
        return [_in_frame(hit, shrink, part) for hit in hits]


def _load_cascade(config: HaarConfig) -> _Cascade:
    return _load_file(config.cascade or _installed(CASCADE))


def _load_file(path: Path) -> _Cascade:
    try:
        if not path.is_file():
            raise ConfigError(f"detector.cascade: {path}: no such file")
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"detector.cascade: {path}: {error.strerror}") from None
    cascade = cv2.CascadeClassifier()
    try:
        loaded = cascade.load(str(path))
    except cv2.error:
        loaded = False
    if not loaded:
        raise ConfigError(f"detector.cascade: {path}: not a Haar cascade that OpenCV can read")
    return _Cascade(cascade)


def _installed(name: str) -> Path:
    data = getattr(cv2, "data", None)
    return Path(data.haarcascades if data is not None else DEBIAN_CASCADES) / name
