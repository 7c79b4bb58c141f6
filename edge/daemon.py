"""The running daemon: its parts as the settings have them now, and how they are exchanged.

A running daemon can be given new settings. They are prepared whole, with all that can fail, before any is used.
"""

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from edge.app import build_pipeline, build_search, build_source, naming_source, refuse_for_a_device, sees_colour
from edge.beside import long_turns
from edge.broker import EmbeddedBroker
from edge.channel import Channel
from edge.classifier import TfliteClassifier, network_of, shipped_model
from edge.commands import Command
from edge.config import Config, MqttConfig
from edge.connection import Dialer
from edge.discovery import Announcement, announcement
from edge.errors import ConfigError
from edge.golden import NAME, prove
from edge.health import is_service
from edge.loop import Loop, Monitor, Wishes
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.plan import CameraPlan, Plan
from edge.search import sweep_threads
from edge.sinks import JsonLines, LineWriter
from edge.spool import Spool
from edge.watch import Subscriber

if TYPE_CHECKING:
    from edge.metrics import Metrics  # of an extra, and so imported only where it is asked for

log = logging.getLogger(__name__)

OF_LINK = ("mqtt", "homeassistant", "device")  # what the link to the broker depends on


def run(
    config: Config,
    wishes: Wishes,
    max_frames: int | None = None,
    print_events: bool = False,
    watch: bool = False,
    reread: Callable[[], Config] | None = None,
) -> None:
    """Run the daemon until its sources end, `max_frames` are done or `wishes.stop` is set.

    `print_events` writes events to standard output as JSON lines; `watch` writes what a subscriber receives there.
    `reread` gives the settings anew when `wishes.reload` is set.
    """
    long_turns()
    with ExitStack() as stack:
        printer = LineWriter(sys.stdout.fileno(), hurries=lambda: wishes.stop)
        writer = stack.enter_context(printer) if print_events or watch else None
        daemon = Daemon(stack, wishes, writer, print_events, watch)
        daemon.use(daemon.prepare(config))
        daemon.run(max_frames, reread)


