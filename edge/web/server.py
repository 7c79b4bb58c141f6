"""The dashboard's process: the subscriber, the pages, and who may reach them."""

import contextlib
import errno
import os
import re
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from edge.address import why_no_host
from edge.config import Config, MqttConfig, read_password
from edge.console import interrupt
from edge.errors import ConfigError, ServiceUnavailableError, UsageError
from edge.watch import Subscriber
from edge.web import historyfile, pages, tryit
from edge.web.fleet import Fleet
from edge.web.guard import LOOPBACK, Guard
from edge.web.patience import PatientProtocol
from edge.web.pictures import Pictures

FRAME_SIZE_MAX = 2**20  # bytes of a web socket's message
PORT_MAX = 65_535
# RFC 9110: what a header can be called.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
RECONNECT_S = 10.0  # a page that was away for less goes on where it was; a busy machine is no lost connection


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the dashboard listens, and who may come in."""

    host: str = "127.0.0.1"
    port: int = 8080
    password_file: Path | None = None
    trusted_header: str | None = None
    history: Path | None = None
    """The file that keeps it; None: memory."""

    def check(self) -> None:
        """Raises UsageError for what cannot be, and rather than showing faces to a whole network."""
        if self.port > PORT_MAX:
            raise UsageError(f"--port {self.port}: there is no such port; it takes 1 to {PORT_MAX}")
        if self.trusted_header is not None and not HEADER_NAME.fullmatch(self.trusted_header):
            raise UsageError(
                f"--trusted-header {self.trusted_header!r}: not the name of a header; give one that the reverse proxy"
                " sets, such as X-Forwarded-User"
            )
        if self.trusted_header is not None and self.password_file is not None:
            raise UsageError(
                "--password-file and --trusted-header: give one of them; behind a reverse proxy that signs people in"
                " no password is asked for here"
            )
        if self.host not in LOOPBACK and self.password_file is None and self.trusted_header is None:
            raise UsageError(
                f"--host {self.host}: others could look in; give --password-file, or --trusted-header"
                " behind a reverse proxy"
            )

    def password(self) -> str | None:
        """Raises ConfigError if it cannot be read, or is empty."""
        return None if self.password_file is None else read_password("--password-file", self.password_file)


class _FleetSubscriber(Subscriber):
    """Hands messages to the fleet instead of writing lines."""

    def __init__(self, config: MqttConfig, fleet: Fleet) -> None:
        super().__init__(config, write=lambda line: None, everything=True)
        self._fleet = fleet

    def take(self, topic: str, text: str) -> None:
        self._fleet.take(topic, text, time.time())

    def take_picture(self, topic: str, picture: bytes | bytearray) -> None:
        self._fleet.take_picture(topic, bytes(picture), time.time())

    def lose(self) -> None:
        self._fleet.lose_sight()


def _listen(host: str, port: int) -> socket.socket:
    """Raises ServiceUnavailableError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host or None, port, family)
    except (socket.gaierror, UnicodeError) as error:
        raise ServiceUnavailableError(
            f"--host {host}: {why_no_host(error)}; it takes an address of this machine"
        ) from None
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else str(error)
        foreign = error.errno == errno.EADDRNOTAVAIL
        hint = "--host takes an address of this machine" if foreign else "--port takes another"
        raise ServiceUnavailableError(f"{host}:{port}: {problem}; {hint}") from None


def run(config: Config, listening: Listening) -> None:
    """Serve until interrupted. Raises an EmotiondError for what cannot be served."""
    listening.check()
    password = listening.password()
    if config.mqtt.broker is None:
        raise ConfigError("mqtt.broker: null: the dashboard shows what a broker hands on; name one")
    tryit.prove(config)
    listener = _listen(listening.host, listening.port)
    fleet = Fleet()
    subscriber = _FleetSubscriber(config.mqtt, fleet)
    api = FastAPI(openapi_url=None)
    tryit.add_to(api, config)
    # Asked for anew with each page: after an upgrade a page must not run with the script of before.
    nicegui_app.add_static_files("/static", str(Path(__file__).with_name("static")), max_cache_age=0)
    pictures = Pictures(fleet, lambda where: subscriber.publish(f"{config.mqtt.base_topic}/{where}/look", ""))
    pictures.add_to(api)
    pages.add(fleet, config.mqtt, pictures, subscriber)
    ui.run_with(
        api,
        title="emotiond",
        dark=None,
        language="en-US",
        show_welcome_message=False,
        reconnect_timeout=RECONNECT_S,
        tailwind=False,  # a compiler of style sheets in the browser, for what a few rules of our own do
    )
    settings = uvicorn.Config(
        Guard(api, password, listening.trusted_header),
        http=PatientProtocol,
        log_level="warning",
        ws_max_size=FRAME_SIZE_MAX,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    history = historyfile.kept(listening.history or historyfile.default_path(), fleet)
    server = uvicorn.Server(settings)
    with listener, history, subscriber, contextlib.suppress(KeyboardInterrupt):
        # Its own way to end, from now on: an exception while it starts would come out as another, or not at all.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is interrupt:
                signal.signal(number, server.handle_exit)
        print(f"http://{host}:{listener.getsockname()[1]}/", flush=True)  # noqa: T201
        server.run(sockets=[listener])
