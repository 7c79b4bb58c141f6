"""One camera of the daemon: what it takes to read it, and how it goes. The loop gives every one its turns."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from edge.config import Config
from edge.contract import CameraStatus
from edge.health import Counters, temperature_c
from edge.messages import Origin
from edge.pace import Pace
from edge.pipeline import Classifier, FrameSource, Pipeline, Sight
from edge.records import Frame
from edge.search import FaceSearch

log = logging.getLogger(__name__)


class Channel:
    """Has a source, a search and a pipeline of its own; a failing one concerns no other.

    config: the settings as they are for this camera. origin: stands in its messages.
    """

    config: Config
    origin: Origin
    _source: FrameSource
    _search: FaceSearch
    _pipeline: Pipeline
    _pace: Pace

    def __init__(self) -> None:
        self.paused = False
        self.ended = False
        """Its source came to an end, or cannot go on."""
        self.status: CameraStatus | None = None
        """None until it is known."""
        self._counters = Counters()
        self._sources, self._searches = ExitStack(), ExitStack()

    @property
    def name(self) -> str:
        """The camera's level in the topics."""
        return self.config.camera.name

    def use(
        self,
        config: Config,
        origin: Origin,
        source: FrameSource | None,
        search: FaceSearch | None,
        pipeline: Pipeline | None,
    ) -> None:
        """Go on with these; what is None stays."""
        self.config, self.origin = config, origin
        if search is not None:
            self._searches.close()
            self._search = self._searches.enter_context(search)
        if pipeline is not None:
            self._pipeline = pipeline
        if source is not None:
            self._sources.close()
            self._source, self.ended = self._sources.enter_context(source), False
            self._counters.source_changed()
        self._pace = Pace(config.pace.hot_c, temperature_c)
        self._search.slowdown = self._pace.slowdown
        self._source.thin(self._pace.every)

    def read_with(self, classifier: Classifier) -> None:
        """Another network from now on; what is known of the faces stays."""
        self._pipeline.use(classifier)

    def stop_source(self) -> None:
        """Before it is left, and before others are: they end at the same time."""
        self._source.stop()

    def leave_source(self) -> None:
        """Before another camera's is entered: it may be the same device."""
        self._sources.close()

    def close(self) -> None:
        """End its parts."""
        self._sources.close()
        self._searches.close()

    def take(self) -> Frame | None:
        """The frame that is there now, if any. Raises EndOfStream and EmotiondError."""
        # While it is paused, a file stays where it is, and a camera keeps its newest frame.
        return None if self.paused or self.ended else self._source.take(0)

    def due_in(self) -> float:
        """Seconds until a frame is due; inf where none will be, or where it comes by itself."""
        return float("inf") if self.paused or self.ended else self._source.due_in()

    def step(self, frame: Frame) -> Sight:
        """Read a frame."""
        return self._pipeline.step(frame)

    def frame_done(self, frame: Frame) -> None:
        """What a frame showed was handed on."""
        self._counters.frame_done(frame.captured_at)

    def finish(self) -> Sight | None:
        """End all faces, because no frame follows for now; None if there never was a frame."""
        return self._pipeline.finish()

    def changed_status(self, gives_frames: bool) -> CameraStatus | None:
        """Its status if that is another than before."""
        before, self.status = self.status, self._status(gives_frames)
        return self.status if self.status != before else None

    def _status(self, gives_frames: bool) -> CameraStatus | None:
        if self.ended:
            return "offline"
        if self.status is None and self._source.starting and not gives_frames:
            return None
        if self.paused:
            return "paused"
        return "online" if self._source.online else "offline"

    def mind_pace(self) -> None:
        """Spare the processor when it is too hot or too slow for this camera."""
        if self.status != "online":
            self._pace.interrupt()
        elif self._pace.check(self._counters.done, self._source.drops["superseded"]):
            self._search.slowdown = self._pace.slowdown
            self._source.thin(self._pace.every)
            log.info("%s: pace now %s", self.name, self._pace.figures)

    def stats_message(self, runtime: str, message_drops: Mapping[str, int], queued: int) -> dict[str, Any]:
        """The camera's figures since the last call, and those of the device beside them."""
        work = {**self._search.figures, "pace": self._pace.figures}
        drops = {**self._source.drops, **message_drops}
        return self._counters.stats_message(self.origin, runtime, drops, queued, work)
