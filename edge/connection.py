"""One MQTT connection, with what a person must know when there is none. Used by daemon, `check` and `watch`."""

import secrets
import socket
import ssl
import threading
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge.address import split_address
from edge.config import MqttConfig
from edge.errors import ServiceUnavailableError
from edge.signature import signature, signature_size
from edge.tls import may_pass, tls_context, told

PROTOCOLS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}
IN_FLIGHT_MAX = 20  # unacknowledged QoS 1 messages; past its own window of this size paho would queue inside
PACKET_MAX = 268_435_460  # bytes; MQTT has no larger ones (5.0, 1.5.5 and 2.1.4)
PUBLISH_HEAD = 1 + 4 + 2 + 2  # bytes at most: kind, length, the topic's length, message id
CONNACK_TIMEOUT_S = 5.0
REACH_S = 4.0  # for TCP; its packets go out after 0, 1 and 3 s, so a network that is back is found within 2 s
SILENCE_S = 8.0  # without a sign from the other end's TCP while something is sent; else it would try for minutes
UNSENT_MAX = 4096  # bytes in the kernel that TCP cannot send yet: on a slow network events would wait behind them
UNSUPPORTED_PROTOCOL, BAD_PASSWORD, NOT_AUTHORIZED = 132, 134, 135  # MQTT 5.0, 2.4; paho maps 3.1.1's to them
PACKET_TOO_LARGE = 149
# mosquitto acknowledges so what is over its message_size_limit; MQTT has no such word there, and paho would hang up.
TOO_LARGE = {"Packet too large": [PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.DISCONNECT]}
ReasonCode.names = {**getattr(ReasonCode, "names", {}), PACKET_TOO_LARGE: TOO_LARGE}  # paho 2.1 takes no other word
END_REASONS = {
    128: "the broker closed it, or the network failed",  # what paho says of every end without a DISCONNECT
    PACKET_TOO_LARGE: "a packet was larger than it takes: raise its limit (mosquitto: max_packet_size)",
    142: "another client has the same id: give every device its own name (device, or mqtt.client_id)",
}
WAYS_OUT = {
    154: "; states are retained: let the broker keep messages (mosquitto: retain_available)",
    155: "; events are sent with QoS 1: let the broker take it (mosquitto: max_qos)",
}
PORT, TLS_PORT = 1883, 8883

Prepare = Callable[[paho.Client, str], None]  # sees the client, and the protocol that it speaks, before it connects


