"""Typed settings. Every key has a default; `config.yaml` in the repository shows them all with their reasons."""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from edge.address import check_brokers, check_host, split_address
from edge.errors import ConfigError
from edge.settings import TOPIC_LEVEL_MAX, FilePath, Port, Probability, Seconds, Settings, TopicLevel, check_retries

PASSWORD_MAX = 65535  # bytes; MQTT's limit

Host = Annotated[str, AfterValidator(check_host)]


def _source(value: Any) -> Any:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and value and "\0" not in value:
        return int(value) if value.isascii() and value.isdigit() else value
    raise ValueError("must be builtin, a webcam's number from 0, a file, a folder or pattern of pictures, or a URL")


class CameraConfig(Settings):
    """Where the frames come from."""

    name: TopicLevel = "camera"
    source: Annotated[int | str, BeforeValidator(_source)] = "builtin"
    width: Annotated[int, Field(ge=16, le=16384)] | None = None
    height: Annotated[int, Field(ge=16, le=16384)] | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    realtime: bool | None = None
    loop: bool | None = None
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    stale_after_s: Annotated[float, Field(ge=0.1, le=600)] = 3.0
    retry_min_s: Annotated[float, Field(ge=0.05, le=600)] = 0.5
    retry_max_s: Annotated[float, Field(ge=0.05, le=3600)] = 3.0

    @model_validator(mode="after")
    def _retries_in_order(self) -> "CameraConfig":
        return check_retries(self)


class HaarConfig(Settings):
    """OpenCV's Haar cascade for frontal faces."""

    kind: Literal["haar"] = "haar"
    cascade: FilePath | None = None
    search_width: Annotated[int, Field(ge=40, le=8192)] = 480
    scale_factor: Annotated[float, Field(ge=1.01, le=4)] = 1.2
    min_neighbors: Annotated[int, Field(ge=0, le=100)] = 4
    min_face: Annotated[int, Field(ge=1, le=8192)] = 48
    follow_neighbors: Annotated[int, Field(ge=0, le=100)] = 1


class MtcnnConfig(Settings):
    """MTCNN, for stills, videos and benchmarks on a workstation: it brings TensorFlow."""

    kind: Literal["mtcnn"]
    search_width: Annotated[int, Field(ge=40, le=8192)] = 640
    min_confidence: Probability = 0.9
    min_face: Annotated[int, Field(ge=1, le=8192)] = 48


DETECTORS: dict[str, type[HaarConfig] | type[MtcnnConfig]] = {"haar": HaarConfig, "mtcnn": MtcnnConfig}


def _kind(value: Any) -> Any:
    return value.get("kind", "haar") if isinstance(value, dict) else getattr(value, "kind", "haar")


DetectorConfig = Annotated[
    Annotated[HaarConfig, Tag("haar")] | Annotated[MtcnnConfig, Tag("mtcnn")],
    Discriminator(_kind, custom_error_type="kind", custom_error_message=f"must be one of {', '.join(DETECTORS)}"),
]


def _region(value: Any) -> Any:
    if value is None:
        return None
    if not (isinstance(value, list | tuple) and len(value) == 4):
        raise ValueError("must be [left, top, right, bottom], each a share of the picture from 0 to 1")
    left, top, right, bottom = value
    if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in value):
        raise ValueError("must be four numbers: [left, top, right, bottom], each a share of the picture from 0 to 1")
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("must be [left, top, right, bottom] with 0 <= left < right <= 1 and 0 <= top < bottom <= 1")
    return tuple(float(side) for side in value)


class SearchConfig(Settings):
    """When the whole picture is searched; between, known faces are followed."""

    interval_s: Annotated[float, Field(ge=0, le=3600)] = 0.5
    empty_interval_s: Annotated[float, Field(ge=0, le=3600)] = 0.1
    join_after_s: Annotated[float, Field(ge=0, le=3600)] = 0.2
    skip_still: bool = True
    region: Annotated[tuple[float, float, float, float] | None, BeforeValidator(_region)] = None


class TrackerConfig(Settings):
    """How detections become tracks."""

    min_overlap: Probability = 0.25
    confirm_frames: Annotated[int, Field(ge=1, le=1000)] = 3
    sure_confidence: Annotated[float, Field(ge=0)] = 8.0
    coast_s: Seconds = 0.8
    box_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.5


class ModelConfig(Settings):
    """The network and what runs it."""

    path: FilePath | None = None
    folder: FilePath | None = None
    public_key: str | None = None
    runtime: Literal["auto", "litert", "tflite-runtime"] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1


class EmotionConfig(Settings):
    """When an emotion becomes a face's stable one."""

    reads_per_s: Annotated[float, Field(gt=0, le=1000)] = 15.0
    smoothing_s: Seconds = 0.4
    min_confidence: Probability = 0.45
    dwell_s: Seconds = 0.5


