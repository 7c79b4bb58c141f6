"""Face boxes of successive frames become tracks with stable ids. Pure: no clock, no picture, ids of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge.config import TrackerConfig
from edge.records import Box, Face, Track

SAME_SIZE = 0.7  # the smaller side over the larger one, of a face that moved on


@dataclass(slots=True)
class _Candidate:
    """A face that is followed; it gets its id once it was found often enough."""

    box: Box
    found_at: float
    sure: bool
    """So clear a face that it need not be found again to be believed."""
    id: int | None = None
    age: int = 1
    missed: int = 0


class Tracker:
    """Joins detections to tracks by overlap, then by nearness; best pairs first."""

    def __init__(self, config: TrackerConfig) -> None:
        self._config = config
        self._candidates: list[_Candidate] = []
        self._next_id = 1

    def update(self, faces: Sequence[Face], at: float) -> list[Track]:
        """Take the faces of the frame at `at` (seconds); returns the confirmed tracks, oldest first.

        A track that is missed coasts for `coast_s` (its `missed` counts up), then is no longer returned.
        """
        unmatched = self._match(faces, at)
        self._candidates = [candidate for candidate in self._candidates if self._is_kept(candidate, at)]
        self._candidates += [_Candidate(face.box, at, sure=self._is_sure(face)) for face in unmatched]
        for candidate in self._candidates:
            if candidate.id is None and (candidate.sure or candidate.age >= self._config.confirm_frames):
                candidate.id, self._next_id = self._next_id, self._next_id + 1
        confirmed = [Track(c.id, c.box, c.age, c.missed) for c in self._candidates if c.id is not None]
        return sorted(confirmed, key=lambda track: track.id)

    @property
    def known(self) -> list[Box]:
        """Where faces were last found, the oldest first; also those that coast or are not confirmed yet."""
        return [candidate.box for candidate in self._candidates]

    def clear(self) -> None:
        """Forget all faces; ids are not used again."""
        self._candidates = []

    def _match(self, faces: Sequence[Face], at: float) -> list[Face]:
        """Continue candidates with the faces that lie nearest to them; returns the faces that are left."""
        pairs = [
            (_likeness(candidate.box, face.box, self._config.min_overlap), row, column)
            for row, candidate in enumerate(self._candidates)
            for column, face in enumerate(faces)
        ]
        free_rows, free_columns = set(range(len(self._candidates))), set(range(len(faces)))
        for likeness, row, column in sorted(pairs, reverse=True):
            if likeness <= 0 or not free_rows or not free_columns:
                break
            if row in free_rows and column in free_columns:
                free_rows.remove(row)
                free_columns.remove(column)
                candidate = self._candidates[row]
                candidate.box = blend(candidate.box, faces[column].box, self._config.box_smoothing)
                candidate.found_at, candidate.missed = at, 0
                candidate.sure |= self._is_sure(faces[column])
                candidate.age += 1
        for row in free_rows:
            self._candidates[row].missed += 1
        return [faces[column] for column in sorted(free_columns)]

    def _is_sure(self, face: Face) -> bool:
        return face.confidence >= self._config.sure_confidence

    def _is_kept(self, candidate: _Candidate, at: float) -> bool:
        # What was not confirmed yet is dropped at its first miss: false faces flicker.
        return candidate.missed == 0 or (candidate.id is not None and at - candidate.found_at <= self._config.coast_s)


def _likeness(known: Box, found: Box, min_overlap: float) -> float:
    """How likely two boxes are one face: above 1 if they overlap enough, above 0 if one is just beside the other.

    A face that was missed for some frames may have moved on by its own width.
    """
    overlap = known.overlap(found)
    if overlap >= min_overlap:
        return 1 + overlap
    side = max(known.w, found.w)
    distance = math.hypot(known.x - found.x + (known.w - found.w) / 2, known.y - found.y + (known.h - found.h) / 2)
    alike = min(known.w, found.w) / side >= SAME_SIZE
    return 1 - distance / side if alike else 0.0


def blend(old: Box, new: Box, share_of_old: float) -> Box:
    """The box between two; Haar boxes jitter by some pixels, and so would the crops and the drawing."""

    def between(before: int, after: int) -> int:
        return round(share_of_old * before + (1 - share_of_old) * after)

    return Box(between(old.x, new.x), between(old.y, new.y), between(old.w, new.w), between(old.h, new.h))
