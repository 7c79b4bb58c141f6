"""A network that fails in silence."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conftest import mosquitto, taking_turns, wait_for
from edge.config import MqttConfig, SpoolConfig
from edge.connection import Dialer
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.pipeline import Sight
from edge.spool import Spool
from fakes import frame
from publisher import event

ORIGIN, TOPICS = Origin("pi", "camera", "0" * 12), Topics("emotiond", "pi")
SIGHT = Sight(frame(), [], [])


class Cable:
    """A network of two ends, the far one in a namespace of its own, that can swallow every packet in silence."""

    NOBODY = "02:00:00:00:00:99"

    def __init__(self) -> None:
        self.name = f"em{os.getpid()}"
        self.host = f"10.213.{os.getpid() % 256}.2"
        here = self.host.removesuffix("2") + "1"
        self._inside = ["ip", "netns", "exec", self.name]
        self._near, far = f"{self.name}a", f"{self.name}b"
        self._ends = (([], self.host, self._near), (self._inside, here, far))
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._near, "type", "veth", "peer", "name", far, "netns", self.name)
            for inside, address, device in (([], here, self._near), (self._inside, self.host, far)):
                _ip("addr", "add", f"{address}/24", "dev", device, inside=inside)
                _ip("link", "set", device, "up", inside=inside)
        except (OSError, subprocess.CalledProcessError):
            self.close()
            pytest.skip("no rights to make a network")

    def start(self, *command: object) -> subprocess.Popen:
        """A process at the far end."""
        return subprocess.Popen([*self._inside, *command], stderr=subprocess.DEVNULL)

    def swallow(self) -> None:
        for inside, address, device in self._ends:
            _ip("neigh", "replace", address, "lladdr", self.NOBODY, "nud", "permanent", "dev", device, inside=inside)

    def mend(self) -> None:
        for inside, address, device in self._ends:
            _ip("neigh", "del", address, "dev", device, inside=inside)

    def close(self) -> None:
        for words in (["link", "del", self._near], ["netns", "del", self.name]):
            subprocess.run(["ip", *words], capture_output=True)


def _ip(*words: str, inside: Sequence[str] = ()) -> None:
    subprocess.run([*inside, "ip", *words], check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed")
    with taking_turns("interfaces"):
        made = Cable()
        yield made
        made.close()


@pytest.fixture
def broker(cable: Cable, tmp_path: Path) -> Iterator[str]:
    """The address of one at the far end."""
    config = tmp_path / "conf"
    config.write_text("listener 1883\nallow_anonymous true\nuser root\n")
    running = cable.start(mosquitto(), "-c", config)
    yield cable.host
    running.kill()
    running.wait()


def test_a_network_that_swallows_everything_is_noticed_though_only_live_messages_go(
    cable: Cable, broker: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are never acknowledged; the kernel would go on sending them, ever more rarely, for a quarter of an hour."""
    monkeypatch.setattr("edge.connection.SILENCE_S", 1.0)
    config = MqttConfig(
        broker=broker, tls=False, keepalive_s=3600, ack_timeout_s=3600, retry_min_s=0.1, retry_max_s=0.3
    )
    with (
        Spool(SpoolConfig()) as spool,
        MqttLink(config, Dialer(config, "emotiond-pi"), TOPICS, ["camera"], spool, lambda *_: None) as link,
    ):
        link.publish(event(1), ORIGIN)
        wait_for(lambda: link.queued == 0, "the first event")
        cable.swallow()

        def noticed() -> bool:
            link.show(SIGHT, ORIGIN)
            return "connection lost" in caplog.text

        wait_for(noticed, "the connection is given up")
        link.publish(event(2), ORIGIN)
        cable.mend()
        wait_for(lambda: link.queued == 0, "the second event")