class BrokerRefusesError(ServiceUnavailableError):
    """The broker answered and said no, or its certificate did. `reason` is MQTT's code where there is one."""

    def __init__(self, text: str, reason: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def needs_a_person(self) -> bool:
        """Whether the same try in a second would be pointless."""
        return self.reason in (None, BAD_PASSWORD, NOT_AUTHORIZED)


class _NoAnswerError(ServiceUnavailableError):
    """TCP connects, MQTT does not: the broker hangs up, or is `silent`."""

    def __init__(self, text: str, silent: bool) -> None:
        super().__init__(text)
        self.silent = silent


class Connection:
    """A paho client for the time of one connection; it never connects again by itself.

    `wake` is called, on paho's thread, when something was acknowledged or the connection was lost.
    """

    def __init__(self, client_id: str, protocol: str, wake: Callable[[], None]) -> None:
        self.protocol = protocol
        self._wake = wake
        self._answered, self._ended = threading.Event(), threading.Event()
        self._answer: ReasonCode | None = None
        self.end_reason: str = ""
        self.acknowledged: deque[tuple[int, ReasonCode]] = deque()
        self.window = IN_FLIGHT_MAX
        """QoS 1 messages that may be unacknowledged at once; the broker may want fewer (MQTT 5.0, 3.2.2.3.3)."""
        self.packet_max = PACKET_MAX
        """Bytes of a packet; the broker may hang up on who sends a larger one (MQTT 5.0, 3.2.2.3.6)."""
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=PROTOCOLS[protocol], reconnect_on_failure=False
        )
        self.client.max_inflight_messages_set(IN_FLIGHT_MAX)
        self.client.connect_timeout = REACH_S
        self.client.on_socket_open = _bound_waiting
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish

    @property
    def lost(self) -> bool:
        """Whether the connection has ended; `end_reason` says why."""
        return self._ended.is_set()

    def open(self, host: str, port: int, keepalive_s: int, patience_s: float) -> None:
        """Connect and wait for the broker's word, so long. Raises ServiceUnavailableError."""
        where = f"mqtt.broker: {host}:{port}"
        try:
            self.client.connect(host, port, keepalive_s)
        except ssl.SSLError as error:
            kind = ServiceUnavailableError if may_pass(error) else BrokerRefusesError
            raise kind(f"{where}: {told(error)}") from None
        except (OSError, ValueError) as error:
            reason = "timed out" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
            hint = "; is TLS spoken there? see mqtt.tls" if isinstance(error, ConnectionResetError) else ""
            raise ServiceUnavailableError(f"{where}: cannot be reached: {reason}{hint}") from None
        self.client.loop_start()
        self._answered.wait(patience_s)
        answer = self._answer
        if answer is None:
            silent = not self.lost
            self.close()
            raise _NoAnswerError(
                f"{where}: connects, but does not answer in MQTT; is TLS or a certificate wanted?", silent
            )
        if answer.is_failure:
            self.close()
            way_out = WAYS_OUT.get(answer.value, "")
            raise BrokerRefusesError(f"{where}: refuses: {answer} (reason code {answer.value}){way_out}", answer.value)

    def publish(self, topic: str, payload: str | bytes, qos: int, retain: bool, signed: str | None = None) -> int:
        """Hand a message to paho's network thread; returns the id that comes back in `acknowledged`.

        signed: who says it, told in MQTT 5 only.
        """
        return self.client.publish(
            topic, payload, qos, retain, signature(PacketTypes.PUBLISH, signed, self.protocol)
        ).mid

    def size(self, topic: str, payload: str | bytes, signed: str | None = None) -> int:
        """Bytes of the packet that `publish` sends, or a few more."""
        text = payload if isinstance(payload, bytes) else payload.encode()
        return PUBLISH_HEAD + len(topic.encode()) + signature_size(signed) + len(text)

    def give_up(self, reason: str) -> None:
        """Take the connection for lost, though the network has not said so."""
        self.end_reason = reason
        self._ended.set()

    def close(self) -> None:
        """Disconnect cleanly, so that the broker forgets the last will, and end the network thread."""
        self.client.disconnect()
        self.client.loop_stop()
        # paho closes its pair of sockets with the client, which must not wait for the garbage collector.
        self.client.on_connect = self.client.on_disconnect = self.client.on_publish = None

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.window = min(IN_FLIGHT_MAX, getattr(properties, "ReceiveMaximum", IN_FLIGHT_MAX))
        self.packet_max = getattr(properties, "MaximumPacketSize", PACKET_MAX)
        self._answer = reason
        self._answered.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if not self._ended.is_set():  # paho may say it twice
            self.end_reason = END_REASONS.get(reason.value, str(reason))
        self._ended.set()
        self._answered.set()
        self._wake()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        # paho holds its lock here: taking one of ours that is also held during a publish would deadlock.
        self.acknowledged.append((mid, reason))
        self._wake()


def _bound_waiting(client: Any, userdata: Any, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SILENCE_S))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX)


