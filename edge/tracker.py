"""Face boxes of successive frames become tracks with stable ids. Pure: no clock, no picture, ids of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.config import TrackerConfig
from edge.records import Box, Face, Track


@dataclass(slots=True)
class _Candidate:
    """A face that is followed; it gets its id once it was found often enough."""

    box: Box
    found_at: float
    id: int | None = None
    age: int = 1
    missed: int = 0


class Tracker:
    """Joins detections to tracks by overlap, best pairs first."""

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
        self._candidates += [_Candidate(face.box, at) for face in unmatched]
        for candidate in self._candidates:
            if candidate.id is None and candidate.age >= self._config.confirm_frames:
                candidate.id, self._next_id = self._next_id, self._next_id + 1
        confirmed = [Track(c.id, c.box, c.age, c.missed) for c in self._candidates if c.id is not None]
        return sorted(confirmed, key=lambda track: track.id)

    def clear(self) -> None:
        """Forget all faces; ids are not used again."""
        self._candidates = []

    def _match(self, faces: Sequence[Face], at: float) -> list[Face]:
        """Continue candidates with the faces that overlap them most; returns the faces that are left."""
        pairs = [
            (overlap(candidate.box, face.box), row, column)
            for row, candidate in enumerate(self._candidates)
            for column, face in enumerate(faces)
        ]
        free_rows, free_columns = set(range(len(self._candidates))), set(range(len(faces)))
        for shared, row, column in sorted(pairs, reverse=True):
            if shared < self._config.min_overlap or not free_rows or not free_columns:
                break
            if row in free_rows and column in free_columns:
                free_rows.remove(row)
                free_columns.remove(column)
                candidate = self._candidates[row]
                candidate.box = blend(candidate.box, faces[column].box, self._config.box_smoothing)
                candidate.found_at, candidate.missed = at, 0
                candidate.age += 1
        for row in free_rows:
            self._candidates[row].missed += 1
        return [faces[column] for column in sorted(free_columns)]

    def _is_kept(self, candidate: _Candidate, at: float) -> bool:
        # What was not confirmed yet is dropped at its first miss: false faces flicker.
        return candidate.missed == 0 or (candidate.id is not None and at - candidate.found_at <= self._config.coast_s)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a.w * a.h + b.w * b.h - shared)


def blend(old: Box, new: Box, share_of_old: float) -> Box:
    """The box between two; Haar boxes jitter by some pixels, and so would the crops and the drawing."""

    def between(before: int, after: int) -> int:
        return round(share_of_old * before + (1 - share_of_old) * after)

    return Box(between(old.x, new.x), between(old.y, new.y), between(old.w, new.w), between(old.h, new.h))
