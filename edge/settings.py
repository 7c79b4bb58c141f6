"""What the settings are made of: strictness, and types that more than one section uses."""

from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from edge.address import camera_number

TOPIC_LEVEL_MAX = 64  # characters; MQTT allows 65,535 bytes for a whole topic, nobody can read that


def topic_level(text: str) -> str:
    """One level of an MQTT topic: a wildcard or a separator in it would publish somewhere else. Raises ValueError."""
    if not text or len(text) > TOPIC_LEVEL_MAX or not text.isprintable() or set("+#/$") & set(text):
        raise ValueError(f"must be 1 to {TOPIC_LEVEL_MAX} printable characters without + # / $")
    return text


def _file_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be a file's name, without NUL")
    return path


def _written_path(path: Path) -> Path:
    if path.name in ("", ".."):  # of `.` and `/` too: there would be no name to write beside
        raise ValueError("must be a file, not a folder")
    return path


def _source(value: Any) -> Any:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and value and "\0" not in value:
        camera_number(value)
        return int(value) if value.isascii() and value.isdigit() else value
    raise ValueError(
        "must be builtin, a webcam's number from 0, a file, a folder or pattern of pictures, picamera2, or a URL"
    )


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


TopicLevel = Annotated[str, AfterValidator(topic_level)]
FilePath = Annotated[Path, AfterValidator(_file_path)]
WrittenFile = Annotated[FilePath, AfterValidator(_written_path)]
Seconds = Annotated[float, Field(ge=0, le=3600)]
Probability = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Source = Annotated[int | str, BeforeValidator(_source)]
Region = Annotated[tuple[float, float, float, float] | None, BeforeValidator(_region)]


class Settings(BaseModel):
    """A section of the settings."""

    # Strict, so that `port: "1883"` or `loop: 1` is an error and not a guess.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Retrying(Protocol):
    @property
    def retry_min_s(self) -> float: ...
    @property
    def retry_max_s(self) -> float: ...


R = TypeVar("R", bound=_Retrying)


def check_retries(settings: R) -> R:
    """For sections with a waiting time that doubles up to another."""
    if settings.retry_min_s > settings.retry_max_s:
        raise ValueError("retry_min_s must not be larger than retry_max_s")
    return settings
