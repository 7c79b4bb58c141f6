"""Messages on their way to the broker: what waits for its word, and what it does not take."""

import logging
import time

from edge.backoff import Backoff
from edge.connection import NOT_AUTHORIZED, PACKET_TOO_LARGE, Connection
from edge.eventfile import Row
from edge.spool import Spool

log = logging.getLogger(__name__)

# MQTT 5.0, 2.4: a limit of rates, or of what is kept, which passes. Old RabbitMQ says 131 of a full queue; but that may
# mean anything, and an event that is refused for good must not hold up all others.
QUOTA_EXCEEDED = 151
PAUSE_MIN_S, PAUSE_MAX_S = 1.0, 60.0  # until it is tried again
SAID_MAX = 100  # refusals of one topic each, so that no broker fills the log
WAYS_OUT = {
    NOT_AUTHORIZED: "let the device's user publish there, see systemd/mosquitto.acl",
    PACKET_TOO_LARGE: "raise its limit (mosquitto: message_size_limit)",
    QUOTA_EXCEEDED: "it is sent again after a pause; more of the kind will not be told",
}


class Delivery:
    """Of the sending thread: `begin` it with each connection, then publish, and take what was acknowledged.

    What is larger than the broker's limit is left out, and an event of that kind counts as refused. Each is told once
    for each topic and reason; a refused event leaves the spool, but one for which there is no room now is sent again.
    instance: what states are signed with.
    """

    def __init__(self, spool: Spool, instance: str) -> None:
        self._spool, self._instance = spool, instance
        self._connection: Connection
        self._in_flight: dict[int, tuple[str, int | None]] = {}  # message id -> topic, spool number; None for a state
        self._unwritten: set[int] = set()  # ids of messages without acknowledgement
        self._postponed: list[tuple[str, int | None]] = []  # likewise, of what the broker has no room for now
        self._pause = Backoff(PAUSE_MIN_S, PAUSE_MAX_S)
        self._resume_at = 0.0
        self._heard_at = 0.0  # when the broker last acknowledged something, or had nothing to acknowledge
        self._said: set[tuple[str, int]] = set()  # topics with the reasons why they were refused
        self.last_sent = 0
        """The spool's number of the event that was sent last on this connection."""
        self.events_refused = 0
        self.left_out = 0
        """Messages without acknowledgement that were too large."""

    def begin(self, connection: Connection) -> None:
        """A new connection: what was not acknowledged on the one before is to be sent again, in order."""
        self._connection = connection
        self._in_flight.clear()
        self._unwritten.clear()
        self._postponed.clear()
        self.last_sent = 0

    def resume(self) -> list[str]:
        """Go on after the broker had no room: with the oldest event, and with these topics of states."""
        held = self.held
        if time.monotonic() < self._resume_at or (held and self._in_flight):
            return []
        states = [topic for topic, number in self._postponed if number is None]
        self._postponed.clear()
        if held:
            self.last_sent = 0
        return states

    @property
    def held(self) -> bool:
        """Whether the broker had no room for an event: then no newer one is sent."""
        return any(number is not None for _, number in self._postponed)

    @property
    def room(self) -> int:
        """How many messages that are acknowledged may be sent now."""
        return max(0, self._connection.window - len(self._in_flight))

    @property
    def flows(self) -> bool:
        """Whether all that passes was written to the network: else more of it would only be old when it arrives."""
        return not self._unwritten

    @property
    def waiting(self) -> bool:
        """Whether something is not acknowledged yet."""
        return bool(self._in_flight)

    def stalls(self, patience_s: float) -> bool:
        """Whether something waits, and the broker has acknowledged nothing for so long."""
        return self.waiting and time.monotonic() - self._heard_at > patience_s

    def send_event(self, row: Row) -> bool:
        """Send an event, of which the spool is told when the broker has answered; False: it is too large, and gone."""
        self.last_sent = row.number
        mid = self._publish(row.topic, row.payload, qos=1, retain=False)
        if mid is None:
            self._spool.remove(row.number)
            self.events_refused += 1
        else:
            self._await(mid, row.topic, row.number)
        return mid is not None

    def send_state(self, topic: str, text: str) -> None:
        """Send a retained state, signed."""
        if (mid := self._publish(topic, text, qos=1, retain=True, signed=self._instance)) is not None:
            self._await(mid, topic, None)

    def send_last(self, topic: str, text: str) -> None:
        """Send a retained state for whose acknowledgement there is no time left."""
        self._publish(topic, text, qos=0, retain=True, signed=self._instance)

    def pass_on(self, topic: str, payload: str | bytes) -> int | None:
        """Send what is not acknowledged; returns the id that `take_acknowledgements` gives when it is written.

        None: it is too large.
        """
        mid = self._publish(topic, payload, qos=0, retain=False)
        if mid is None:
            self.left_out += 1
        else:
            self._unwritten.add(mid)
        return mid

    def take_acknowledgements(self) -> list[int]:
        """Heed what the broker said; returns the ids of messages that are not acknowledged and were written."""
        written: list[int] = []
        while self._connection.acknowledged:
            mid, reason = self._connection.acknowledged.popleft()
            self._unwritten.discard(mid)
            if mid not in self._in_flight:  # of QoS 0: the broker says nothing of it
                written.append(mid)
                continue
            topic, number = self._in_flight.pop(mid)
            self._heard_at = time.monotonic()
            if reason.is_failure:
                advice = WAYS_OUT.get(reason.value, "its own log may say more")
                self._say(
                    topic, reason.value, f"the broker refuses it: {reason} (reason code {reason.value}); {advice}"
                )
            if reason.value == QUOTA_EXCEEDED:
                self._postpone(topic, number)
                continue
            if number is not None or not self.held:  # that states pass says nothing of events
                self._pause.reset()
            if number is not None:
                self._spool.remove(number)
                self.events_refused += reason.is_failure
        return written

    def _publish(
        self, topic: str, payload: str | bytes, qos: int, retain: bool, signed: str | None = None
    ) -> int | None:
        """None: left out, for the broker would hang up on it, and again after each connection."""
        size, most = self._connection.size(topic, payload, signed), self._connection.packet_max
        if size <= most:
            return self._connection.publish(topic, payload, qos, retain, signed)
        problem = f"left out: {size} bytes, and the broker takes packets of {most}"
        self._say(topic, PACKET_TOO_LARGE, f"{problem}; raise its limit (mosquitto: max_packet_size)")
        return None

    def _postpone(self, topic: str, number: int | None) -> None:
        if not self._postponed:
            self._resume_at = time.monotonic() + self._pause.next()
        self._postponed.append((topic, number))

    def _await(self, mid: int, topic: str, number: int | None) -> None:
        if not self._in_flight:
            self._heard_at = time.monotonic()
        self._in_flight[mid] = topic, number

    def _say(self, topic: str, reason: int, problem: str) -> None:
        if (topic, reason) not in self._said and len(self._said) < SAID_MAX:
            self._said.add((topic, reason))
            log.error("%s: %s", topic, problem)
