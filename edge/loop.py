"""The loop: from frames to events, and what it says about itself meanwhile."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge.config import Config
from edge.errors import EmotiondError, EndOfStream
from edge.health import Counters, Notifier, temperature_c
from edge.messages import Origin
from edge.pace import Pace
from edge.pipeline import FrameSource, Pipeline, Sight, Sink
from edge.records import Frame
from edge.search import FaceSearch

log = logging.getLogger(__name__)

TAKE_TIMEOUT_S = 0.2  # how soon the loop sees a signal or a command while no frames come


@dataclass(slots=True)
class Wishes:
    """What signals and commands ask of the loop. Plain flags: setting one takes no lock, so a handler may."""

    stop: bool = False
    paused: bool = False
    reload: bool = False


class Monitor(Protocol):
    """A reader of states and figures, besides the events."""

    @property
    def drops(self) -> dict[str, int]:
        """Messages that were not sent, by cause."""

    @property
    def queued(self) -> int:
        """Events that wait."""

    def raise_failure(self) -> None:
        """Raise what keeps it from working at all."""

    def show(self, sight: Sight) -> None:
        """Take what a frame showed."""

    def camera_status(self, status: str) -> None:
        """Take `online`, `offline` or `paused`."""

    def stats(self, message: dict[str, Any]) -> None:
        """Take the daemon's figures."""


@dataclass(slots=True)
class Loop:
    """Takes frames from a source and gives events to the sinks; says how it goes."""

    wishes: Wishes
    _config: Config = field(init=False)
    _source: FrameSource = field(init=False)
    _pipeline: Pipeline = field(init=False)
    _search: FaceSearch = field(init=False)
    _origin: Origin = field(init=False)
    _runtime: str = field(init=False)
    _sinks: list[Sink] = field(init=False)
    _monitors: list[Monitor] = field(init=False)
    _pace: Pace = field(init=False)
    _notifier: Notifier = field(default_factory=Notifier)
    _counters: Counters = field(default_factory=Counters)
    _camera_status: str | None = None
    _stats_due_at: float = 0.0

    def use(
        self,
        config: Config,
        source: FrameSource,
        pipeline: Pipeline,
        search: FaceSearch,
        origin: Origin,
        runtime: str,
        sinks: list[Sink],
        monitors: list[Monitor],
    ) -> None:
        """Go on with these parts."""
        self._config, self._source, self._pipeline, self._search = config, source, pipeline, search
        self._origin, self._runtime, self._sinks, self._monitors = origin, runtime, sinks, monitors
        self._pace = Pace(config.pace.hot_c, temperature_c)
        search.slowdown = self._pace.slowdown
        source.thin(self._pace.every)
        self._stats_due_at = time.monotonic() + config.mqtt.stats_interval_s
        if self._camera_status is not None:
            for monitor in monitors:
                monitor.camera_status(self._camera_status)

    def run(self, max_frames: int | None, renew: Callable[[], None] | None = None) -> None:
        """Until the source ends, `max_frames` are done or someone wishes to stop.

        renew: called when someone wishes so, to read the settings and `use` what they ask for; raises EmotiondError
        and changes nothing if they cannot be used.
        """
        done = 0
        while not self.wishes.stop and (max_frames is None or done < max_frames):
            self._notifier.alive()
            if self.wishes.reload and self._camera_status is not None:
                self._renew(renew)
            try:
                frame = self._take()
            except EndOfStream:
                break
            if frame is not None or self._camera_status is not None:
                self._report()
            if frame is None or self._camera_status == "paused":
                continue  # also the frame that was taken just before the pause
            self._hand_on(self._pipeline.step(frame))
            self._counters.frame_done(frame.captured_at)
            done += 1
        self._notifier.say("STOPPING=1")
        self.end_faces()

    def end_faces(self) -> None:
        """Say of all faces that they are gone."""
        self._hand_on(self._pipeline.finish())

    def _renew(self, renew: Callable[[], None] | None) -> None:
        self.wishes.reload = False  # before the settings are read: what is wished for meanwhile is done again
        self._notifier.reloading()
        try:
            if renew is not None:
                renew()
                log.info("the settings were read again and are in force")
        except EmotiondError as error:
            log.error("reload refused, the old settings stay: %s", error)
        self._notifier.say("READY=1", f"STATUS=camera {self._config.camera.name} {self._camera_status}")

    def _take(self) -> Frame | None:
        if self.wishes.paused:
            time.sleep(TAKE_TIMEOUT_S)  # a file stays where it is, a camera keeps its newest frame
            return None
        return self._source.take(TAKE_TIMEOUT_S)

    def _hand_on(self, sight: Sight | None) -> None:
        if sight is None:
            return
        for event in sight.events:
            for sink in self._sinks:
                sink.publish(event)
        for monitor in self._monitors:
            monitor.show(sight)

    def _report(self) -> None:
        status = "paused" if self.wishes.paused else "online" if self._source.online else "offline"
        if status != self._camera_status:
            if self._camera_status is None:
                self._notifier.say("READY=1")
            self._camera_status = status
            self._notifier.say(f"STATUS=camera {self._config.camera.name} {status}")
            if status != "online":
                self.end_faces()
            for monitor in self._monitors:
                monitor.camera_status(status)
        for monitor in self._monitors:
            monitor.raise_failure()
        if status != "online":
            self._pace.interrupt()
        elif self._pace.check(self._counters.done, self._source.drops["superseded"]):
            self._search.slowdown = self._pace.slowdown
            self._source.thin(self._pace.every)
            log.info("%s: pace now %s", self._config.camera.name, self._pace.figures)
        if time.monotonic() >= self._stats_due_at:
            self._stats_due_at += self._config.mqtt.stats_interval_s
            drops = dict(self._source.drops)
            for monitor in self._monitors:
                drops |= monitor.drops
            queued = sum(monitor.queued for monitor in self._monitors)
            work = {**self._search.figures, "pace": self._pace.figures}
            message = self._counters.stats_message(self._origin, self._runtime, drops, queued, work)
            for monitor in self._monitors:
                monitor.stats(message)
