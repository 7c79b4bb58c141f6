"""The embedded broker: a mosquitto of our own where mosquitto is installed, else amqtt in a thread. Loopback only.

It is there so that one command shows something. It keeps nothing over a restart; a real installation has a broker.
"""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.config import MqttConfig
from edge.connection import PORT
from edge.errors import ConfigError, ServiceUnavailableError, pip

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NEXT_PORTS = range(18830, 18930)  # tried where the usual one is taken
START_TIMEOUT_S = 10.0
CONFIG = "mosquitto.conf"
WATCH_S = 0.5  # between looks whether it lives
RESTART_S = 5.0  # after a start that failed


Started = tuple[Callable[[], None], Callable[[], bool]]  # ends the broker, and says whether it lives


class EmbeddedBroker:
    """A context manager; while it is entered a broker listens on `HOST`, `port`.

    Raises ServiceUnavailableError if it cannot listen, ConfigError if no broker is installed.
    """

    def __init__(self, port: int | None) -> None:
        self._ports = [port] if port is not None else [PORT, *NEXT_PORTS]
        self.port = self._ports[0]
        self.kind = ""
        self._stop: Callable[[], None] = lambda: None
        self._alive: Callable[[], bool] = lambda: True
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="embedded-broker", daemon=True)

    def __enter__(self) -> "EmbeddedBroker":
        # Debian keeps it in a folder that is not in an ordinary user's path.
        self._mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        self.kind = "mosquitto" if self._mosquitto else "amqtt"
        for port in self._ports:
            self.port = port
            try:
                self._start()
            except _PortTakenError:
                continue
            other = "" if port == PORT else f" --set mqtt.port={port}"
            log.info("embedded broker: %s on %s:%d; emotiond watch%s shows what comes", self.kind, HOST, port, other)
            self._watcher.start()
            return self
        raise ServiceUnavailableError(
            f"mqtt.port: {HOST}:{self.port} is taken; for a broker that runs there: mqtt.broker: localhost"
        )

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._watcher.join()
        self._stop()

    def _start(self) -> None:
        start = _start_mosquitto(self._mosquitto, self.port) if self._mosquitto else _start_amqtt(self.port)
        self._stop, self._alive = start

    def _watch(self) -> None:
        """Start it again when it died: the links come back by themselves."""
        while not self._closing.wait(WATCH_S):
            if self._alive():
                continue
            log.warning("embedded broker: %s died, and is started again", self.kind)
            self._stop()
            self._stop = lambda: None
            try:
                self._start()
            except (_PortTakenError, ServiceUnavailableError) as error:
                log.warning("embedded broker: cannot be started again yet: %s", str(error) or "its port is taken")
                self._closing.wait(RESTART_S)

    def settings(self, config: MqttConfig) -> MqttConfig:
        """`config`, with the address and the protocol of this broker."""
        # amqtt speaks 3.1.1 only, and may leave a client that begins with 5 without an answer.
        protocol = "3.1.1" if self.kind == "amqtt" else config.protocol
        return config.model_copy(update={"broker": HOST, "port": self.port, "protocol": protocol})


class _PortTakenError(Exception):
    """Somebody else listens there."""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _start_mosquitto(program: str, port: int) -> Started:
    if _answers(port):
        raise _PortTakenError
    folder = _folder_with_config(port)
    watcher = _watcher(folder)
    child = subprocess.Popen(
        # The watcher is told its number before there is a broker.
        ["sh", "-c", 'echo $$; exec "$@" >/dev/null', "sh", program, "-c", str(folder / CONFIG)],
        stdin=subprocess.DEVNULL,
        stdout=watcher.stdin,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},  # it would answer systemd
        start_new_session=True,  # Ctrl-C ends the daemon first, which then says `stopped` through this broker
    )

    def alive() -> bool:
        return child.poll() is None

    def stop() -> None:
        watcher.kill()
        watcher.communicate()
        child.terminate()
        try:
            child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stderr is not None:
            child.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        _await_port(port, alive)
    except ServiceUnavailableError as error:
        child.kill()
        said = (child.stderr.read() if child.stderr else "").strip().splitlines()
        stop()
        if said and "in use" in said[-1]:  # another took it in the same moment
            raise _PortTakenError from None
        raise ServiceUnavailableError(f"{error}: {said[-1] if said else 'no reason given'}") from None
    return stop, alive


def _folder_with_config(port: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="emotiond-broker-"))
    config = folder / CONFIG
    config.write_text(
        f"listener {port} {HOST}\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type error\n"
    )
    config.chmod(0o644)
    folder.chmod(0o755)  # started by root, mosquitto reads it as a user of its own
    return folder


def _watcher(folder: Path) -> subprocess.Popen[str]:
    """Ends the broker, whose number it is told, and its folder when this process dies without a word.

    Then nobody holds the other end of its input. It is there before the broker, so that none is left alone in the
    moment between.
    """
    return subprocess.Popen(
        ["sh", "-c", 'read -r broker && { read -r _; kill $broker; rm -r "$1"; }', "sh", str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _start_amqtt(port: int) -> Started:
    broker_of = _load_amqtt()
    if _answers(port):
        raise _PortTakenError
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    loop = asyncio.new_event_loop()
    broker: Any = None

    async def serve() -> Any:
        broker = broker_of(settings)
        await broker.start()
        return broker

    def run() -> None:
        nonlocal broker
        asyncio.set_event_loop(loop)
        try:
            broker = loop.run_until_complete(serve())
        except Exception as error:  # noqa: BLE001 - `_await_port` reports that it does not start
            log.error("amqtt: %s", error)
            return
        loop.run_forever()

    thread = threading.Thread(target=run, name="amqtt", daemon=True)
    thread.start()

    def stop() -> None:
        if broker is not None:
            try:
                asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(timeout=1)
            except Exception as error:  # noqa: BLE001 - whatever a broker that goes away with us has to say
                log.debug("amqtt: %r", error)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1)

    _await_port(port, thread.is_alive)
    return stop, thread.is_alive


def _load_amqtt() -> Any:
    """The class of its brokers, which are told to keep their log to themselves. Raises ConfigError."""
    try:
        from amqtt.broker import Broker
    except ImportError:
        raise ConfigError(
            "mqtt.broker: embedded needs mosquitto (sudo apt-get install mosquitto) or amqtt "
            f"({pip('install', 'emotiond[broker]')})"
        ) from None
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return Broker


def _await_port(port: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while alive() and not _answers(port) and time.monotonic() < deadline:
        time.sleep(0.02)
    # What answers may be another's broker, whose port ours could not take: then ours ends.
    time.sleep(0.1)
    if not alive() or not _answers(port):
        raise ServiceUnavailableError(f"mqtt.broker: the embedded broker does not start on {HOST}:{port}")
