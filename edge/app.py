"""The composition root: from the configuration to objects to the loop. The only place that picks implementations."""

import logging
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
from typing_extensions import assert_never

from edge.broker import EmbeddedBroker
from edge.camera import LiveSource, is_live
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config, DetectorConfig, HaarConfig, MtcnnConfig
from edge.connection import Dialer
from edge.discovery import announcement
from edge.errors import ConfigError, EndOfStream
from edge.files import open_file
from edge.haar import HaarDetector, HaarFollower
from edge.health import Counters, Notifier, temperature_c
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.mtcnn import MtcnnDetector
from edge.pace import Pace
from edge.pipeline import FaceDetector, FrameSource, Pipeline, Sight, Sink
from edge.policy import EmotionPolicy
from edge.records import Frame
from edge.search import FaceSearch
from edge.sinks import JsonLines, LineWriter
from edge.spool import Spool
from edge.tracker import Tracker
from edge.watch import Subscriber

log = logging.getLogger(__name__)

TAKE_TIMEOUT_S = 0.2  # how soon the loop sees a signal or a command while no frames come


@dataclass(slots=True)
class Wishes:
    """What signals and commands ask of the loop. Plain flags: setting one takes no lock, so a handler may."""

    stop: bool = False
    paused: bool = False


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


def build_detector(config: DetectorConfig) -> FaceDetector:
    """The face detector that the configuration names."""
    match config:
        case HaarConfig():
            return HaarDetector(config)
        case MtcnnConfig():
            return MtcnnDetector(config)
        case _:
            assert_never(config)


def refuse_for_a_device(config: DetectorConfig) -> None:
    """Raise ConfigError for a detector that would bring TensorFlow to a device."""
    if not isinstance(config, HaarConfig):
        raise ConfigError(f"detector.kind: {config.kind} is for image, video and preview; the daemon takes haar")


def build_source(config: CameraConfig) -> FrameSource:
    """The source that the configuration names."""
    source = config.source
    if isinstance(source, str) and not is_live(source):
        return open_file(config, source)
    return LiveSource(config)


def build_search(config: Config) -> FaceSearch:
    """What finds faces, with a thread of its own while it is entered."""
    # The pictures searched are small: OpenCV's own threads would cost more processor time than they save.
    cv2.setNumThreads(1)
    live = isinstance(config.camera.source, int) or is_live(config.camera.source)
    follower = HaarFollower(config.detector if isinstance(config.detector, HaarConfig) else HaarConfig())
    return FaceSearch(build_detector(config.detector), follower, config.search, live)


def build_pipeline(config: Config, search: FaceSearch, classifier: TfliteClassifier) -> Pipeline:
    """The way from frame to events."""
    tracker, policy = Tracker(config.tracker), EmotionPolicy(config.emotion)
    return Pipeline(search, tracker, classifier, policy, config.emotion.reads_per_s)


def run(
    config: Config, wishes: Wishes, max_frames: int | None = None, print_events: bool = False, watch: bool = False
) -> None:
    """Run the daemon until its source ends, `max_frames` are done or `wishes.stop` is set.

    `print_events` writes events to standard output as JSON lines; `watch` writes what a subscriber receives there.
    """
    refuse_for_a_device(config.detector)
    classifier = TfliteClassifier.from_config(config.model)
    origin = Origin(config.device, config.camera.name, classifier.model_id)
    with ExitStack() as stack:
        search = stack.enter_context(build_search(config))
        pipeline = build_pipeline(config, search, classifier)
        loop = Loop(config, wishes, pipeline, search, origin, classifier.runtime)
        writer = stack.enter_context(LineWriter(sys.stdout.fileno())) if print_events or watch else None
        if print_events and writer is not None:
            loop.sinks.append(JsonLines(writer, origin))
        if config.mqtt.broker is not None:
            link = stack.enter_context(_build_link(config, stack, wishes, origin, writer if watch else None))
            loop.sinks.append(link)
            loop.monitors.append(link)
        if config.metrics.file is not None or config.metrics.http_port is not None:
            from edge.metrics import Metrics  # of an extra

            metrics = stack.enter_context(Metrics(config.metrics, config.device, config.camera.name))
            loop.sinks.append(metrics)
            loop.monitors.append(metrics)
        loop.run(stack.enter_context(build_source(config.camera)), max_frames)


