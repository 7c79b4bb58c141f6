"""What a device hears from the broker: commands, Home Assistant's start, and another device of its own name."""

import logging
from collections.abc import Callable, Sequence

import paho.mqtt.client as paho

from edge.commands import PAUSES, Command, NotACommandError, parse
from edge.connection import Connection
from edge.messages import Topics
from edge.signature import signer

log = logging.getLogger(__name__)


class Hearing:
    """Judges messages on the network thread. `cameras` and `birth_topic` may be exchanged at any time.

    instance: what our own words are signed with. on_command: is given a command, and the camera that it is for or None.
    on_birth: Home Assistant wants to hear the description again. on_left: is given the topic of a camera's status that
    an earlier process of this device did not take back.
    """

    def __init__(
        self,
        topics: Topics,
        instance: str,
        on_command: Callable[[Command, str | None], None],
        on_birth: Callable[[], None],
        on_left: Callable[[str], None],
    ) -> None:
        self._topics, self._instance = topics, instance
        self._on_command, self._on_birth, self._on_left = on_command, on_birth, on_left
        self.cameras: Sequence[str] = ()
        """Those that are paused by commands of their own."""
        self.birth_topic: str | None = None
        self.rival = False
        """Another of our name was heard on this connection."""
        self.contradicted = False
        """What stands as our status is not `online`."""
        self._looked = False  # for what an earlier process left
        self._ended: str | None = None  # an earlier process, whose will or `stopped` we found
        self._said_rival = self._said_command = self._connected_before = False

    def begin(self) -> None:
        """A new connection."""
        self.rival = self.contradicted = False

    def look_back(self, connection: Connection) -> None:
        """Once, and after `filters`: hear what is kept of our cameras, in MQTT 5."""
        if connection.protocol == "5" and not self._looked:
            self._looked = True  # a broker that hangs up on who asks for it is asked no more
            left = self._topics.of_camera("+", "status")
            connection.client.subscribe(left, qos=0)
            connection.client.unsubscribe(left)  # what is kept is on its way, and our own words need not come back

    def filters(self, protocol: str, commands: bool) -> list[str]:
        """What to subscribe to. protocol: `5` or `3.1.1`, in which nothing is signed."""
        status = [self._topics.status] if protocol == "5" else []
        obeyed = [self._topics.command("+"), *self._pauses()] if commands else []
        birth = [self.birth_topic] if self.birth_topic is not None else []
        return [*status, *obeyed, *birth]

    def take(self, message: paho.MQTTMessage) -> None:
        """A message came."""
        if message.topic == self._topics.status:
            self._hear_status(message)
        elif message.retain and paho.topic_matches_sub(self._topics.of_camera("+", "status"), message.topic):
            self._hear_camera(message)
        elif message.topic == self.birth_topic:
            if message.payload == b"online" and not message.retain:
                self._on_birth()
        else:
            self._obey(message)

    def _pauses(self) -> dict[str, str]:
        """Topic to the camera that it is about."""
        return {self._topics.of_camera(camera, name): camera for camera in self.cameras for name in PAUSES}

    def _obey(self, message: paho.MQTTMessage) -> None:
        name, camera = message.topic.rpartition("/")[2], self._pauses().get(message.topic)
        if camera is None and message.topic != self._topics.command(name):
            return  # of a camera that has gone
        try:
            self._on_command(parse(name, message.payload, message.retain), camera)
        except (NotACommandError, UnicodeDecodeError) as error:
            if not self._said_command:  # once: whoever may publish there must not fill the log
                log.warning("%s: not obeyed: %s; more of the kind will not be told", self._topics.command("+"), error)
            self._said_command = True

    def _hear_camera(self, message: paho.MQTTMessage) -> None:
        """Under a name that the settings may not have any more; of a process that lives it is its own affair."""
        who = signer(message)
        if who is not None and who == self._ended and message.payload != b"offline":
            self._on_left(message.topic)

    def _hear_status(self, message: paho.MQTTMessage) -> None:
        """Our own status, said by another: two of one name. Not every broker tells whom it throws out why.

        On the first connection it may be from an earlier process of this device. A will of ours may come late.
        """
        # What was kept before we subscribed is overwritten by our first word; an empty one is of `emotiond forget`.
        who = signer(message)
        if not message.retain:
            self.contradicted = message.payload not in (b"online", b"")
        elif message.payload != b"online":
            self._ended = who
        if who == self._instance:
            self._connected_before = True
        elif who is not None and self._connected_before:
            self.rival = True
            if not self._said_rival:
                self._said_rival = True
                log.error(
                    "another emotiond speaks as %s, and they throw each other out if they also have the same"
                    " mqtt.client_id: give every device its own name (device)",
                    self._topics.status.removesuffix("/status"),
                )
