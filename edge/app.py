"""The composition root: from the configuration to objects to the loop. The only place that picks implementations.

A running daemon can be given new settings. They are prepared whole, with all that can fail, before any is used.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
from typing_extensions import assert_never

from edge.broker import EmbeddedBroker
from edge.camera import LiveSource, is_live
from edge.classifier import TfliteClassifier, installed_model, shipped_model
from edge.commands import Command
from edge.config import CameraConfig, Config, DetectorConfig, HaarConfig, MqttConfig, MtcnnConfig
from edge.connection import Dialer
from edge.discovery import announcement
from edge.errors import ConfigError
from edge.files import open_file
from edge.golden import NAME, prove
from edge.haar import HaarDetector, HaarFollower
from edge.loop import Loop, Monitor, Wishes
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.mtcnn import MtcnnDetector
from edge.pipeline import FaceDetector, FrameSource, Pipeline, Sink
from edge.policy import EmotionPolicy
from edge.search import FaceSearch
from edge.sinks import JsonLines, LineWriter
from edge.spool import Spool
from edge.tracker import Tracker
from edge.watch import Subscriber

if TYPE_CHECKING:
    from edge.metrics import Metrics  # of an extra, and so imported only where it is asked for

log = logging.getLogger(__name__)


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


def build_source(config: CameraConfig, patient: bool = False) -> FrameSource:
    """The source that the configuration names. patient: a camera that is not there yet is waited for."""
    source = config.source
    if isinstance(source, str) and not is_live(source):
        return open_file(config, source)
    return LiveSource(config, patient)


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
    config: Config,
    wishes: Wishes,
    max_frames: int | None = None,
    print_events: bool = False,
    watch: bool = False,
    reread: Callable[[], Config] | None = None,
) -> None:
    """Run the daemon until its source ends, `max_frames` are done or `wishes.stop` is set.

    `print_events` writes events to standard output as JSON lines; `watch` writes what a subscriber receives there.
    `reread` gives the settings anew when `wishes.reload` is set.
    """
    with ExitStack() as stack:
        writer = stack.enter_context(LineWriter(sys.stdout.fileno())) if print_events or watch else None
        daemon = Daemon(stack, wishes, writer, print_events, watch)
        daemon.use(daemon.prepare(config))
        daemon.run(max_frames, reread)


@dataclass(slots=True)
class Plan:
    """New settings and the parts that they need, made but not begun. A part that is None serves on as it is."""

    config: Config
    classifier: TfliteClassifier | None
    search: FaceSearch | None
    source: FrameSource | None
    dialer: Dialer | None
    mqtt: MqttConfig
    """`config.mqtt`, with the address of the embedded broker if there is one."""
    broker: ExitStack | None
    """An embedded broker that runs already: it may fail to."""


class Daemon:
    """The parts as the settings have them now. They end with `stack`, the newest first."""

    def __init__(
        self, stack: ExitStack, wishes: Wishes, writer: LineWriter | None, print_events: bool, watch: bool
    ) -> None:
        self._wishes, self._writer, self._print_events, self._watch = wishes, writer, print_events, watch
        self._config: Config | None = None
        self._classifier: TfliteClassifier
        self._pipeline: Pipeline
        self._search: FaceSearch
        self._source: FrameSource
        self._spool: Spool | None = None
        self._link: MqttLink | None = None
        self._mqtt: MqttConfig
        self._measures: list[Metrics] = []
        self._loop: Loop | None = None
        # One for each part that may be exchanged: closing it ends the part, and it is ready for the next.
        places = [stack.enter_context(ExitStack()) for _ in range(6)]
        self._searches, self._brokers, self._spools, self._metrics, self._links, self._sources = places

    def run(self, max_frames: int | None, reread: Callable[[], Config] | None) -> None:
        """Run the loop to its end."""

        def renew() -> None:
            assert reread is not None
            self.use(self.prepare(reread()))

        assert self._loop is not None
        self._loop.run(max_frames, renew if reread is not None else None)

    def prepare(self, config: Config) -> Plan:
        """Make what the settings need anew. Whatever cannot work is told now, and nothing has changed.

        Raises EmotiondError.
        """
        refuse_for_a_device(config.detector)
        old = self._config
        if old is not None:
            _refuse_what_needs_a_restart(old, config)
        classifier = self._prepare_classifier(config)
        search = source = dialer = broker = None
        if _differ(old, config, "detector", "search", "tracker", "emotion", "camera"):
            search = build_search(config)
        if old is None or old.camera.model_copy(update={"name": config.camera.name}) != config.camera:
            # At the start a wrong name should be told at once; later it must not end what runs.
            source = build_source(config.camera, patient=old is not None)
        mqtt = config.mqtt
        if mqtt.broker is not None and self._spool is None:
            self._spool = self._spools.enter_context(Spool(config.spool))
        if _link_settings(old) != _link_settings(config) and mqtt.broker is not None:
            broker, mqtt, dialer = self._prepare_dialer(config)
        elif old is not None:
            mqtt = self._mqtt
        return Plan(config, classifier, search, source, dialer, mqtt, broker)

    def _prepare_classifier(self, config: Config) -> TfliteClassifier | None:
        if self._config is None:
            classifier = TfliteClassifier.from_config(config.model)
            if classifier.path != shipped_model() and not prove(classifier):
                log.info("model.path: %s: there is no %s beside it to prove it with", classifier.path, NAME)
            return classifier
        path = config.model.path or installed_model(config.model) or shipped_model()
        if self._config.model == config.model and path == self._classifier.path and self._classifier.is_current():
            return None
        classifier = TfliteClassifier.from_config(config.model)
        if not prove(classifier):
            raise ConfigError(f"model.path: {classifier.path}: needs its {NAME} beside it, or a restart")
        return classifier

    def _prepare_dialer(self, config: Config) -> tuple[ExitStack | None, MqttConfig, Dialer]:
        mqtt, client_id = config.mqtt, config.mqtt.client_id or f"emotiond-{config.device}"
        if not mqtt.embedded:
            return None, mqtt, Dialer(mqtt, client_id)
        if self._config is not None and self._config.mqtt.embedded and self._config.mqtt.port == mqtt.port:
            mqtt = mqtt.model_copy(update={"broker": self._mqtt.broker, "port": self._mqtt.port})
            return None, mqtt, Dialer(mqtt, client_id)
        with ExitStack() as trial:
            mqtt = trial.enter_context(EmbeddedBroker(mqtt.port)).settings(mqtt)
            dialer = Dialer(mqtt, client_id)
            return trial.pop_all(), mqtt, dialer

    def use(self, plan: Plan) -> None:
        """Go over to what was prepared."""
        config, old = plan.config, self._config
        if self._loop is not None and (plan.search or plan.source or _link_settings(old) != _link_settings(config)):
            self._loop.end_faces()  # to those who were told of them
        if plan.source is not None:
            self._sources.close()  # before the new one is opened: it may be the same camera
        if plan.classifier is not None:
            self._classifier = plan.classifier
        if plan.search is not None:
            self._searches.close()
            self._search = self._searches.enter_context(plan.search)
            self._pipeline = build_pipeline(config, self._search, self._classifier)
        elif plan.classifier is not None:
            self._pipeline.use(self._classifier)
        origin = Origin(config.device, config.camera.name, self._classifier.model_id)
        if _link_settings(old) != _link_settings(config):
            self._relink(plan, origin)
        elif self._link is not None:
            self._link.origin = origin
        if plan.source is not None:
            self._source = self._sources.enter_context(plan.source)
        self._config, self._mqtt = config, plan.mqtt
        logging.getLogger().setLevel(config.log.level.upper())
        if self._loop is None:
            self._loop = Loop(self._wishes)
            self._measure(config)
        sinks: list[Sink] = [*self._measures] if self._link is None else [self._link, *self._measures]
        monitors: list[Monitor] = [*self._measures] if self._link is None else [self._link, *self._measures]
        if self._print_events and self._writer is not None:
            sinks.insert(0, JsonLines(self._writer, origin))
        self._loop.use(
            config, self._source, self._pipeline, self._search, origin, self._classifier.runtime, sinks, monitors
        )

    def _measure(self, config: Config) -> None:
        if _measured(config):
            from edge.metrics import Metrics

            metrics = Metrics(config.metrics, config.device, config.camera.name)
            self._measures.append(self._metrics.enter_context(metrics))

    def _relink(self, plan: Plan, origin: Origin) -> None:
        self._links.close()
        self._link = None
        if plan.broker is not None or not plan.config.mqtt.embedded:
            self._brokers.close()
        if plan.broker is not None:
            self._brokers.enter_context(plan.broker)
        if plan.dialer is None or self._spool is None:
            return
        if self._watch and self._writer is not None:
            self._links.enter_context(Subscriber(plan.mqtt, self._writer.write))
        topics = Topics(plan.mqtt.base_topic, plan.config.device, plan.config.camera.name)
        prefix = plan.config.homeassistant.prefix
        told = announcement(prefix, topics, plan.mqtt.commands, plan.mqtt.stats_interval_s) if prefix else None
        link = MqttLink(plan.mqtt, plan.dialer, topics, origin, self._spool, self._obey, told)
        self._link = self._links.enter_context(link)

    def _obey(self, command: Command) -> None:
        match command:
            case "pause":
                self._wishes.paused = True
            case "resume":
                self._wishes.paused = False
            case "reload":
                self._wishes.reload = True
            case _:
                assert_never(command)


def _differ(old: Config | None, new: Config, *sections: str) -> bool:
    return old is None or any(getattr(old, section) != getattr(new, section) for section in sections)


def _refuse_what_needs_a_restart(old: Config, new: Config) -> None:
    """Raise ConfigError: events may wait in the spool, and a port may not be had."""
    for section in ("spool", "metrics"):
        if _differ(old, new, section):
            raise ConfigError(f"{section}: a change of it needs a restart")
    if _measured(new) and (old.device, old.camera.name) != (new.device, new.camera.name):
        raise ConfigError("device and camera.name: a change of them needs a restart where there are metrics")


def _measured(config: Config) -> bool:
    return config.metrics.file is not None or config.metrics.http_port is not None


def _link_settings(config: Config | None) -> object:
    """What the link to the broker depends on."""
    return None if config is None else (config.mqtt, config.homeassistant, config.device, config.camera.name)