def _build_link(
    config: Config, stack: ExitStack, wishes: Wishes, origin: Origin, watcher: LineWriter | None
) -> MqttLink:
    settings = config.mqtt
    if settings.embedded:
        settings = stack.enter_context(EmbeddedBroker(settings.port)).settings(settings)
    if watcher is not None:
        stack.enter_context(Subscriber(settings, watcher.write))

    def obey(command: str) -> None:
        wishes.paused = command == "pause"

    client_id = settings.client_id or f"emotiond-{config.device}"
    topics = Topics(settings.base_topic, config.device, config.camera.name)
    spool = stack.enter_context(Spool(config.spool))
    prefix = config.homeassistant.prefix
    told = announcement(prefix, topics, settings.commands, settings.stats_interval_s) if prefix else None
    return MqttLink(settings, Dialer(settings, client_id), topics, origin, spool, obey, told)


@dataclass(slots=True)
class Loop:
    """Takes frames from a source and gives events to the sinks; says how it goes."""

    config: Config
    wishes: Wishes
    pipeline: Pipeline
    search: FaceSearch
    origin: Origin
    runtime: str
    sinks: list[Sink] = field(default_factory=list)
    monitors: list[Monitor] = field(default_factory=list)
    _notifier: Notifier = field(default_factory=Notifier)
    _counters: Counters = field(default_factory=Counters)
    _pace: Pace = field(init=False)
    _camera_status: str | None = None
    _stats_due_at: float = 0.0

    def __post_init__(self) -> None:
        self._pace = Pace(self.config.pace.hot_c, temperature_c)

    def run(self, source: FrameSource, max_frames: int | None) -> None:
        """Until the source ends, `max_frames` are done or someone wishes to stop."""
        done = 0
        self._stats_due_at = time.monotonic() + self.config.mqtt.stats_interval_s
        while not self.wishes.stop and (max_frames is None or done < max_frames):
            self._notifier.alive()
            try:
                frame = self._take(source)
            except EndOfStream:
                break
            if frame is not None or self._camera_status is not None:
                self._report(source)
            if frame is None or self._camera_status == "paused":
                continue  # also the frame that was taken just before the pause
            self._hand_on(self.pipeline.step(frame))
            self._counters.frame_done(frame.captured_at)
            done += 1
        self._notifier.say("STOPPING=1")
        self._hand_on(self.pipeline.finish())

    def _take(self, source: FrameSource) -> Frame | None:
        if self.wishes.paused:
            time.sleep(TAKE_TIMEOUT_S)  # a file stays where it is, a camera keeps its newest frame
            return None
        return source.take(TAKE_TIMEOUT_S)

    def _hand_on(self, sight: Sight | None) -> None:
        if sight is None:
            return
        for event in sight.events:
            for sink in self.sinks:
                sink.publish(event)
        for monitor in self.monitors:
            monitor.show(sight)

    def _report(self, source: FrameSource) -> None:
        status = "paused" if self.wishes.paused else "online" if source.online else "offline"
        if status != self._camera_status:
            if self._camera_status is None:
                self._notifier.say("READY=1")
            self._camera_status = status
            self._notifier.say(f"STATUS=camera {self.config.camera.name} {status}")
            if status != "online":
                self._hand_on(self.pipeline.finish())
            for monitor in self.monitors:
                monitor.camera_status(status)
        for monitor in self.monitors:
            monitor.raise_failure()
        if self._pace.check(self._counters.done, source.drops["superseded"]):
            self.search.slowdown = self._pace.slowdown
            source.thin(self._pace.every)
            log.info("%s: pace now %s", self.config.camera.name, self._pace.figures)
        if time.monotonic() >= self._stats_due_at:
            self._stats_due_at += self.config.mqtt.stats_interval_s
            drops = dict(source.drops)
            for monitor in self.monitors:
                drops |= monitor.drops
            queued = sum(monitor.queued for monitor in self.monitors)
            work = {**self.search.figures, "pace": self._pace.figures}
            message = self._counters.stats_message(self.origin, self.runtime, drops, queued, work)
            for monitor in self.monitors:
                monitor.stats(message)
