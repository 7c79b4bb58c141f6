"""Settings that each camera may have of its own: where its frames come from, and how they are read."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from edge.settings import FilePath, Probability, Region, Seconds, Settings, Source, TopicLevel, check_retries

FOUR_CC = "^[!-~][ -~]{3}$"


def _camera_name(name: str) -> str:
    if name == "cmd":
        raise ValueError("must not be cmd: below it the device is told what to do")
    return name


def _four_cc(text: str) -> str:
    if not re.fullmatch(FOUR_CC, text):
        raise ValueError("must be a format's four characters, as v4l2-ctl --list-formats shows them, e.g. MJPG")
    return text


FourCC = Annotated[str, AfterValidator(_four_cc), WithJsonSchema({"type": "string", "pattern": FOUR_CC})]


class CameraConfig(Settings):
    """Where the frames come from."""

    name: Annotated[TopicLevel, AfterValidator(_camera_name)] = "camera"
    source: Source = "builtin"
    width: Annotated[int, Field(ge=16, le=16384)] | None = None
    height: Annotated[int, Field(ge=16, le=16384)] | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    pixel_format: FourCC | None = None
    exposure_ms: Annotated[float, Field(gt=0, le=10_000)] | None = None
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
    scale_factor: Annotated[float, Field(ge=1.01, le=4)] = 1.19
    min_neighbors: Annotated[int, Field(ge=0, le=100)] = 6
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


class SearchConfig(Settings):
    """When the whole picture is searched; between, known faces are followed."""

    interval_s: Annotated[float, Field(ge=0, le=3600)] = 0.25
    steady_interval_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    empty_interval_s: Annotated[float, Field(ge=0, le=3600)] = 0.1
    join_after_s: Annotated[float, Field(ge=0, le=3600)] = 0.2
    skip_still: bool = True
    region: Region = None


class TrackerConfig(Settings):
    """How detections become tracks."""

    min_overlap: Probability = 0.25
    confirm_frames: Annotated[int, Field(ge=1, le=1000)] = 3
    sure_confidence: Annotated[float, Field(ge=0)] = 9.0
    coast_s: Seconds = 0.8
    box_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.5


class EmotionConfig(Settings):
    """When an emotion becomes a face's stable one."""

    reads_per_s: Annotated[float, Field(gt=0, le=1000)] = 10.0
    smoothing_s: Seconds = 0.4
    min_confidence: Probability = 0.45
    dwell_s: Seconds = 0.5


class CameraEntry(CameraConfig):
    """One of several cameras: what `camera` has, and its own settings in sections that hold for all others."""

    detector: DetectorConfig | None = None
    search: SearchConfig | None = None
    tracker: TrackerConfig | None = None
    emotion: EmotionConfig | None = None


OWN_SECTIONS = ("detector", "search", "tracker", "emotion")


def _named_apart(entries: tuple[CameraEntry, ...] | None) -> tuple[CameraEntry, ...] | None:
    names = [entry.name for entry in entries or ()]
    if entries == ():
        raise ValueError("must name at least one camera, as in cameras: [{name: front, source: 0}]")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{names.count(name)} are named {name}: give each a name of its own")
    return entries


Cameras = Annotated[tuple[CameraEntry, ...] | None, AfterValidator(_named_apart)]


def laid_over(general: Settings, own: Settings) -> Settings:
    """A section with what a camera's own says otherwise."""
    if type(general) is not type(own):
        return own  # another kind of detector: the settings of one are not those of another
    return general.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
