"""From the scores of single frames to what can be said of a face, and which change of that is an event."""

import math
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from edge.config import EmotionConfig
from edge.records import Event, EventType, Frame, Reading, Scores, Track


@dataclass(slots=True)
class _Memory:
    """What is known of one track."""

    started_at: datetime
    read_at: float
    reading: Reading
    top: tuple[str, float]
    """Of the reading's scores."""
    leader: str | None = None
    """The emotion that would become the stable one."""
    leads_since: float = 0.0


class EmotionPolicy:
    """Smooths scores per track and moves its stable emotion with hysteresis.

    An emotion becomes stable when it leads with at least `min_confidence` for `dwell_s`, and stays until another
    does; before the first one the emotion is None rather than a guess.
    """

    def __init__(self, config: EmotionConfig) -> None:
        self._config = config
        self._memories: dict[int, _Memory] = {}

    def update(
        self, tracks: Sequence[Track], scores: Sequence[Scores | None], frame: Frame
    ) -> tuple[list[Reading], list[Event]]:
        """Take the scores of this frame's tracks (None for one that was not read in it: what it showed last holds).

        Returns how every face stands now, and what changed, in the order of the tracks; ends come last.
        """
        events = []
        for track, seen in zip(tracks, scores, strict=True):
            events += self._read(track, seen, frame)
        alive = {track.id for track in tracks}
        for track_id in [known for known in self._memories if known not in alive]:
            memory = self._memories.pop(track_id)
            events.append(_event("end", memory, memory.reading.emotion, frame))
        return [memory.reading for memory in self._memories.values()], events

    def _read(self, track: Track, seen: Scores | None, frame: Frame) -> list[Event]:
        memory = self._memories.get(track.id)
        if memory is None:
            if seen is None:
                return []
            memory = _Memory(frame.wall_time, frame.media_time, Reading(track, seen, emotion=None), seen.top)
            self._memories[track.id] = memory
            return [_event("new", memory, None, frame)]
        scores, previous = memory.reading.scores, memory.reading.emotion
        if seen is not None:
            scores = self._smoothed(memory, seen, frame.media_time)
            memory.top = scores.top
        emotion = self._stable_emotion(memory, frame.media_time) if track.missed == 0 else previous
        memory.reading = Reading(track, scores, emotion)
        return [_event("update", memory, previous, frame)] if emotion != previous else []

    def _smoothed(self, memory: _Memory, seen: Scores, at: float) -> Scores:
        """Exponential average with the time constant `smoothing_s`, whatever the frame rate."""
        elapsed_s, memory.read_at = at - memory.read_at, at
        keep = math.exp(-elapsed_s / self._config.smoothing_s) if self._config.smoothing_s > 0 else 0.0
        return Scores(keep * memory.reading.scores.values + (1 - keep) * seen.values)

    def _stable_emotion(self, memory: _Memory, at: float) -> str | None:
        stable = memory.reading.emotion
        leader, confidence = memory.top
        if leader == stable or confidence < self._config.min_confidence:
            memory.leader = None
        elif leader != memory.leader:
            memory.leader, memory.leads_since = leader, at
        if memory.leader is not None and at - memory.leads_since >= self._config.dwell_s:
            stable, memory.leader = memory.leader, None
        return stable


def _event(kind: EventType, memory: _Memory, previous: str | None, frame: Frame) -> Event:
    return Event(
        id=uuid7(),
        type=kind,
        reading=memory.reading,
        previous=previous,
        frame_size=frame.size,
        started_at=memory.started_at,
        at=frame.wall_time,
        latency_ms=(time.monotonic() - frame.captured_at) * 1000,
    )


def uuid7() -> str:
    """A UUID that sorts by its time of making (RFC 9562, version 7); Python has its own from 3.14 on."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds << 80) | random_bits
    value = value & ~(0xF << 76) | (0x7 << 76)  # version
    value = value & ~(0x3 << 62) | (0x2 << 62)  # variant
    return str(uuid.UUID(int=value))
