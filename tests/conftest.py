"""Real parts for the tests: a broker, a subscriber, the daemon's process, a video made from the built-in clip."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from edge import clip
from mjpeg_server import MjpegCamera

# TensorFlow 2.21 with oneDNN damages its heap on some AMD processors (family 25, model 17) when networks as narrow as
# the tests' are trained. Set before Keras is imported, and for child processes.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# A shell that starts the tests in the background has them, and so their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
# For what should take a fraction of a second: the machine may be busy. A very busy one is given more.
PATIENCE_S = float(os.environ.get("EMOTIOND_PATIENCE_S", "60"))


# Files that take longest go first: else the last of them would run alone, beside a core with nothing to do. Those that
# compute and those that wait take turns, so that two at once are seldom of one kind.
LONG = ("training_train", "faults", "web_browser", "web_server", "benchmarks", "daemon", "bundle", "durability",
        "stills", "several", "training_torch", "mqtt", "training_report", "reload", "convert", "discovery", "preview",
        "streams", "video")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file alone: within one the order stays."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONG)))


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds; fail, saying `what` did not happen, after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s} s: {what}"
        time.sleep(0.02)


@contextmanager
def taking_turns(name: str) -> Iterator[None]:
    """While here, no other process of these tests is: for what disturbs its neighbours."""
    with (Path(tempfile.gettempdir()) / f"emotiond-tests-{os.getuid()}-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def as_ordinary_user() -> list[str]:
    """What a command is started by so that rights of files hold for it, also where the tests run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv, which takes root's rights away, is not installed")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", "--inh-caps", rights, "--bounding-set", rights]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def mosquitto() -> str:
    """The program. Debian keeps it in a folder that is not in an ordinary user's path."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed (tests/system_packages.sh installs it)")
    return program


class Broker:
    """A mosquitto that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{extra or 'allow_anonymous true'}\n")
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._child = subprocess.Popen([mosquitto(), "-c", self._config], stderr=subprocess.DEVNULL)
        wait_for(lambda: is_open(self.port), "mosquitto listens")

    def freeze(self) -> None:
        """It still takes connections, or the kernel does for it, and says nothing."""
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


