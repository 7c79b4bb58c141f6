"""What is known of all devices of a broker, from their messages alone. Bounded, whatever is published. No web in it."""

import contextlib
import threading
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from edge.labels import EMOTIONS
from edge.settings import topic_level
from edge.web import door

CAMERAS_MAX = 500
EVENTS_MAX = 10_000
FACES_MAX = 32  # of one message
STALE_S = 3.0  # without a live message until the faces shown are taken away
PICTURE_STALE_S = 5.0
SPANS_S = {"15 minutes": 900, "1 hour": 3600, "24 hours": 86_400, "7 days": 604_800}
FINE_S, COARSE_S = 10, 300  # a bin of the history
SPAN_OF_BIN_S = {FINE_S: 3600, COARSE_S: 604_800}
PICTURE_MAX = 2**19  # bytes


class History:
    """Mean scores per emotion over time, in bins. About 400 kB for a camera that was watched for a week.

    A bin is its start in s, the number of readings, and the sum of each emotion's scores.
    """

    def __init__(self) -> None:
        self._bins: dict[int, deque[array[float]]] = {
            width: deque(maxlen=span_s // width) for width, span_s in SPAN_OF_BIN_S.items()
        }

    def put(self, width: int, bin_: "array[float]") -> None:
        """Add a bin that is newer than those that are there."""
        self._bins[width].append(bin_)

    def bins_after(self, at: float) -> list[tuple[int, list[float]]]:
        """Width and copy of every bin that may have changed since `at`, in s."""
        changed: list[tuple[int, list[float]]] = []
        for width, bins in self._bins.items():
            for bin_ in reversed(bins):
                if bin_[0] + width < at:
                    break
                changed.append((width, list(bin_)))
        return changed

    def add(self, at: float, scores: list[float]) -> None:
        """The scores of one face at a time, in s."""
        for width, bins in self._bins.items():
            bin_ = _bin_from(bins, at // width * width)
            bin_[1] += 1
            for index, value in enumerate(scores, 2):
                bin_[index] += value

    def series(self, now: float, span_s: int) -> list[tuple[float, list[float] | None]]:
        """Start of bin and mean scores over the last `span_s`; None stands where nobody was seen, so lines break."""
        width = FINE_S if span_s <= SPAN_OF_BIN_S[FINE_S] else COARSE_S
        series: list[tuple[float, list[float] | None]] = []
        for start, count, *sums in list(self._bins[width]):
            if not now - span_s <= start <= now:
                continue
            if series and start - series[-1][0] > width:
                series.append((series[-1][0] + width, None))
            series.append((start, [value / count for value in sums]))
        return series


def _bin_from(bins: "deque[array[float]]", start: float) -> "array[float]":
    """The bin that begins there. Those of a clock that was ahead stay behind it, unless room is short."""
    place = bisect_right(bins, start, key=itemgetter(0))
    if place and bins[place - 1][0] == start:
        return bins[place - 1]
    if len(bins) == bins.maxlen:
        if place < len(bins):
            bins.pop()
        else:
            bins.popleft()
            place -= 1
    bins.insert(place, array("d", [start, 0.0, *[0.0] * len(EMOTIONS)]))
    return bins[place]


@dataclass(slots=True)
class CameraView:
    """One camera as the dashboard knows it."""

    device: str
    name: str
    device_status: str = "unknown"
    camera_status: str = "unknown"
    emotion: str | None = None
    """The dominant one."""
    confidence: float | None = None
    faces_count: int = 0
    faces: list[dict[str, Any]] = field(default_factory=list)
    """Of the newest live message."""
    faces_at: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)
    """As `door.figures` takes them."""
    stats_at: float = 0.0
    picture: bytes = b""
    """The newest JPEG that came because somebody asked."""
    picture_at: float = 0.0
    history: History = field(default_factory=History)

    @property
    def status(self) -> str:
        """`online`, `offline`, `stopped`, `paused` or `unknown`: the device's if that is not online."""
        return self.camera_status if self.device_status == "online" else self.device_status

    @property
    def allows_pictures(self) -> bool | None:
        """As the device says; None if it has not said yet."""
        allows: bool | None = self.stats.get("snapshots")
        return allows

    def live_picture(self, now: float) -> bytes:
        """Empty when none came lately."""
        return self.picture if self.status == "online" and abs(now - self.picture_at) < PICTURE_STALE_S else b""

    def live_faces(self, now: float) -> list[dict[str, Any]]:
        """The faces in view; none when messages have stopped."""
        return self.faces if self.status == "online" and abs(now - self.faces_at) < STALE_S else []


class Fleet:
    """Takes messages on one thread, is read from others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._cameras: dict[tuple[str, str], CameraView] = {}
        self._devices: dict[str, str] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._event_ids: set[str] = set()
        self._remembered: dict[tuple[str, str], History] = {}
        self._forgotten: deque[tuple[str, str]] = deque(maxlen=CAMERAS_MAX)
        self.version = 0
        """Counts events, so that readers know whether there are new ones."""

    def cameras(self) -> list[CameraView]:
        """In the order of their names."""
        with self.lock:
            return [self._cameras[key] for key in sorted(self._cameras)]

    def events(self) -> list[dict[str, Any]]:
        """The newest first."""
        with self.lock:
            return list(reversed(self._events))

    def camera(self, device: str, name: str) -> CameraView | None:
        """One, if it is known."""
        with self.lock:
            return self._cameras.get((device, name))

    def remember(self, histories: Mapping[tuple[str, str], History]) -> None:
        """What was known of cameras, by device and name, before they are heard of."""
        self._remembered = dict(histories)

    def bins_after(self, at: float) -> list[tuple[tuple[str, str], int, list[float]]]:
        """Device and camera, width and bin of every bin that may have changed since `at`."""
        with self.lock:
            return [(key, *bin_) for key, view in self._cameras.items() for bin_ in view.history.bins_after(at)]

    def take_forgotten(self) -> list[tuple[str, str]]:
        """Devices and cameras ('' for all) that the broker was made to forget since the last call."""
        with self.lock:
            forgotten = list(self._forgotten)
            self._forgotten.clear()
            return forgotten

    def take_picture(self, topic: str, picture: bytes, now: float) -> None:
        """A picture that arrived; of cameras that are known."""
        levels = topic.split("/")[1:]
        if len(levels) == 3 and len(picture) <= PICTURE_MAX and picture[:2] == b"\xff\xd8":
            with self.lock:
                if (view := self._cameras.get((levels[0], levels[1]))) is not None:
                    view.picture, view.picture_at = picture, now

    def take(self, topic: str, text: str, now: float) -> None:
        """A message that arrived at `now` (s since 1970). What is not emotiond's is passed over."""
        with self.lock, contextlib.suppress(*door.REFUSED):
            levels = [topic_level(level) for level in topic.split("/")[1:]]
            match levels:
                case [device, "status"]:
                    self._take_device_status(device, text)
                case [device, "stats"]:
                    self._take_stats(device, door.parsed(text), now)
                case [device, camera, "status"] if not text:
                    self._cameras.pop((device, camera), None)
                    self._forget(device, camera)
                case [device, camera, "status"]:
                    self._camera(device, camera).camera_status = door.text(text)
                case [device, camera, "faces"]:
                    self._take_faces(device, camera, door.parsed(text), now)
                case [device, camera, "emotion"]:
                    self._take_emotion(device, camera, door.parsed(text))
                case [device, camera, "events"]:
                    self._take_event(door.event(door.parsed(text), device, camera))

    def lose_sight(self) -> None:
        """There is no broker: what it said of devices may be over. When it is back it says so anew."""
        with self.lock:
            self._devices = dict.fromkeys(self._devices, "unknown")
            for view in self._cameras.values():
                view.device_status = "unknown"

    def _camera(self, device: str, name: str) -> CameraView:
        if (device, name) not in self._cameras:
            if len(self._cameras) >= CAMERAS_MAX:
                raise ValueError("too many cameras")
            status = self._devices.get(device, "unknown")
            history = self._remembered.pop((device, name), None) or History()
            self._cameras[device, name] = CameraView(device, name, device_status=status, history=history)
        return self._cameras[device, name]

    def _take_device_status(self, device: str, status: str) -> None:
        if not status:  # a retained status that was taken away: the device was
            self._devices.pop(device, None)
            self._cameras = {key: view for key, view in self._cameras.items() if key[0] != device}
            self._forget(device, "")
            return
        status = door.text(status)
        if device in self._devices or len(self._devices) < CAMERAS_MAX:
            self._devices[device] = status
        for view in self._cameras.values():
            if view.device == device:
                view.device_status = status

    def _forget(self, device: str, camera: str) -> None:
        self._forgotten.append((device, camera))
        self._remembered = {
            key: history for key, history in self._remembered.items() if key[0] != device or camera not in ("", key[1])
        }

    def _take_stats(self, device: str, message: dict[str, Any], now: float) -> None:
        view = self._camera(device, topic_level(message["camera"]))
        view.stats, view.stats_at = door.figures(message), now

    def _take_faces(self, device: str, camera: str, message: dict[str, Any], now: float) -> None:
        faces = [door.face(face, message["frame"]) for face in message["faces"][:FACES_MAX]]
        view = self._camera(device, camera)
        view.faces, view.faces_at = faces, now
        for face in faces:
            view.history.add(now, [face["scores"][emotion] for emotion in EMOTIONS])

    def _take_emotion(self, device: str, camera: str, message: dict[str, Any]) -> None:
        emotion, count = door.emotion(message["emotion"]), door.whole(message["faces"])
        confidence = None if message["confidence"] is None else door.share(message["confidence"])
        view = self._camera(device, camera)
        view.emotion, view.confidence, view.faces_count = emotion, confidence, count

    def _take_event(self, event: dict[str, Any]) -> None:
        self._camera(event["device"], event["camera"])
        if event["id"] in self._event_ids:  # at least once: the daemon may send it again
            return
        self._events.append(event)
        self._event_ids.add(event["id"])
        if len(self._events) > EVENTS_MAX:
            self._event_ids.discard(self._events.popleft()["id"])
        self.version += 1
