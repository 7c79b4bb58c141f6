"""A TCP proxy with faults on command, to stand between the daemon and its broker."""

import contextlib
import socket
import struct
import threading
import time

CHUNK = 4096
LINGER_0 = struct.pack("ii", 1, 0)  # close with a reset, as a pulled cable's other end does in the end


class Proxy:
    """Listens at `port` and forwards to `target` on this machine. What is set works at once, on all connections.

    - `delay_s`: every chunk is held up that long.
    - `blackhole`: connections are accepted, what comes is read, nothing is forwarded; nobody is told.
    - `swallow_replies`: only what the broker says is lost, as on a half-open connection.
    - `holding`: what the broker says is kept back until it is False again.
    - `full`: nothing of what the device says is read until it is False again; `room`: bytes that are kept until then.
    - `refusing`: new connections are closed at once.
    - `hanging_up`: new connections are closed when they have said something, as by one whose backend is away.
    """

    def __init__(self, target: int, room: int | None = None) -> None:
        self.target = target
        self.delay_s = 0.0
        self.full = self.blackhole = self.swallow_replies = self.refusing = self.hanging_up = self.holding = False
        self._truncate_after: int | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        if room is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                end.close()

    def truncate(self, size: int) -> None:
        """Let `size` more bytes through to the broker, which may end in the middle of a message; then cut."""
        self._truncate_after = size

    def close(self) -> None:
        """Stop listening and cut."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.refusing:
                client.close()
                continue
            if self.hanging_up:
                threading.Thread(target=self._hang_up, args=(client,), daemon=True).start()
                continue
            try:
                broker = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            with self._lock:
                self._pairs.append((client, broker))
            threading.Thread(target=self._pump, args=(client, broker, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(broker, client, False), daemon=True).start()

    @staticmethod
    def _hang_up(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(CHUNK)

    def _pump(self, source: socket.socket, drain: socket.socket, to_broker: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                while self.full and to_broker:
                    time.sleep(0.02)
                if self.delay_s:
                    time.sleep(self.delay_s)
                while self.holding and not to_broker:
                    time.sleep(0.02)
                if self.blackhole or (self.swallow_replies and not to_broker):
                    continue
                if to_broker and self._truncate_after is not None:
                    left, data = self._truncate_after, data[: self._truncate_after]
                    self._truncate_after = left - len(data)
                    if self._truncate_after <= 0:
                        drain.sendall(data)
                        self._truncate_after = None
                        self.cut()
                        return
                drain.sendall(data)
        if self.blackhole:
            return  # nobody is told
        for end in (source, drain):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class PathProxy:
    """A reverse proxy that shows a server on this machine below `path`, and says who is there (`X-Forwarded-User`)."""

    def __init__(self, target: int, path: str) -> None:
        self._target, self._path = target, path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rb", buffering=0) as reader:
            method, _, target = reader.readline().decode().partition(" ")
            fields = list(iter(lambda: reader.readline().decode().strip(), ""))
            if not target.startswith(f"{self._path}/"):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if not any(field.lower().startswith("upgrade:") for field in fields):  # one request of each connection
                fields = [field for field in fields if not field.lower().startswith("connection:")]
                fields.append("Connection: close")
            fields += [f"X-Forwarded-Prefix: {self._path}", "X-Forwarded-User: anna"]
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                head = [f"{method} {target.removeprefix(self._path).strip()}", *fields, "", ""]
                server.sendall("\r\n".join(head).encode())
                threading.Thread(target=_pass_on, args=(client, server), daemon=True).start()
                _pass_on(server, client)


def _pass_on(source: socket.socket, drain: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            drain.sendall(data)
        drain.shutdown(socket.SHUT_WR)
