"""What emotiond uses of picamera2, for machines without libcamera: the same names, arguments, errors and memory.

The pictures are the built-in clip's. Rows are padded, as the Pi's image processor does; a buffer that was given back is
written again; nobody may hold more of them than there are; a camera has one user. While the file that
$PICAMERA_UNPLUGGED names is there, no frame comes.
"""

import concurrent.futures
import os
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from edge import clip
from edge.preprocess import as_grey

PADDING = 64  # bytes
SENSORS = ("imx708", "ov5647")
PICTURES = [as_grey(image) for _, image in clip.frames()]


class Picamera2:
    """One camera, with the sensor's modes of a module 3."""

    sensor_resolution = (4608, 2592)
    taken: ClassVar[set[int]] = set()

    @staticmethod
    def global_camera_info() -> list[dict[str, object]]:
        return [{"Model": model, "Id": f"/base/{model}", "Num": number} for number, model in enumerate(SENSORS)]

    def __init__(self, camera_num: int = 0) -> None:
        if camera_num in self.taken:
            raise RuntimeError("Camera __init__ sequence did not complete.")
        self.taken.add(camera_num)
        self.camera_idx, self.settings, self.started, self._seq = camera_num, None, False, 0
        self.camera_controls = {"FrameDurationLimits": (0, 0, 0), "ExposureTime": (0, 0, 0)}
        if SENSORS[camera_num] == "imx708":
            self.camera_controls["AfMode"] = (0, 2, 0)
        self._jobs = 0

    def create_video_configuration(
        self, main: dict, raw: None, sensor: dict, controls: dict, buffer_count: int, queue: bool, display: None,
        encode: None,
    ) -> dict:  # fmt: skip
        assert set(main) <= {"size", "format", "stride", "preserve_ar"}
        assert set(sensor) <= {"output_size", "bit_depth"}
        # As there: what the caller says stands over the defaults, and a size is made even.
        controls = {"FrameDurationLimits": (33333, 33333), **controls}
        width, height = main["size"]
        main = {"format": "XBGR8888", **main, "size": (width - width % 2, height - height % 2)}
        return {"main": main, "raw": raw, "sensor": sensor, "controls": controls, "buffer_count": buffer_count}

    def configure(self, settings: dict) -> None:
        assert not self.started
        for name in settings["controls"]:
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        width, height = settings["main"]["size"]
        if width > self.sensor_resolution[0] or settings["main"]["format"] != "YUV420":
            raise RuntimeError(f"Invalid camera configuration: {settings}")
        stride = -(-width // PADDING) * PADDING
        self.settings = {**settings, "main": {**settings["main"], "stride": stride}}
        shape = (height * 3 // 2, stride)
        self._free = [np.full(shape, 128, np.uint8) for _ in range(settings["buffer_count"])]

    def stream_configuration(self, name: str = "main") -> dict:
        return self.settings[name]

    def start(self) -> None:
        self.started = True

    def capture_request(self, wait: float) -> "CompletedRequest":
        assert self.started
        until = time.monotonic() + wait
        while time.monotonic() < until:
            time.sleep(self.settings["controls"]["FrameDurationLimits"][0] / 1e6)
            if self._free and not Path(os.environ.get("PICAMERA_UNPLUGGED", "/nowhere")).exists():
                return CompletedRequest(self)
        self._jobs += 1
        raise concurrent.futures.TimeoutError

    def expose(self) -> np.ndarray:
        """The next picture, in a buffer; at every second frame of the clip's, which is made for half of the rate."""
        buffer = self._free.pop()
        width, height = self.settings["main"]["size"]
        picture = cv2.resize(PICTURES[self._seq // 2 % len(PICTURES)], (width, height))
        buffer[:height, :width], buffer[:height, width:] = picture, 0
        self._seq += 1
        return buffer

    def cancel_all_and_flush(self) -> None:
        self._jobs = 0

    def close(self) -> None:
        assert self._jobs == 0, "a job waits for ever"
        self.taken.discard(self.camera_idx)
        self.started = False


class CompletedRequest:
    """A frame, in a buffer of the camera's until it is released."""

    def __init__(self, camera: Picamera2) -> None:
        self.camera, self.buffer = camera, camera.expose()

    def release(self) -> None:
        buffer, self.buffer = self.buffer, None
        buffer[:] = 0
        self.camera._free.append(buffer)


class MappedArray:
    """The buffer itself, of h * 3 / 2 rows: Y, then U and V."""

    def __init__(self, request: CompletedRequest, stream: str) -> None:
        assert stream == "main"
        self._request = request

    def __enter__(self) -> "MappedArray":
        self.array = self._request.buffer
        return self

    def __exit__(self, *exc: object) -> None:
        del self.array
