"""Webcams and network streams: one capture thread, of whose frames the newest wins."""

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import cv2

from edge.address import camera_number, without_secret
from edge.backoff import Backoff
from edge.capture import ADVICE, KEY_FRAMES, Capture, open_capture
from edge.config import CameraConfig
from edge.console import CAPTURE
from edge.errors import CameraError, ServiceUnavailableError
from edge.picamera import load_picamera2
from edge.preprocess import usable
from edge.records import Frame

log = logging.getLogger(__name__)

STOP_S = 0.5  # for a read to return
QUIET_S = 60.0  # in which a further loss is told only if the camera is offline: some end with each picture
V4L_LIMIT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"  # s for a webcam's next frame


def is_live(source: str) -> bool:
    """Whether a source goes on by itself: a webcam's device, a Pi's camera module, or a URL."""
    if "://" in source:
        return not source.startswith("file://")
    # A file on the RAM disk (/dev/shm) is no device.
    device = source.startswith("/dev/") and not Path(source).is_file()
    return device or source.partition(":")[0] == "picamera2"


class LatestFrame:
    """A slot for one frame between a capture thread and the loop: the newest wins, what it replaces is counted.

    wake: called when there is something to take.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._changed = threading.Condition()
        self._wake = wake
        self._frame: Frame | None = None
        self._failure: BaseException | None = None
        self.superseded = 0

    def put(self, frame: Frame) -> None:
        """Leave a frame for `take`."""
        with self._changed:
            self.superseded += self._frame is not None
            self._frame = frame
            self._changed.notify()
        self._wake()

    def fail(self, failure: BaseException) -> None:
        """Let `take` raise `failure` from now on."""
        with self._changed:
            self._failure = failure
            self._changed.notify()
        self._wake()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame not taken yet, or None after `timeout` seconds. Raises what was given to `fail`."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._failure is not None, timeout)
            if self._failure is not None:
                raise self._failure
            frame, self._frame = self._frame, None
            return frame


class Thinning:
    """Which frames of a camera are taken at all: decoding those that are not would be wasted."""

    def __init__(self, max_fps: float | None) -> None:
        self._interval_s = 1 / max_fps if max_fps else 0.0
        self._due_at = -float("inf")
        self._arrived = 0
        self.every = 1
        """Of so many frames one is taken."""
        self.dropped = {"over_max_fps": 0, "too_hot": 0}

    def takes(self, at: float) -> bool:
        """Whether the frame that came at `at` (seconds) is one to take; it is counted if not."""
        # Half an interval early is in time: a camera at exactly this rate jitters.
        if at < self._due_at - self._interval_s / 2:
            self.dropped["over_max_fps"] += 1
            return False
        self._due_at = max(self._due_at, at - self._interval_s / 2) + self._interval_s
        self._arrived += 1
        if self._arrived % self.every:
            self.dropped["too_hot"] += 1
            return False
        return True


class LiveSource:
    """A webcam or a network stream, read by one thread that also opens it anew whenever it is lost.

    Until the first frame `take` raises ServiceUnavailableError if the camera cannot be opened or stays silent: a wrong
    name should be told at once, unless it is `patient`. After that a lost camera raises nothing: `take` returns None,
    `online` turns False. wake: called on the capture thread when there is something to take. colour: whether
    frames must be colourful where the camera is.
    """

    def __init__(
        self,
        config: CameraConfig,
        patient: bool = False,
        wake: Callable[[], None] = lambda: None,
        colour: bool = True,
    ) -> None:
        self._config, self._patient, self._colour = config, patient, colour
        if camera_number(config.source) is not None:
            load_picamera2()  # what is not installed will not come
        self.name = without_secret(config.source)
        self._latest = LatestFrame(wake)
        self._stop = threading.Event()
        self._stopped_at = 0.0
        self._problem: str | None = None  # why there are no frames now; None while there are
        self._advice = ADVICE
        self._told, self._quiet_until = False, 0.0  # of the problem
        self._first_frame_due_at = float("inf")
        self._undecodable = 0
        self._thinning = Thinning(config.max_fps)
        self._seq = 0
        self._last_frame_at = -float("inf")
        self._thread = threading.Thread(target=self._run, name=CAPTURE, daemon=True)

    @property
    def online(self) -> bool:
        """Whether a frame came within the last `stale_after_s`."""
        return time.monotonic() - self._last_frame_at < self._config.stale_after_s

    @property
    def starting(self) -> bool:
        """Whether the first frame may still come soon."""
        return self._seq == 0 and self._problem is None and time.monotonic() <= self._first_frame_due_at

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were captured and not used, by cause."""
        return {
            "superseded": self._latest.superseded,
            "undecodable": self._undecodable,
            **self._thinning.dropped,
        }

    def thin(self, every: int) -> None:
        """Take only one of so many frames."""
        self._thinning.every = every

    def __enter__(self) -> "LiveSource":
        # Opening and the first read may each take `timeout_s`.
        self._first_frame_due_at = time.monotonic() + 2 * self._config.timeout_s + 1
        limit_s = str(max(1, round(self._config.timeout_s)))  # 10 by default
        if os.environ.get(V4L_LIMIT) != limit_s:  # of several cameras the last one counts: it is the process's
            os.environ[V4L_LIMIT] = limit_s
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        # A read that is stuck in a driver cannot be interrupted; the thread is a daemon, and ends with the process.
        self._thread.join(timeout=max(0.0, self._stopped_at + STOP_S - time.monotonic()))

    def stop(self) -> None:
        """Begin to end. Of many sources that hang, those that were told at once take no longer than one."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
            self._stop.set()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame that was not taken yet, or None after `timeout` seconds."""
        frame = self._latest.take(timeout)
        if frame is None and self._seq == 0 and not self._patient:
            problem = self._problem or ("gives no frames" if time.monotonic() > self._first_frame_due_at else None)
            if problem is not None:
                raise ServiceUnavailableError(f"camera.source: {self.name}: {problem}; {self._advice}")
        return frame

    def due_in(self) -> float:
        """Nobody knows when."""
        return float("inf")

    def _run(self) -> None:
        try:
            backoff = Backoff(self._config.retry_min_s, self._config.retry_max_s)
            while not self._stop.is_set():
                try:
                    self._open_and_read(backoff)
                except CameraError as error:
                    self._lost(str(error), error.advice)
                except cv2.error as error:
                    self._lost(f"fails: {error.err}")
                self._stop.wait(backoff.next())
        except BaseException as failure:  # noqa: BLE001 - not lost with this thread: `take` raises it in the loop
            self._latest.fail(failure)

    def _open_and_read(self, backoff: Backoff) -> None:
        capture = open_capture(self._config, self._colour)
        try:
            self._read(capture, backoff)
        finally:
            capture.release()

    def _read(self, capture: Capture, backoff: Backoff) -> None:
        """Until the camera fails or the source is closed."""
        frames, decodable = 0, True
        while not self._stop.is_set():
            asked_at = time.monotonic()
            grabbed = capture.grab()
            captured_at = time.monotonic()
            # A frozen stream hands over some old frames, each after a time-out, before it fails. The first frame of a
            # sound one may take as long.
            if not grabbed or (frames and captured_at - asked_at >= self._config.timeout_s):
                self._lost("gives no frames", KEY_FRAMES if "://" in self.name else ADVICE)
                return
            frames += 1
            if not self._thinning.takes(captured_at):
                if decodable:  # as far as is known
                    self._last_frame_at = captured_at
                continue
            image = usable(capture.retrieve()[1])
            decodable = image is not None
            if image is None:
                self._undecodable += 1
                if self._seq > 0 and not self.online:
                    self._lost("gives no pictures that can be decoded")
                continue
            self._last_frame_at = captured_at
            self._latest.put(Frame(image, self._seq, captured_at, datetime.now(timezone.utc), media_time=captured_at))
            self._seq += 1
            if self._told:
                log.info("camera %s is back", self.name)
            self._problem, self._told = None, False
            backoff.reset()

    def _lost(self, problem: str, advice: str = ADVICE) -> None:
        now, expected = time.monotonic(), self._seq > 0 or self._patient
        if expected and not self._told and (now >= self._quiet_until or not self.online):
            hint = "" if self._seq else f"; {advice}"  # one that was there is not spelt wrong
            log.warning("camera %s %s; trying again%s", self.name, problem, hint)
            self._told, self._quiet_until = True, now + QUIET_S
        self._advice, self._problem = advice, problem