class Dialer:
    """Knows where the broker is, what it must be told, and in which protocol.

    Raises ConfigError if the password or a certificate file cannot be used.
    """

    def __init__(self, config: MqttConfig, client_id: str) -> None:
        self._config, self._client_id = config, client_id
        self._addresses = broker_addresses(config)
        # A fleet with one list spreads over its brokers; one device always begins with the same.
        self._at = zlib.crc32(client_id.encode()) % len(self._addresses)
        # Here and not at each connection: what is wrong in the settings is told at once, where it ends the program.
        self.secrets = config.secrets
        """What it was made with; others need another one."""
        self._password = self.secrets[0]
        self._tls = tls_context(config) if config.use_tls else None
        self._older: set[int] = set()  # addresses of brokers that said that they know no MQTT 5
        self._spoken: set[int] = set()  # of those that answered in the protocol that the settings name

    def dial(
        self,
        prepare: Prepare = lambda client, protocol: None,
        wake: Callable[[], None] = lambda: None,
        patience_s: float | None = None,
    ) -> Connection:
        """A connection that stands; `prepare` sees the client and the protocol before. Raises ServiceUnavailableError.

        Of several brokers each is tried once, the one of the last connection first. patience_s: for a broker's answer;
        None: CONNACK_TIMEOUT_S, as long as a person who waits has it.
        """
        for turn in range(len(self._addresses)):
            try:
                return self._dial_one(prepare, wake, CONNACK_TIMEOUT_S if patience_s is None else patience_s)
            except ServiceUnavailableError:
                self._at = (self._at + 1) % len(self._addresses)
                if turn == len(self._addresses) - 1:
                    raise
        raise AssertionError("there is always an address")

    @property
    def host(self) -> str:
        """Of the broker that is, or will be, connected to."""
        return self._addresses[self._at][0]

    @property
    def port(self) -> int:
        """Likewise."""
        return self._addresses[self._at][1]

    def _dial_one(self, prepare: Prepare, wake: Callable[[], None], patience_s: float) -> Connection:
        """A broker that knows no MQTT 5 says so, or just hangs up: it is then spoken to in 3.1.1.

        One that is silent may know none either, if it is the first. Only its own word for it is remembered: what hangs
        up, or is silent, may be a proxy before a broker that is being restarted.
        """
        protocol = "3.1.1" if self._at in self._older else self._config.protocol
        try:
            connection = self._dial(protocol, prepare, wake, patience_s)
        except (BrokerRefusesError, _NoAnswerError) as error:
            if protocol != "5" or not self._may_be_older(error):
                raise
            try:
                connection = self._dial("3.1.1", prepare, wake, patience_s)
            except ServiceUnavailableError:
                raise error from None
            if isinstance(error, BrokerRefusesError):
                self._older.add(self._at)
            return connection
        self._spoken.add(self._at)
        return connection

    def _may_be_older(self, error: BrokerRefusesError | _NoAnswerError) -> bool:
        """Whether a broker that answered so in MQTT 5 may know none."""
        if isinstance(error, BrokerRefusesError):
            return error.reason == UNSUPPORTED_PROTOCOL
        known = self._at in self._spoken
        if not error.silent:
            self._spoken.discard(self._at)  # hung up on again, it is asked: another may listen there by now
        return not known

    def _dial(self, protocol: str, prepare: Prepare, wake: Callable[[], None], patience_s: float) -> Connection:
        connection = Connection(self._client_id, protocol, wake)
        if self._config.username is not None:
            connection.client.username_pw_set(self._config.username, self._password)
        if self._tls is not None:
            connection.client.tls_set_context(self._tls)
        prepare(connection.client, protocol)
        connection.open(self.host, self.port, self._config.keepalive_s, patience_s)
        return connection


def passing_client_id(purpose: str) -> str:
    """An id of one's own for a short visit: a second client of the daemon's id would throw the daemon out."""
    return f"emotiond-{purpose}-{secrets.token_hex(4)}"


def broker_addresses(config: MqttConfig) -> list[tuple[str, int]]:
    """Hosts and ports of brokers that are not embedded, or where an embedded one is by default."""
    default_port = config.port or (TLS_PORT if config.use_tls else PORT)
    if config.embedded or config.broker is None:
        return [("127.0.0.1", default_port)]
    split = [split_address(each) if isinstance(config.broker, tuple) else (each, None) for each in config.brokers]
    return [(host, port or default_port) for host, port in split]
