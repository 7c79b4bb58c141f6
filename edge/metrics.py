"""Figures for Prometheus: a text file for node_exporter's textfile collector, and HTTP where that is asked for."""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIServer

from edge.address import why_no_host
from edge.config import MetricsConfig
from edge.errors import ConfigError, ServiceUnavailableError, pip
from edge.labels import UNCERTAIN
from edge.messages import Origin, dominant
from edge.pipeline import Sight
from edge.records import Event

try:
    import prometheus_client as prometheus
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
except ImportError:
    raise ConfigError(f"metrics: needs prometheus-client: {pip('install', 'emotiond[metrics]')}") from None

log = logging.getLogger(__name__)

LABELS = ["device", "camera"]
Values = Mapping[tuple[str, ...], float]  # what all labels but the device say, to the value
T = TypeVar("T")


@dataclass(slots=True)
class _Camera:
    status: str = "offline"
    faces: int = 0
    emotion: str = ""
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By type and emotion."""
    stats: dict[str, Any] | None = None


class Metrics:
    """A sink and a monitor. The file is written with each stats message, and whole: a reader never sees half of it.

    Over HTTP the states are those of now, the figures those of the last stats message. A context manager; entering
    raises ServiceUnavailableError if the port cannot be had. A file that cannot be written is told once.
    """

    queued = 0

    def __init__(self, config: MetricsConfig) -> None:
        self._config = config
        self._device = ""
        self._cameras: dict[str, _Camera] = {}
        self._lock = threading.Lock()  # HTTP is answered on a thread of its own
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(self)
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self._problem: str | None = None

    def use(self, device: str, cameras: Sequence[str]) -> None:
        """Speak of these from now on."""
        with self._lock:
            self._device = device
            self._cameras = {camera: self._cameras.get(camera, _Camera()) for camera in cameras}

    def __enter__(self) -> "Metrics":
        if (port := self._config.http_port) is not None:
            host = self._config.http_host
            try:
                self._server = prometheus.start_http_server(port, host, self._registry)
            except (OSError, UnicodeError) as error:
                raise ServiceUnavailableError(
                    f"metrics.http_port: {host}:{port}: cannot listen: {why_no_host(error)}"
                ) from None
        return self

    def __exit__(self, *exc: object) -> None:
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join(timeout=1)
        if self._config.file is not None:
            # A file that nobody writes any more would be read as the figures of now.
            with contextlib.suppress(OSError):
                self._config.file.unlink()

    @property
    def drops(self) -> dict[str, int]:
        """None: figures are replaced, not queued."""
        return {}

    def raise_failure(self) -> None:
        """Nothing here keeps it from working."""

    def publish(self, event: Event, origin: Origin) -> None:
        """Count an event."""
        with self._lock:
            self._cameras[origin.camera].events[event.type, event.reading.emotion or UNCERTAIN] += 1

    def show(self, sight: Sight, origin: Origin) -> None:
        """Take who is in view."""
        face = dominant(sight.readings)
        with self._lock:
            camera = self._cameras[origin.camera]
            camera.faces, camera.emotion = len(sight.readings), (face.emotion or "") if face else ""

    def camera_status(self, camera: str, status: str) -> None:
        """Take `online`, `offline` or `paused`."""
        with self._lock:
            self._cameras[camera].status = status

    def stats(self, messages: Sequence[dict[str, Any]]) -> None:
        """Take the daemon's figures, and write the file."""
        with self._lock:
            for message in messages:
                self._cameras[message["camera"]].stats = message
        if self._config.file is None:
            return
        try:
            self._write(self._config.file)
        except OSError as error:
            self._say(f"metrics.file: {self._config.file}: cannot be written: {error.strerror}")
        else:
            self._say(None)

    def _write(self, path: Path) -> None:
        beside = path.with_name(f".{path.name}.new")
        beside.write_bytes(prometheus.generate_latest(self._registry))
        beside.chmod(0o644)  # node_exporter is another user, and the unit's umask leaves it nothing
        beside.replace(path)

    def _say(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    def collect(self) -> list[Metric]:
        """All metrics, as prometheus_client asks for them."""
        with self._lock:
            cameras = dict(self._cameras)
            told = {name: camera.stats for name, camera in cameras.items() if camera.stats is not None}
            families: list[Metric] = [
                self._gauge("camera_online", "1 while the camera gives frames", _each(cameras, _online)),
                self._gauge("faces", "Faces in view", _each(cameras, lambda camera: camera.faces)),
                self._gauge(
                    "dominant",
                    "1 for the dominant emotion",
                    {(name, camera.emotion): 1 for name, camera in cameras.items() if camera.emotion},
                    "emotion",
                ),
                self._counter(
                    "events",
                    "By type and emotion",
                    {(name, *key): count for name, camera in cameras.items() for key, count in camera.events.items()},
                    "type",
                    "emotion",
                ),
            ]
        return families + self._of_stats(told) if told else families

    def _of_stats(self, told: Mapping[str, dict[str, Any]]) -> list[Metric]:
        """told: the stats message of each camera."""
        gauges = {
            "frames_in_per_second": ("That the camera gave", "fps_in"),
            "frames_out_per_second": ("That were looked at", "fps_out"),
            "events_waiting": ("That the broker has not acknowledged", "queue"),
            "uptime_seconds": ("Since the start", "uptime_s"),
            "temperature_celsius": ("Of the processor", "temperature_c"),
        }
        families: list[Metric] = []
        for name, (explanation, key) in gauges.items():
            values: Values = {(camera,): stats[key] for camera, stats in told.items() if stats[key] is not None}
            if values:
                families.append(self._gauge(name, explanation, values))
        latency: Values = {
            (camera, f"0.{name[1:]}"): ms / 1000
            for camera, stats in told.items()
            for name, ms in (stats["latency_ms"] or {}).items()
        }
        drops: Values = {(camera, cause): n for camera, stats in told.items() for cause, n in stats["drops"].items()}
        info = InfoMetricFamily("emotiond", "What runs", labels=LABELS)
        for camera, stats in told.items():
            info.add_metric([self._device, camera], {name: stats[name] for name in ("version", "model", "runtime")})
        return [
            *families,
            self._gauge("latency_seconds", "From capture to event", latency, "quantile"),
            self._counter("drops", "Frames and messages left out, by cause", drops, "cause"),
            self._counter("sweeps", "Searches of a whole picture", _each(told, lambda stats: stats["sweeps"])),
            self._counter("still_frames", "That showed nothing new", _each(told, lambda stats: stats["still_frames"])),
            info,
        ]

    def _gauge(self, name: str, explanation: str, values: Values, *labels: str) -> Metric:
        return self._filled(GaugeMetricFamily(f"emotiond_{name}", explanation, labels=[*LABELS, *labels]), values)

    def _counter(self, name: str, explanation: str, values: Values, *labels: str) -> Metric:
        return self._filled(CounterMetricFamily(f"emotiond_{name}", explanation, labels=[*LABELS, *labels]), values)

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
        for labels, value in values.items():
            family.add_metric([self._device, *labels], value)
        return family


def _online(camera: _Camera) -> float:
    return camera.status == "online"


def _each(cameras: Mapping[str, T], value: Callable[[T], float]) -> dict[tuple[str, ...], float]:
    return {(name,): value(camera) for name, camera in cameras.items()}
