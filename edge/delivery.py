"""Messages on their way to the broker: what waits for its word, and what it does not take."""

import logging
import time

from edge.connection import NOT_AUTHORIZED, Connection
from edge.eventfile import Row
from edge.spool import Spool

log = logging.getLogger(__name__)

SAID_MAX = 100  # refusals of one topic each, so that no broker fills the log
WAYS_OUT = {NOT_AUTHORIZED: "let the device's user publish there, see systemd/mosquitto.acl"}


class Delivery:
    """Of the sending thread: `begin` it with each connection, then publish, and take what was acknowledged.

    What the broker refuses is told once for each topic and reason; a refused event leaves the spool.
    instance: what states are signed with.
    """

    def __init__(self, spool: Spool, instance: str) -> None:
        self._spool, self._instance = spool, instance
        self._connection: Connection
        self._in_flight: dict[int, tuple[str, int | None]] = {}  # message id -> topic, spool number; None for a state
        self._heard_at = 0.0  # when the broker last acknowledged something, or had nothing to acknowledge
        self._said: set[tuple[str, int]] = set()  # topics with the reasons why they were refused
        self.last_sent = 0
        """The spool's number of the event that was sent last on this connection."""
        self.events_refused = 0

    def begin(self, connection: Connection) -> None:
        """A new connection: what was not acknowledged on the one before is to be sent again, in order."""
        self._connection = connection
        self._in_flight.clear()
        self.last_sent = 0

    @property
    def room(self) -> int:
        """How many messages that are acknowledged may be sent now."""
        return max(0, self._connection.window - len(self._in_flight))

    @property
    def waiting(self) -> bool:
        """Whether something is not acknowledged yet."""
        return bool(self._in_flight)

    def stalls(self, patience_s: float) -> bool:
        """Whether something waits, and the broker has acknowledged nothing for so long."""
        return self.waiting and time.monotonic() - self._heard_at > patience_s

    def send_event(self, row: Row) -> None:
        """Send an event, of which the spool is told when the broker has answered."""
        self.last_sent = row.number
        self._await(self._connection.publish(row.topic, row.payload, qos=1, retain=False), row.topic, row.number)

    def send_state(self, topic: str, text: str) -> None:
        """Send a retained state, signed."""
        self._await(self._connection.publish(topic, text, qos=1, retain=True, signed=self._instance), topic, None)

    def send_last(self, topic: str, text: str) -> None:
        """Send a retained state for whose acknowledgement there is no time left."""
        self._connection.publish(topic, text, qos=0, retain=True, signed=self._instance)

    def pass_on(self, topic: str, payload: str | bytes) -> int:
        """Send what is not acknowledged; returns the id that `take_acknowledgements` gives when it is written."""
        return self._connection.publish(topic, payload, qos=0, retain=False)

    def take_acknowledgements(self) -> list[int]:
        """Heed what the broker said; returns the ids of messages that are not acknowledged and were written."""
        written: list[int] = []
        while self._connection.acknowledged:
            mid, reason = self._connection.acknowledged.popleft()
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
            if number is not None:
                self._spool.remove(number)
                self.events_refused += reason.is_failure
        return written

    def _await(self, mid: int, topic: str, number: int | None) -> None:
        if not self._in_flight:
            self._heard_at = time.monotonic()
        self._in_flight[mid] = topic, number

    def _say(self, topic: str, reason: int, problem: str) -> None:
        if (topic, reason) not in self._said and len(self._said) < SAID_MAX:
            self._said.add((topic, reason))
            log.error("%s: %s", topic, problem)