def no_subscriptions(folder: Path) -> str:
    """What has a mosquitto refuse all subscriptions."""
    plugins = list(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    if not plugins:
        pytest.skip("this mosquitto has no plugin for access rules")
    rights = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    (folder / "rights.json").write_text(json.dumps({"defaultACLAccess": rights}))
    return f"allow_anonymous true\nplugin {plugins[0]}\nplugin_opt_config_file {folder}/rights.json"


class Subscriber:
    """What a real subscriber receives: (topic, text, retained), in order."""

    def __init__(self, port: int, topic: str = "emotiond/#", **credentials: str) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        subscribed = threading.Event()
        self.lost = threading.Event()
        """Set once the connection ended and all that came over it was read."""
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_disconnect = lambda *_: self.lost.set()
        self._client.on_message = lambda client, userdata, m: self.messages.append(
            (m.topic, m.payload.decode(errors="surrogateescape"), m.retain)
        )
        if credentials:
            self._client.username_pw_set(**credentials)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def texts(self, topic: str) -> list[str]:
        return [text for seen, text, _ in list(self.messages) if seen == topic]

    def events(self) -> list[dict]:
        return [json.loads(text) for topic, text, _ in list(self.messages) if topic.endswith("/events")]

    def publish(self, topic: str, text: str, retain: bool = False) -> None:
        self._client.publish(topic, text, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Daemon:
    """`python -m edge` as a process of its own."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )

    def finish(self, timeout: float = PATIENCE_S) -> tuple[int, str, str]:
        """Exit code, standard output, standard error (without the runtime's own INFO line)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, "".join(x for x in err.splitlines(True) if not x.startswith("INFO:"))

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.finish()


# A camera that is lost is missed after a second, and soon taken up again.
QUICK = {"camera.timeout_s": 1.0, "camera.stale_after_s": 1.0, "camera.retry_min_s": 0.1, "camera.retry_max_s": 0.5}
# A face is there, and told, in every second; no end, and an event for each change at once.
LIVELY = {"emotion": {"dwell_s": 0.0, "min_confidence": 0.0, "smoothing_s": 0.0}}


class Service:
    """A daemon on a settings file, with the socket on which it speaks to systemd."""

    def __init__(self, folder: Path, start: Callable[..., Daemon], broker: Broker, **settings: object) -> None:
        self.path, self.said = folder / "config.yaml", []
        self._mqtt = {"broker": "127.0.0.1", "port": broker.port, "commands": True, "stats_interval_s": 0.5}
        self.write(**settings)
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(folder / "notify"))
        self._channel.settimeout(PATIENCE_S)
        self.daemon = start("run", "--config", str(self.path), env={"NOTIFY_SOCKET": str(folder / "notify")})
        self.hear_until("READY=1")

    def write(self, **settings: object) -> None:
        mqtt = {**self._mqtt, **settings.pop("mqtt", {})}
        self.path.write_text(yaml.safe_dump({"device": "pi", "mqtt": mqtt, **LIVELY, **settings}))

    def hear_until(self, word: str) -> list[str]:
        """Everything that systemd is told up to a message with this word."""
        heard: list[str] = []
        while not any(word in message for message in heard):
            heard.append(self._channel.recv(4096).decode())
        return heard

    def reload(self, **settings: object) -> list[str]:
        """SIGHUP on these settings; what systemd is told until it is ready again."""
        self.write(**settings)
        self.daemon.process.send_signal(signal.SIGHUP)
        return self.hear_until("READY=1")

    def stop(self) -> str:
        code, _, err = self.daemon.stop()
        assert (code, "Traceback" in err) == (0, False), err
        return err

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def lax_umask() -> Iterator[None]:
    """What is made is open to everybody, where nothing else is asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def start() -> Iterator[Callable[..., Daemon]]:
    """Starts `python -m edge ...`; whatever still runs at the end of the test is killed."""
    running: list[Daemon] = []

    def start_daemon(*arguments: str, **options: object) -> Daemon:
        running.append(Daemon(*arguments, **options))
        return running[-1]

    yield start_daemon
    for daemon in running:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.communicate()


@pytest.fixture
def broker_at(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts mosquitto, with extra lines of configuration if given."""
    running: list[Broker] = []

    def start_broker(extra: str = "") -> Broker:
        folder = tmp_path / f"broker{len(running)}"
        folder.mkdir()
        running.append(Broker(folder, extra))
        return running[-1]

    yield start_broker
    for broker in running:
        broker.kill()


@pytest.fixture
def broker(broker_at: Callable[..., Broker]) -> Broker:
    return broker_at()


@pytest.fixture
def service(tmp_path: Path, start, broker: Broker) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def begin(**settings: object) -> Service:
        running.append(Service(tmp_path, start, broker, **settings))
        return running[-1]

    yield begin
    for each in running:
        each.close()


@pytest.fixture
def subscribe() -> Iterator[Callable[..., Subscriber]]:
    """Connects a real subscriber to a port."""
    running: list[Subscriber] = []

    def connect(port: int, topic: str = "emotiond/#", **credentials: str) -> Subscriber:
        running.append(Subscriber(port, topic, **credentials))
        return running[-1]

    yield connect
    for subscriber in running:
        subscriber.close()


@pytest.fixture(scope="session")
def clip_frames() -> list[np.ndarray]:
    """One cycle of the built-in clip: comes in, moves, leaves."""
    return [image for _, image in clip.frames()]


@pytest.fixture(scope="session")
def standing(clip_frames: list[np.ndarray]) -> list[np.ndarray]:
    """The part of the built-in clip in which the person is there."""
    return clip_frames[30:170]


@pytest.fixture
def camera(standing: list[np.ndarray]) -> Iterator[MjpegCamera]:
    """A network camera before which that person stands."""
    server = MjpegCamera(standing)
    yield server
    server.close()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, clip_frames: list[np.ndarray]) -> Path:
    """The built-in clip as a video file."""
    path = tmp_path_factory.mktemp("video") / "portrait.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), clip.FPS, clip.SIZE)
    for image in clip_frames:
        writer.write(image)
    writer.release()
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real clips and FER2013, which are not part of the project."""
    folder = Path(os.environ.get("EMOTIOND_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real clips and FER2013 are not at {folder} (EMOTIOND_SHARED names another place)")
    return folder


def plain(port: int, **extra: object) -> list[str]:
    """Options that point the daemon to a broker on this machine, as device `pi`."""
    settings = {"device": "pi", "mqtt.broker": "127.0.0.1", "mqtt.port": port, "mqtt.retry_min_s": 0.1, **extra}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