class Daemon:
    """The parts as the settings have them now. They end with `stack`, the newest first."""

    def __init__(
        self, stack: ExitStack, wishes: Wishes, writer: LineWriter | None, print_events: bool, watch: bool
    ) -> None:
        self._wishes, self._writer, self._watch = wishes, writer, watch
        self._printed = [JsonLines(writer)] if print_events and writer is not None else []
        self._config: Config | None = None
        self._classifier: TfliteClassifier
        self._mqtt: MqttConfig
        self._secrets: tuple[str | None, ...] | None = None  # of the link
        self._broker: EmbeddedBroker | None = None
        self._spool: Spool | None = None
        self._link: MqttLink | None = None
        self._measures: list[Metrics] = []
        self._channels: list[Channel] = []
        self._gone: set[str] = set()  # cameras that Home Assistant has to be told of
        arrived = threading.Event()
        self._wake, self._loop = arrived.set, Loop(wishes, arrived)
        # What was said goes out before the cameras are closed, of which each may take half a second.
        self._sweeps = stack.enter_context(sweep_threads())
        stack.callback(self._close_cameras)
        # One for each part that may be exchanged: closing it ends the part, and it is ready for the next.
        places = [stack.enter_context(ExitStack()) for _ in range(4)]
        self._brokers, self._spools, self._metrics, self._links = places

    def _close_cameras(self) -> None:
        for channel in self._channels:
            channel.stop_source()
        for channel in self._channels:
            channel.close()

    def run(self, max_frames: int | None, reread: Callable[[], Config] | None) -> None:
        """Run the loop to its end."""

        def renew() -> None:
            assert reread is not None
            try:
                plan = self.prepare(reread())
            except OSError as error:  # of the system's, which a start would end with: what runs goes on
                raise ConfigError(f"{error.filename or 'the system'}: {error.strerror or error}") from None
            self.use(plan)

        self._loop.run(max_frames, renew if reread is not None else None)

    def prepare(self, config: Config) -> Plan:
        """Make what the settings need anew. Whatever cannot work is told now, and nothing has changed.

        Raises EmotiondError.
        """
        old = self._config
        for section in ("spool", "metrics"):  # events may wait in the one, and a port may not be had
            if old is not None and _differ(old, config, section):
                raise ConfigError(f"{section}: a change of it needs a restart")
        classifier = self._prepare_classifier(config)
        cameras = self._prepare_cameras(config)
        dialer = broker = None
        mqtt = config.mqtt
        if mqtt.broker is not None and self._spool is None:
            self._spool = self._spools.enter_context(Spool(config.spool))
        if mqtt.broker is not None and (_differ(old, config, *OF_LINK) or mqtt.secrets != self._secrets):
            broker, mqtt, dialer = self._prepare_dialer(config)
        elif old is not None:
            mqtt = self._mqtt
        return Plan(config, cameras, classifier, dialer, mqtt, broker)

    def _prepare_cameras(self, config: Config) -> list[CameraPlan]:
        wanted = config.per_camera
        free = {channel.name: channel for channel in self._channels}
        found = [free.pop(each.camera.name, None) for each in wanted]
        for index, each in enumerate(wanted):
            if found[index] is None:  # one that only got another name goes on
                same = [channel for channel in free.values() if _same_source(channel.config, each)]
                found[index] = free.pop(same[0].name) if same else None
        # Who types a wrong name should be told at once; later, or with others, it must not end what runs. A service
        # that ended for a camera that boots more slowly would be started again every two seconds.
        patient = self._config is not None or len(wanted) > 1 or is_service()
        plans = []
        for each, channel in zip(wanted, found, strict=True):
            with naming_source(config, each.camera.name):
                plans.append(self._prepare_camera(each, channel, patient))
        return plans

    def _prepare_camera(self, config: Config, channel: Channel | None, patient: bool) -> CameraPlan:
        refuse_for_a_device(config.detector)
        search = source = None
        old = None if channel is None else channel.config
        if _differ(old, config, "detector", "search", "tracker", "emotion", "camera"):
            search = build_search(config, self._sweeps)
        if channel is None or channel.ended or not _same_source(channel.config, config):
            source = build_source(config.camera, patient, self._wake, sees_colour(config))
        return CameraPlan(config, channel, search, source)

    def _prepare_classifier(self, config: Config) -> TfliteClassifier | None:
        if self._config is None:
            classifier = TfliteClassifier.from_config(config.model)
            if classifier.path != shipped_model() and not prove(classifier):
                log.info("model.path: %s: there is no %s beside it to prove it with", classifier.path, NAME)
            return classifier
        path = network_of(config.model)
        if self._config.model == config.model and path == self._classifier.path and self._classifier.is_current():
            return None
        classifier = TfliteClassifier.from_config(config.model)
        if not prove(classifier):
            raise ConfigError(f"model.path: {classifier.path}: needs its {NAME} beside it, or a restart")
        return classifier

    def _prepare_dialer(self, config: Config) -> tuple[EmbeddedBroker | None, MqttConfig, Dialer]:
        mqtt, client_id = config.mqtt, config.mqtt.client_id or f"emotiond-{config.device}"
        if not mqtt.embedded:
            return None, mqtt, Dialer(mqtt, client_id)
        same = self._broker if self._config is not None and self._config.mqtt.port == mqtt.port else None
        with ExitStack() as trial:
            broker = same or trial.enter_context(EmbeddedBroker(mqtt.port))
            mqtt = broker.settings(mqtt)
            dialer = Dialer(mqtt, client_id)
            trial.pop_all()  # it goes on
            return broker, mqtt, dialer

    def use(self, plan: Plan) -> None:
        """Go over to what was prepared."""
        config = plan.config
        other_link = plan.dialer is not None or _differ(self._config, config, *OF_LINK)
        going = self._make_room(plan, other_link)
        names = [each.config.camera.name for each in plan.cameras]
        self._gone = {name for name in [*self._gone, *going] if name not in names}
        if plan.classifier is not None:
            self._classifier = plan.classifier
        if plan.dialer is not None:
            self._secrets = plan.dialer.secrets
        if other_link:
            self._relink(plan, names)
        elif self._link is not None:
            self._link.use(names, self._announcement(config))
        self._channels = [self._go_on(each, plan.classifier) for each in plan.cameras]
        if self._config is None and (config.metrics.file is not None or config.metrics.http_port is not None):
            from edge.metrics import Metrics

            self._measures.append(self._metrics.enter_context(Metrics(config.metrics)))
        self._config, self._mqtt = config, plan.mqtt
        logging.getLogger().setLevel(config.log.level.upper())
        for metrics in self._measures:
            metrics.use(config.device, names)
        monitors: list[Monitor] = [*self._measures] if self._link is None else [self._link, *self._measures]
        interval_s = config.mqtt.stats_interval_s
        self._loop.use(self._channels, self._printed, monitors, self._classifier.runtime, interval_s)

    def _make_room(self, plan: Plan, other_link: bool) -> list[str]:
        """End what will not go on; returns the names that no camera has any more, or that another has now."""
        going: list[str] = []
        plans = {id(each.channel): each for each in plan.cameras}
        for channel in self._channels:
            each = plans.get(id(channel))
            if each is None or each.source is not None:
                channel.stop_source()
        for channel in self._channels:
            each = plans.get(id(channel))
            renamed = each is None or each.config.camera.name != channel.name
            if renamed or other_link or (each is not None and (each.search or each.source)):
                self._loop.end_faces(channel)  # to those who were told of them
            if renamed:
                going.append(channel.name)
            if each is None:
                channel.close()
            elif each.source is not None:
                channel.leave_source()
        return going

    def _go_on(self, plan: CameraPlan, classifier: TfliteClassifier | None) -> Channel:
        channel, config = plan.channel or Channel(), plan.config
        pipeline = None
        if plan.search is not None:
            pipeline = build_pipeline(config, plan.search, self._classifier)
        elif classifier is not None:
            channel.read_with(classifier)
        origin = Origin(config.device, config.camera.name, self._classifier.model_id)
        channel.use(config, origin, plan.source, plan.search, pipeline)
        return channel

    def _relink(self, plan: Plan, cameras: list[str]) -> None:
        told = self._announcement(plan.config)
        if self._link is not None:
            self._link.make_way(told)
        self._links.close()
        self._link = None
        if plan.broker is not self._broker:
            self._brokers.close()
            self._broker = plan.broker
            if plan.broker is not None:
                self._brokers.push(plan.broker)
        if plan.dialer is None or self._spool is None:
            return
        if self._watch and self._writer is not None:
            self._links.enter_context(Subscriber(plan.mqtt, self._writer.write))
        topics = Topics(plan.mqtt.base_topic, plan.config.device)
        link = MqttLink(plan.mqtt, plan.dialer, topics, cameras, self._spool, self._obey, told)
        self._link = self._links.enter_context(link)

    def _announcement(self, config: Config) -> Announcement | None:
        if (prefix := config.homeassistant.prefix) is None:
            return None
        mqtt, names = config.mqtt, [each.camera.name for each in config.per_camera]
        topics = Topics(mqtt.base_topic, config.device)
        return announcement(prefix, topics, names, mqtt.commands, mqtt.stats_interval_s, sorted(self._gone))

    def _obey(self, command: Command, camera: str | None) -> None:
        match command:
            case "pause":
                self._wishes.pauses.append((True, camera))
            case "resume":
                self._wishes.pauses.append((False, camera))
            case "reload":
                self._wishes.reload = True
            case _:
                assert_never(command)
        self._wake()


def _differ(old: Config | None, new: Config, *sections: str) -> bool:
    return old is None or any(getattr(old, section) != getattr(new, section) for section in sections)


def _same_source(old: Config, new: Config) -> bool:
    same = old.camera.model_copy(update={"name": new.camera.name}) == new.camera
    return same and sees_colour(old) == sees_colour(new)
