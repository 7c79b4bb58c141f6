"""Figures for Prometheus: a text file for node_exporter's textfile collector, and HTTP where that is asked for."""

import contextlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from edge.config import MetricsConfig
from edge.errors import ConfigError, ServiceUnavailableError
from edge.messages import dominant
from edge.pipeline import Sight
from edge.records import Event

try:
    import prometheus_client as prometheus
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
except ImportError:
    raise ConfigError("metrics: needs prometheus-client: pip install 'emotiond[metrics]'") from None

log = logging.getLogger(__name__)


class Metrics:
    """A sink and a monitor. The file is written with each stats message, and whole: a reader never sees half of it.

    Over HTTP the states are those of now, the figures those of the last stats message. A context manager; entering
    raises ServiceUnavailableError if the port cannot be had. A file that cannot be written is told once.
    """

    queued = 0

    def __init__(self, config: MetricsConfig, device: str, camera: str) -> None:
        self._config = config
        self._labels = {"device": device, "camera": camera}
        self._stats: dict[str, Any] = {}
        self._events: dict[tuple[str, ...], int] = {}
        self._camera_status, self._faces, self._emotion = "offline", 0, ""
        self._lock = threading.Lock()  # HTTP is answered on a thread of its own
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(self)
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self._problem: str | None = None

    def __enter__(self) -> "Metrics":
        if (port := self._config.http_port) is not None:
            host = self._config.http_host
            try:
                self._server = prometheus.start_http_server(port, host, self._registry)
            except OSError as error:
                raise ServiceUnavailableError(
                    f"metrics.http_port: {host}:{port}: cannot listen: {error.strerror}"
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

    def publish(self, event: Event) -> None:
        """Count an event."""
        key = (event.type, event.reading.emotion or "uncertain")
        with self._lock:
            self._events[key] = self._events.get(key, 0) + 1

    def show(self, sight: Sight) -> None:
        """Take who is in view."""
        face = dominant(sight.readings)
        with self._lock:
            self._faces, self._emotion = len(sight.readings), (face.emotion or "") if face else ""

    def camera_status(self, status: str) -> None:
        """Take `online`, `offline` or `paused`."""
        with self._lock:
            self._camera_status = status

    def stats(self, message: dict[str, Any]) -> None:
        """Take the daemon's figures, and write the file."""
        with self._lock:
            self._stats = message
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
            stats, events = self._stats, dict(self._events)
            online, faces, emotion = self._camera_status == "online", self._faces, self._emotion
        families: list[Metric] = [
            self._family(GaugeMetricFamily, "camera_online", "1 while the camera gives frames", {(): online}),
            self._family(GaugeMetricFamily, "faces", "Faces in view", {(): faces}),
            self._family(
                GaugeMetricFamily,
                "dominant",
                "1 for the dominant emotion",
                {(emotion,): 1} if emotion else {},
                "emotion",
            ),
            self._family(CounterMetricFamily, "events", "By type and emotion", events, "type", "emotion"),
        ]
        return families + self._of_stats(stats) if stats else families

    def _of_stats(self, stats: dict[str, Any]) -> list[Metric]:
        gauges = {
            "frames_in_per_second": ("That the camera gave", stats["fps_in"]),
            "frames_out_per_second": ("That were looked at", stats["fps_out"]),
            "events_waiting": ("That the broker has not acknowledged", stats["queue"]),
            "uptime_seconds": ("Since the start", stats["uptime_s"]),
            "temperature_celsius": ("Of the processor", stats["temperature_c"]),
        }
        latency: dict[tuple[str, ...], float] = {
            (f"0.{name[1:]}",): ms / 1000 for name, ms in (stats["latency_ms"] or {}).items()
        }
        drops: dict[tuple[str, ...], int] = {(cause,): count for cause, count in stats["drops"].items()}
        what = {name: stats[name] for name in ("version", "model", "runtime")}
        return [
            *(
                self._family(GaugeMetricFamily, name, explanation, {(): value})
                for name, (explanation, value) in gauges.items()
                if value is not None
            ),
            self._family(GaugeMetricFamily, "latency_seconds", "From capture to event", latency, "quantile"),
            self._family(CounterMetricFamily, "drops", "Frames and messages left out, by cause", drops, "cause"),
            self._family(CounterMetricFamily, "sweeps", "Searches of a whole picture", {(): stats["sweeps"]}),
            self._family(CounterMetricFamily, "still_frames", "That showed nothing new", {(): stats["still_frames"]}),
            InfoMetricFamily("emotiond", "What runs", {**self._labels, **what}),
        ]

    def _family(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        explanation: str,
        values: Mapping[tuple[str, ...], float],
        *labels: str,
    ) -> Metric:
        """values: what the further labels say, to the value."""
        family = kind(f"emotiond_{name}", explanation, labels=[*self._labels, *labels])
        for further, value in values.items():
            family.add_metric([*self._labels.values(), *further], value)
        return family
