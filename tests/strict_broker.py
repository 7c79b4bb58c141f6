"""An MQTT 5 server that states how many unacknowledged messages it takes, as HiveMQ and EMQX do; it answers by hand."""

import contextlib
import socket
import threading
from enum import IntEnum

RECEIVE_MAXIMUM = 0x21
QOS_1 = 0b10


class Packet(IntEnum):
    """MQTT 5.0, 2.1.2."""

    CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


class StrictBroker:
    """Takes connections at `port`, one at a time, and acknowledges QoS 1 messages while `acknowledging`.

    `refusal`: the reason code with which it answers on topics that end with `refused`; `accepted`: what came with
    another answer, like `arrived`. `most`: as many were ever unacknowledged at once. Pings are always answered.
    """

    def __init__(self, receive_maximum: int) -> None:
        self._receive_maximum = receive_maximum
        self.acknowledging, self.refusal, self.refused = False, 0, b""
        self.accepted: list[bytes] = []
        self.most, self.connections = 0, 0
        self.arrived: list[bytes] = []
        """Payloads with their topics before them, repeats too."""
        self._waiting: list[tuple[bytes, bytes]] = []  # topic, message id
        self._lock = threading.Lock()
        self._peer: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def acknowledge(self) -> None:
        """Everything that waits, and from now on what comes."""
        with self._lock:
            self.acknowledging = True
            self._release()

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Send a short message, whatever its topic is, to who is connected."""
        body = len(topic).to_bytes(2, "big") + topic + b"\0" + payload
        self._peer.sendall(bytes([Packet.PUBLISH << 4, len(body)]) + body)

    def close(self) -> None:
        self._listener.close()
        if self._peer is not None:
            self._peer.close()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for topic, message_id in waiting:
            self._peer.sendall(b"\x40\x03" + message_id + bytes([self._answer_on(topic)]))

    def _answer_on(self, topic: bytes) -> int:
        return self.refusal if topic.endswith(self.refused) else 0

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._peer, _ = self._listener.accept()
                self.connections += 1
                self._waiting.clear()
                with contextlib.suppress(OSError), self._peer, self._peer.makefile("rb") as stream:
                    while head := stream.read(1):
                        self._answer(head[0], stream.read(self._length(stream)))

    @staticmethod
    def _length(stream: socket.SocketIO) -> int:
        length = shift = 0
        while True:
            byte = stream.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return length

    def _answer(self, head: int, body: bytes) -> None:
        match head >> 4:
            case Packet.CONNECT:
                self._peer.sendall(
                    bytes([0x20, 6, 0, 0, 3, RECEIVE_MAXIMUM]) + self._receive_maximum.to_bytes(2, "big")
                )
            case Packet.SUBSCRIBE:
                self._peer.sendall(b"\x90\x04" + body[:2] + b"\0\1")
            case Packet.PINGREQ:
                self._peer.sendall(b"\xd0\0")
            case Packet.PUBLISH if head & QOS_1:
                end = 2 + int.from_bytes(body[:2], "big")
                with self._lock:
                    self.arrived.append(body[2:end] + b" " + body[end + 2 :])
                    self.accepted += [] if self._answer_on(body[2:end]) else self.arrived[-1:]
                    self._waiting.append((body[2:end], body[end : end + 2]))
                    self.most = max(self.most, len(self._waiting))
                    if self.acknowledging:
                        self._release()
