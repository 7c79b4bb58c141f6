"""Events and states to the broker. The loop leaves messages here and goes on; one thread sends them.

What has to survive a connection stands here and not in the MQTT client: the spool of unacknowledged events, and
the outbox with the newest text of every retained topic, which is sent again on each new connection.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes

from edge.backoff import STEADY_S, Backoff
from edge.commands import Command
from edge.config import MqttConfig
from edge.connection import BrokerRefusesError, Connection, Dialer
from edge.delivery import Delivery
from edge.discovery import Announcement
from edge.errors import ServiceUnavailableError
from edge.hearing import Hearing
from edge.messages import Origin, Topics, dominant, emotion_message, encode, event_message, faces_message
from edge.outbox import Outbox
from edge.pipeline import Sight
from edge.records import Event
from edge.signature import signature
from edge.snapshot import Snapshots
from edge.spool import Spool

log = logging.getLogger(__name__)

FAREWELL_S = 1.0  # for the last messages of a clean exit
BRISK_FOR_S = 60.0  # a broker that was away for less is found within some seconds
RIVAL_MAX_S = 3600.0  # between tries while another client of our id throws us out: no war of reconnects
INSIST_S = 5.0  # between two answers to a status that is not ours: whoever says it may answer too
CHECK_S = 1.0  # between looks at a connection that gave no sign


class MqttLink:
    """A sink that never blocks: every method but `__exit__` only leaves a message for the sending thread.

    `on_command` is called on the network thread with a command and the camera that it is for, or None, if
    `config.commands` allows it. `announcement` tells Home Assistant of the device.
    """

    def __init__(
        self,
        config: MqttConfig,
        dialer: Dialer,
        topics: Topics,
        cameras: Sequence[str],
        spool: Spool,
        on_command: Callable[[Command, str | None], None],
        announcement: Announcement | None = None,
    ) -> None:
        self._config, self._dialer, self._topics, self._spool = config, dialer, topics, spool
        self._cameras: list[str] = []
        self._snapshots: dict[str, Snapshots] = {}  # of each camera
        self._work = threading.Event()
        self._outbox = Outbox(wake=self._work.set)
        self._problem: str | None = None  # why there is no connection; None while there is one, or the first is tried
        self._live_due_at: dict[str, float] = {}  # of each camera
        self._shown: dict[str, tuple[str | None, int]] = {}  # dominant emotion and number of faces last told
        self._instance = secrets.token_hex(4)  # tells our own words from those of another that has our name
        self._delivery = Delivery(spool, self._instance)
        self._hearing = Hearing(topics, self._instance, on_command, self._announce, self._take_back)
        self._abandoned = False
        self._serving = threading.Lock()  # held while a connection is used
        self._insist_at = 0.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mqtt-send", daemon=True)
        self.use(cameras, announcement)

    def __enter__(self) -> "MqttLink":
        self._outbox.state(self._topics.status, "online")
        self._spool.on_stored = self._work.set
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._spool.flush(FAREWELL_S / 4)  # so that no event follows `stopped`
        cameras = {self._topics.of_camera(camera, "status"): "offline" for camera in self._cameras}
        self._outbox.close({**cameras, self._topics.status: "stopped"})
        # Where no broker answers there is nobody to take leave of; a first connection may be on its way.
        self._thread.join(0.1 if self._problem is not None else FAREWELL_S + 0.2)
        # Another link may speak for us from now on: what connects only now must not, and who speaks comes to an end.
        self._abandoned = True
        if self._serving.acquire(timeout=FAREWELL_S + 0.2):
            self._serving.release()

    def use(self, cameras: Sequence[str], announcement: Announcement | None) -> None:
        """Speak for these cameras from now on, and describe the device so."""
        self._announcement = announcement
        # One alone obeys what the device is told, and a broker may refuse what it never asked for before.
        self._hearing.cameras = cameras if len(cameras) > 1 else ()
        self._hearing.birth_topic = announcement.birth_topic if announcement is not None else None
        self._announce()
        # An earlier process that was killed left a camera `online`; it is so only once a frame came.
        self._snapshots = {
            camera: self._snapshots.get(camera) or Snapshots(self._config, self._topics, camera) for camera in cameras
        }
        for camera in {*self._cameras} ^ {*cameras}:
            self.camera_status(camera, "offline")
            self._shown.pop(camera, None)
        self._cameras = list(cameras)

    def make_way(self, announcement: Announcement | None) -> None:
        """Another link comes that describes the device so: take our description away where none will stand."""
        if self._announcement is not None and (announcement is None or announcement.topic != self._announcement.topic):
            self._outbox.state(self._announcement.topic, "")
            self._announcement = None

    def raise_failure(self) -> None:
        """Raise what ended the sending or the writing thread, if anything did."""
        if (failure := self._failure or self._spool.failure) is not None:
            raise failure

    @property
    def queued(self) -> int:
        """Events that the broker has not acknowledged."""
        return len(self._spool)

    @property
    def drops(self) -> dict[str, int]:
        """Messages that were not sent, by cause."""
        refused, dropped = self._delivery.events_refused, self._outbox.dropped + self._delivery.left_out
        return {**self._spool.drops, "events_refused": refused, "live_dropped": dropped}

    def publish(self, event: Event, origin: Origin) -> None:
        """Send an event, now or when the broker is back. When the spool is full its oldest event goes."""
        self._spool.append(self._topics.of_camera(origin.camera, "events"), encode(event_message(event, origin)))

    def show(self, sight: Sight, origin: Origin) -> None:
        """Send the faces of a frame, at most `live_rate_hz` but for none left; the dominant emotion when it changes."""
        face, camera = dominant(sight.readings), origin.camera
        shown, before = (face.emotion if face else None, len(sight.readings)), self._shown.get(camera)
        if shown != before:
            self._shown[camera] = shown
            message = emotion_message(sight.readings, sight.frame.wall_time, origin)
            self._outbox.state(self._topics.of_camera(camera, "emotion"), encode(message))
        now = time.monotonic()
        emptied = before is not None and before[1] > 0 and not sight.readings  # no frame may follow that could say so
        if self._config.live_rate_hz > 0 and (emptied or now >= self._live_due_at.get(camera, 0.0)):
            self._live_due_at[camera] = now + 1 / self._config.live_rate_hz
            self._outbox.pass_on(self._topics.of_camera(camera, "faces"), camera, encode(faces_message(sight, origin)))
        if camera in self._snapshots and self._snapshots[camera].offer(sight.frame):
            self._work.set()

    def camera_status(self, camera: str, status: str) -> None:
        """Say `online`, `offline` or `paused` of a camera."""
        self._outbox.state(self._topics.of_camera(camera, "status"), status)

    def stats(self, messages: Sequence[dict[str, Any]]) -> None:
        """Send the daemon's figures, of each camera."""
        more = {"spool": self._spool.figures(), "snapshots": self._config.snapshots}
        for message in messages:
            self._outbox.pass_on(self._topics.stats, message["camera"], encode({**message, **more}))

    def _announce(self) -> None:
        if self._announcement is not None:
            self._outbox.state(self._announcement.topic, self._announcement.payload)

    def _take_back(self, topic: str) -> None:
        self._outbox.first_state(topic, "offline")

    # Everything below runs on the sending thread.

    def _run(self) -> None:
        try:
            self._connect_and_serve()
        except BaseException as failure:  # noqa: BLE001 - not lost with this thread: `raise_failure` raises it
            self._failure = failure

    def _connect_and_serve(self) -> None:
        backoff = Backoff(self._config.retry_min_s, self._config.retry_max_s, BRISK_FOR_S)
        patience = Backoff(self._config.retry_max_s, self._config.retry_max_s)  # a whole fleet may have been refused
        rivalry = Backoff(self._config.retry_max_s, RIVAL_MAX_S)
        while not self._outbox.closed:
            try:
                # A cluster that lost a node may take its time: who asks again too soon has it begin anew elsewhere.
                connection = self._dialer.dial(self._prepare, self._work.set, self._config.ack_timeout_s)
            except ServiceUnavailableError as error:
                if self._abandoned:
                    return
                self._say(str(error))
                hopeless = isinstance(error, BrokerRefusesError) and error.needs_a_person
                self._wait((patience if hopeless else backoff).next())
                continue
            began_at = time.monotonic()
            with self._serving:
                if not self._abandoned:
                    self._say(None)
                    self._serve(connection)
                connection.close()
            if connection.lost and not self._outbox.closed:
                self._say(f"mqtt.broker: connection lost: {connection.end_reason}")
                if time.monotonic() - began_at > STEADY_S:
                    backoff.reset()
                self._wait(rivalry.next() if self._hearing.rival else backoff.next())

    def _prepare(self, client: paho.Client, protocol: str) -> None:
        if self._abandoned:  # no other address, nor protocol, for nobody
            raise ServiceUnavailableError("mqtt.broker: the link was left")
        signed = signature(PacketTypes.WILLMESSAGE, self._instance, protocol)
        client.will_set(self._topics.status, "offline", qos=1, retain=True, properties=signed)
        client.on_message = self._on_message

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # a topic that MQTT does not allow, and yet some broker may send
            if not any(snapshots.hears(message) for snapshots in self._snapshots.values()):
                self._hearing.take(message)

    def _serve(self, connection: Connection) -> None:
        """Send until the connection is lost, or until all is said and the link is closing."""
        self._hearing.begin()
        subscribed = set[str]()
        self._subscribe(connection, subscribed)
        self._hearing.look_back(connection)
        self._delivery.begin(connection)
        self._outbox.begin_anew()
        deadline = float("inf")
        while not connection.lost and time.monotonic() < deadline:
            self._work.wait(CHECK_S if deadline == float("inf") else 0.05)
            self._work.clear()
            closing = self._outbox.closed  # read before sending: what was left before it was set is sent too
            self._subscribe(connection, subscribed)
            self._take_acknowledgements()
            if not closing:
                self._insist()
            late = time.monotonic() > deadline - FAREWELL_S / 2
            self._send(events=not late)
            if self._delivery.stalls(self._config.ack_timeout_s):
                connection.give_up(f"it acknowledged nothing for {self._config.ack_timeout_s:g} s")
            if closing:
                deadline = min(deadline, time.monotonic() + FAREWELL_S)
                said = not self._delivery.waiting and not self._outbox.unsent
                if said and (late or not self._spool.after(self._delivery.last_sent, 1)):
                    return
        if not connection.lost:  # time is over: without acknowledgement, then
            for topic, text in self._outbox.unsent:
                self._delivery.send_last(topic, text)

    def _insist(self) -> None:
        """Say again that we are here, where a late will of ours, or one of our name that went, stands over it."""
        now = time.monotonic()
        if self._hearing.contradicted and now >= self._insist_at:
            self._hearing.contradicted, self._insist_at = False, now + INSIST_S
            cameras = [self._topics.of_camera(camera, "status") for camera in self._cameras]
            self._outbox.again([*cameras, self._topics.status])

    def _subscribe(self, connection: Connection, subscribed: set[str]) -> None:
        for topic in self._hearing.filters(connection.protocol, self._config.commands):
            if topic not in subscribed:
                subscribed.add(topic)
                connection.client.subscribe(topic, qos=1)
        for camera, snapshots in self._snapshots.items():
            if camera not in subscribed:
                subscribed.add(camera)
                snapshots.begin(connection)

    def _send(self, events: bool) -> None:
        delivery = self._delivery
        self._outbox.again(delivery.resume())
        room = delivery.room
        rows = self._spool.after(delivery.last_sent, room) if events and not delivery.held else []
        states, passing = self._outbox.take(room, len(rows), delivery.flows)
        sent = [delivery.send_event(row) for row in rows[: room - len(states)]]
        if not all(sent):
            self._work.set()  # of what was too large no acknowledgement will wake this thread
        for topic, text in states:
            delivery.send_state(topic, text)
        for topic, text in passing:
            delivery.pass_on(topic, text)
        for snapshots in self._snapshots.values():
            snapshots.send(delivery)

    def _take_acknowledgements(self) -> None:
        for written in self._delivery.take_acknowledgements():
            for snapshots in self._snapshots.values():
                snapshots.written(written)

    def _say(self, problem: str | None) -> None:
        """Once per change."""
        if problem is not None and problem != self._problem:
            log.warning("%s; events are kept and sent when it is back", problem)
        elif problem is None:
            log.info("connected to the broker")
        self._problem = problem

    def _wait(self, seconds: float) -> None:
        due_at = time.monotonic() + seconds
        while not self._outbox.closed and (left := due_at - time.monotonic()) > 0:
            # New messages wake this thread too; they cannot be sent now.
            self._work.wait(min(left, CHECK_S))
            self._work.clear()
            time.sleep(0.01)
