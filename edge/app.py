"""From the configuration to the parts. The only place that picks implementations."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
from typing_extensions import assert_never

from edge.camera import LiveSource, is_live
from edge.classifier import TfliteClassifier, network_of
from edge.config import CameraConfig, Config, DetectorConfig, HaarConfig, MtcnnConfig
from edge.errors import ConfigError, naming
from edge.files import open_file
from edge.haar import HaarDetector, HaarFollower
from edge.mtcnn import MtcnnDetector
from edge.pipeline import FaceDetector, FrameSource, Pipeline
from edge.policy import EmotionPolicy
from edge.search import FaceSearch
from edge.tracker import Tracker


def build_detector(config: DetectorConfig, coarsest: float = math.inf) -> FaceDetector:
    """The face detector that the configuration names. coarsest: the most that Haar's frames are shrunk by."""
    match config:
        case HaarConfig():
            return HaarDetector(config, coarsest)
        case MtcnnConfig():
            return MtcnnDetector(config)
        case _:
            assert_never(config)


def files_read(settings: Path | None, config: Config) -> list[Path]:
    """The file of the settings, if there is one, and those that they lead to: the network, a cascade of one's own."""
    cascade = config.detector.cascade if isinstance(config.detector, HaarConfig) else None
    return [path for path in (settings, network_of(config.model), cascade) if path is not None]


def refuse_for_a_device(config: DetectorConfig) -> None:
    """Raise ConfigError for a detector that would bring TensorFlow to a device."""
    if not isinstance(config, HaarConfig):
        raise ConfigError(f"detector.kind: {config.kind} is for image, video and preview; the daemon takes haar")


def build_source(
    config: CameraConfig, patient: bool = False, wake: Callable[[], None] = lambda: None, colour: bool = True
) -> FrameSource:
    """The source that the configuration names.

    patient: a camera that is not there yet is waited for. wake: called when a camera's frame is there to be taken.
    colour: whether frames must be colourful where the source is; grey ones are cheaper.
    """
    source = config.source
    if isinstance(source, str) and not is_live(source):
        return open_file(config, source, colour)
    return LiveSource(config, patient, wake, colour)


def sees_colour(config: Config) -> bool:
    """Whether anything that the daemon does with a frame needs its colours: nothing that finds and reads faces does."""
    return config.mqtt.snapshots or not isinstance(config.detector, HaarConfig)


def naming_source(config: Config, camera: str) -> AbstractContextManager[None]:
    """Lets errors about a camera's source name its key as it stands in the settings."""
    return naming("camera.source" if config.cameras is None else f"cameras.{camera}.source", instead_of="camera.source")


def build_search(config: Config, pool: ThreadPoolExecutor | None = None) -> FaceSearch:
    """What finds faces; without a pool of threads it has one of its own while it is entered."""
    live = isinstance(config.camera.source, int) or is_live(config.camera.source)
    # The pictures searched are small: OpenCV's own threads take a tenth more processor time in all. A camera need not
    # be hurried for that; a file waits for its sweeps, which are done in two thirds of the time.
    cv2.setNumThreads(1 if live else len(os.sched_getaffinity(0)))
    follower = HaarFollower(config.detector if isinstance(config.detector, HaarConfig) else HaarConfig())
    return FaceSearch(build_detector(config.detector), follower, config.search, config.detector.min_face, live, pool)


def build_pipeline(config: Config, search: FaceSearch, classifier: TfliteClassifier) -> Pipeline:
    """The way from frame to events."""
    tracker, policy = Tracker(config.tracker), EmotionPolicy(config.emotion)
    return Pipeline(search, tracker, classifier, policy, config.emotion.reads_per_s)
