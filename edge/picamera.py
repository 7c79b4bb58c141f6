"""A Raspberry Pi's camera module, through picamera2: the system's own package, which the program never needs else."""

import concurrent.futures
import functools
import gc
import importlib
import os
import sys
from typing import Any

from edge.address import camera_number
from edge.config import CameraConfig
from edge.errors import CameraError, ConfigError

SIZE = (640, 480)  # px, unless the settings say otherwise
PLANAR = ("YUV420", "YVU420", "NV12", "NV21")  # they begin with the grey picture
BUFFERS = 4
CONTINUOUS_FOCUS = 2  # libcamera's AfModeContinuous; the module 3 stays where it is without


def load_picamera2() -> Any:
    """The module picamera2. Raises ConfigError that says how to come by it."""
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")  # else it tells of every step
    try:
        return importlib.import_module("picamera2")
    # A ValueError: one of its parts was built for another numpy than this environment's.
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise ConfigError(
            f"camera.source: picamera2 cannot be loaded here ({error}); on Raspberry Pi OS: sudo apt install "
            f"python3-picamera2, and sudo python3 -m venv --system-site-packages {sys.prefix} (docs/install.md)"
        ) from None


@functools.cache
def _keep_manager() -> Any:
    """libcamera's manager, for as long as the process lives: a camera opened under a second one gave no frames."""
    return importlib.import_module("libcamera").CameraManager.singleton()


def modules_found() -> list[str]:
    """The sources that picamera2 would give, each with its sensor's name; none where it is not installed."""
    try:
        cameras = load_picamera2().Picamera2.global_camera_info()
    except (ConfigError, RuntimeError):
        return []
    return [f"picamera2:{number} ({camera.get('Model', '?')})" for number, camera in enumerate(cameras)]


class PiCapture:
    """A camera module as (h, w) grey pictures: the Y plane that the Pi's image processor made, at low resolution.

    Raises CameraError if it is not there, is taken, or lacks what the settings ask for; ConfigError without picamera2.
    """

    def __init__(self, config: CameraConfig) -> None:
        library = load_picamera2()
        _keep_manager()
        self._mapped = library.MappedArray
        self._timeout_s = config.timeout_s
        self._request: Any = None
        number = camera_number(str(config.source))
        try:
            # Asked first: a Picamera2 that fails leaves a descriptor open.
            if number not in range(len(library.Picamera2.global_camera_info())):
                raise CameraError("is not there", "`rpicam-hello --list-cameras` shows what the Pi sees")
            self._camera = library.Picamera2(number)
        except RuntimeError as error:
            raise CameraError("cannot be opened", f"does another program have it? ({error})") from None
        try:
            self._start(config)
        except BaseException:
            self.release()
            raise

    def _start(self, config: CameraConfig) -> None:
        camera = self._camera
        width, height = camera.sensor_resolution
        settings = camera.create_video_configuration(
            main={"size": (config.width or SIZE[0], config.height or SIZE[1]), "format": "YUV420"},
            raw=None,
            # Smaller modes of most sensors show a part of the view only; half the resolution shows all of it.
            sensor={"output_size": (width // 2, height // 2)},
            controls=self._controls(config),
            buffer_count=BUFFERS,
            queue=False,  # each frame is the next one, not one that has waited
            display=None,
            encode=None,
        )
        try:
            camera.configure(settings)
            camera.start()
        except RuntimeError as error:
            raise CameraError("refuses these settings", f"see camera.width, height and fps ({error})") from None
        stream = camera.stream_configuration()
        if stream["format"] not in PLANAR:
            raise CameraError(
                f"gives {stream['format']}, not YUV420", "a USB camera is better read as /dev/v4l/by-id/..."
            )
        self._width, self._height = stream["size"]

    def _controls(self, config: CameraConfig) -> dict[str, Any]:
        has = self._camera.camera_controls
        controls: dict[str, Any] = {}
        if config.fps is not None and "FrameDurationLimits" in has:
            controls["FrameDurationLimits"] = (round(1e6 / config.fps),) * 2
        if "AfMode" in has:
            controls["AfMode"] = CONTINUOUS_FOCUS
        if config.exposure_ms is not None:
            if "ExposureTime" not in has:
                raise CameraError("does not let its exposure be set", "leave camera.exposure_ms away")
            controls["ExposureTime"] = round(config.exposure_ms * 1000)
        return controls

    def grab(self) -> bool:
        """Wait for the next frame; False if none comes within `timeout_s`."""
        self._give_back()
        try:
            self._request = self._camera.capture_request(wait=self._timeout_s)
        except concurrent.futures.TimeoutError:
            return False
        return True

    def retrieve(self) -> tuple[bool, Any]:
        """True, and the grabbed frame: (h, w) uint8."""
        with self._mapped(self._request, "main") as mapped:
            # A copy, since the buffer goes back to the camera; of the grey plane alone, without the rows' padding.
            return True, mapped.array[: self._height, : self._width].copy()

    def release(self) -> None:
        """Let the camera go."""
        self._give_back()
        self._camera.cancel_all_and_flush()  # a job that waits for a frame of a dead camera would outlive it
        self._camera.close()
        del self._camera
        gc.collect()  # its parts hold each other, and two descriptors

    def _give_back(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.release()