class MqttConfig(Settings):
    """The broker and what is published."""

    broker: Annotated[Host | tuple[str, ...] | None, BeforeValidator(check_brokers)] = "embedded"
    port: Port | None = None
    base_topic: TopicLevel = "emotiond"
    client_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    ack_timeout_s: Annotated[float, Field(ge=1, le=3600)] = 15.0
    retry_min_s: Annotated[float, Field(ge=0.1, le=600)] = 1.0
    retry_max_s: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    username: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    password_file: FilePath | None = None
    password_env: str | None = None
    password_credential: str | None = None
    tls: bool | None = None
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    live_rate_hz: Annotated[float, Field(ge=0, le=1000)] = 5.0
    stats_interval_s: Annotated[float, Field(ge=0.1, le=86400)] = 30.0
    commands: bool = False
    snapshots: bool = False
    snapshot_rate_hz: Annotated[float, Field(gt=0, le=30)] = 3.0
    snapshot_width: Annotated[int, Field(ge=32, le=1920)] = 480

    @model_validator(mode="after")
    def _belong_together(self) -> "MqttConfig":
        passwords = [self.password_file, self.password_env, self.password_credential]
        if sum(source is not None for source in passwords) > 1:
            raise ValueError("give one of password_file, password_env and password_credential")
        if any(source is not None for source in passwords) and self.username is None:
            raise ValueError("a password needs a username")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if self.tls is False and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need tls: true")
        return check_retries(self)

    @property
    def embedded(self) -> bool:
        """Whether the daemon brings its own broker on the loopback interface."""
        return self.broker == "embedded"

    @property
    def use_tls(self) -> bool:
        """As configured; when nothing is said, every broker that is not on this machine is asked for TLS."""
        if self.tls is not None:
            return self.tls
        named = self.brokers if isinstance(self.broker, str) else [split_address(each)[0] for each in self.brokers]
        hosts = set(named)
        return bool(self.ca_file or self.cert_file or hosts - {"embedded", "localhost", "127.0.0.1", "::1"})

    @property
    def brokers(self) -> tuple[str, ...]:
        """As configured; of one as of several. Empty where none is wanted."""
        return (self.broker,) if isinstance(self.broker, str) else self.broker or ()

    @property
    def password(self) -> str | None:
        """Read from where the configuration says. Raises ConfigError; the error never shows the secret."""
        if self.password_env is not None:
            if self.password_env not in os.environ:
                # What does not look like a variable's name may be the password itself.
                name = self.password_env if re.fullmatch("[A-Z_][A-Z0-9_]*", self.password_env) else "that it names"
                raise ConfigError(f"mqtt.password_env: the environment variable {name} is not set")
            return os.environ[self.password_env]
        path, key = self.password_file, "password_file"
        if self.password_credential is not None:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if folder is None:
                raise ConfigError(
                    "mqtt.password_credential: no $CREDENTIALS_DIRECTORY; add LoadCredential= to the unit"
                )
            path, key = Path(folder) / self.password_credential, "password_credential"
        if path is None:
            return None
        try:
            password = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"mqtt.{key}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
            ) from None
        if len(password.encode()) > PASSWORD_MAX:
            raise ConfigError(f"mqtt.{key}: {path}: holds more than a password")
        return password


class HomeAssistantConfig(Settings):
    """Whether Home Assistant is told of the device."""

    prefix: TopicLevel | None = None


class PaceConfig(Settings):
    """When the device spares itself."""

    hot_c: Annotated[float, Field(ge=0, le=150)] | None = 80.0


class MetricsConfig(Settings):
    """Figures for Prometheus."""

    file: FilePath | None = None
    http_port: Port | None = None
    http_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"


class SpoolConfig(Settings):
    """Where events wait for the broker, and how many at most."""

    folder: FilePath | None = None
    max_events: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    max_mb: Annotated[float, Field(ge=0.01, le=10_000)] = 64.0
    max_age_s: Annotated[float, Field(ge=1, le=315_360_000)] = 604_800.0
    sync_s: Annotated[float, Field(ge=0.05, le=60)] = 1.0


class LogConfig(Settings):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


def _host_name() -> str:
    """The host's name without its domain, as far as a topic can carry it."""
    name = "".join(c for c in socket.gethostname().split(".")[0] if c.isprintable() and c not in "+#/$")
    return name[:TOPIC_LEVEL_MAX] or "device"


class Config(Settings):
    """All settings of the daemon."""

    device: TopicLevel = Field(default_factory=_host_name)
    camera: CameraConfig = CameraConfig()
    detector: DetectorConfig = HaarConfig()
    search: SearchConfig = SearchConfig()
    tracker: TrackerConfig = TrackerConfig()
    model: ModelConfig = ModelConfig()
    emotion: EmotionConfig = EmotionConfig()
    mqtt: MqttConfig = MqttConfig()
    homeassistant: HomeAssistantConfig = HomeAssistantConfig()
    metrics: MetricsConfig = MetricsConfig()
    pace: PaceConfig = PaceConfig()
    spool: SpoolConfig = SpoolConfig()
    log: LogConfig = LogConfig()
