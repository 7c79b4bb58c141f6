"""Typed settings. Every key has a default; `config.yaml` in the repository shows them all with their reasons."""

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edge.address import check_brokers, check_host, split_address
from edge.cameraconfig import (
    DETECTORS,
    OWN_SECTIONS,
    CameraConfig,
    CameraEntry,
    Cameras,
    DetectorConfig,
    EmotionConfig,
    HaarConfig,
    MtcnnConfig,
    SearchConfig,
    TrackerConfig,
    laid_over,
)
from edge.errors import ConfigError
from edge.givenfile import read_given
from edge.settings import TOPIC_LEVEL_MAX, FilePath, Port, Settings, TopicLevel, WrittenFile, check_retries

__all__ = [
    "DETECTORS",
    "CameraConfig",
    "CameraEntry",
    "Config",
    "DetectorConfig",
    "EmotionConfig",
    "HaarConfig",
    "HomeAssistantConfig",
    "LogConfig",
    "MetricsConfig",
    "ModelConfig",
    "MqttConfig",
    "MtcnnConfig",
    "PaceConfig",
    "SearchConfig",
    "SpoolConfig",
    "TrackerConfig",
]

PASSWORD_MAX = 65535  # bytes; MQTT's limit
FILE_MAX = 10_000_000  # bytes, of what is read whole: all authorities of a Debian are 0.2 million

Host = Annotated[str, AfterValidator(check_host)]


class ModelConfig(Settings):
    """The network and what runs it."""

    path: FilePath | None = None
    folder: FilePath | None = None
    public_key: str | None = None
    runtime: Literal["auto", "litert", "tflite-runtime"] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1


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
            # What does not look like a variable's name may be the password itself.
            name = self.password_env if re.fullmatch("[A-Z_][A-Z0-9_]*", self.password_env) else "that it names"
            try:
                return os.environb[self.password_env.encode()].decode()
            except (KeyError, UnicodeDecodeError) as error:
                problem = "not set" if isinstance(error, KeyError) else "not UTF-8"
                raise ConfigError(f"mqtt.password_env: the environment variable {name} is {problem}") from None
        path, key = self.password_file, "password_file"
        if self.password_credential is not None:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if folder is None:
                raise ConfigError(
                    "mqtt.password_credential: no $CREDENTIALS_DIRECTORY; needs LoadCredential= (systemctl edit)"
                )
            path, key = Path(folder) / self.password_credential, "password_credential"
        if path is None:
            return None
        return read_password(f"mqtt.{key}", path)

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """The password, and a digest of each certificate file: their contents may change while the settings stay.

        Raises ConfigError.
        """
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        return self.password, *(_digest(f"mqtt.{key}", path) for key, path in files.items())


def read_password(name: str, path: Path) -> str:
    """What a file holds, but for the end of its line. name: of the setting or option. Raises ConfigError."""
    try:
        # The mark that some editors put before a text (BOM) is none of it.
        password = read_given(path, FILE_MAX).decode("utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{name}: cannot read {path}: {problem}") from None
    if not password:
        raise ConfigError(f"{name}: {path}: is empty; write the password into it, or leave {name} out")
    if len(password.encode()) > PASSWORD_MAX:
        raise ConfigError(f"{name}: {path}: holds more than a password")
    return password


def _digest(key: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return hashlib.sha256(read_given(path, FILE_MAX)).hexdigest()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None


class HomeAssistantConfig(Settings):
    """Whether Home Assistant is told of the device."""

    prefix: TopicLevel | None = None


class PaceConfig(Settings):
    """When the device spares itself."""

    hot_c: Annotated[float, Field(ge=0, le=150)] | None = 80.0


class MetricsConfig(Settings):
    """Figures for Prometheus."""

    file: WrittenFile | None = None
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
    cameras: Cameras = None
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

    @model_validator(mode="after")
    def _one_or_several(self) -> "Config":
        if self.cameras is not None and "camera" in self.model_fields_set:
            raise ValueError("camera and cameras: one of them must go; cameras: [...] can hold a single one too")
        return self

    @property
    def per_camera(self) -> tuple["Config", ...]:
        """The settings as they are for each camera, in `camera` and the sections; of one as of several."""
        return (self,) if self.cameras is None else tuple(self._of(entry) for entry in self.cameras)

    def _of(self, entry: CameraEntry) -> "Config":
        camera = CameraConfig(**{key: getattr(entry, key) for key in CameraConfig.model_fields})
        own = {key: section for key in OWN_SECTIONS if (section := getattr(entry, key)) is not None}
        laid = {key: laid_over(getattr(self, key), section) for key, section in own.items()}
        return self.model_copy(update={"camera": camera, "cameras": None, **laid})
