"""Cameras of a Raspberry Pi: a module through picamera2, and `rpicam-vid` over TCP.

picamera2 needs the memory of a Pi's kernel, and libraries that no wheel brings: a stand-in with the same interface
takes its place: tests/made/picamera2.py. `rpicam-vid` writes what FFmpeg writes here: raw H.264 to who connects.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from conftest import PATIENCE_S, QUICK, ROOT, Broker, Daemon, free_port, plain, wait_for
from edge.app import build_source
from edge.capture import open_capture
from edge.config import CameraConfig
from edge.errors import CameraError, ConfigError
from edge.picamera import PiCapture, modules_found

MADE = str(ROOT / "tests/made")
STATUS = "emotiond/pi/camera/status"


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(MADE)
    yield importlib.import_module("picamera2")
    del sys.modules["picamera2"]


def test_the_grey_plane_is_taken_and_kept(picamera2: ModuleType) -> None:
    capture = PiCapture(CameraConfig(source="picamera2", width=500, height=375))
    pictures = []
    for _ in range(12):  # more than there are buffers
        assert capture.grab()
        pictures.append(capture.retrieve()[1])
    capture.release()
    assert {(p.shape, p.dtype.name) for p in pictures} == {((374, 500), "uint8")}
    assert all(p.flags.owndata and p.flags.c_contiguous for p in pictures)
    assert min(p.mean() for p in pictures) > 10  # what was given back is black
    assert picamera2.Picamera2.taken == set()


def test_the_sensor_shows_all_of_its_view_and_is_set_as_asked(picamera2: ModuleType) -> None:
    capture = PiCapture(CameraConfig(source="picamera2:0", fps=15, exposure_ms=8))
    settings = capture._camera.settings
    capture.release()
    assert settings["sensor"] == {"output_size": (2304, 1296)}
    assert settings["controls"] == {"FrameDurationLimits": (66667, 66667), "ExposureTime": 8000, "AfMode": 2}
    assert settings["main"]["size"] == (640, 480)
    without = PiCapture(CameraConfig(source="picamera2:1"))
    assert without._camera.settings["controls"] == {"FrameDurationLimits": (33333, 33333)}
    without.release()


def test_a_module_that_cannot_be_had_says_why(picamera2: ModuleType) -> None:
    with pytest.raises(CameraError, match="is not there"):
        open_capture(CameraConfig(source="picamera2:2"), colour=True)
    with pytest.raises(CameraError, match="refuses these settings"):
        open_capture(CameraConfig(source="picamera2", width=6000), colour=True)
    first = open_capture(CameraConfig(source="picamera2"), colour=True)
    with pytest.raises(CameraError, match="cannot be opened") as caught:
        open_capture(CameraConfig(source="picamera2"), colour=True)
    assert "another program" in caught.value.advice
    first.release()
    assert picamera2.Picamera2.taken == set()


def test_modules_are_found(picamera2: ModuleType) -> None:
    assert modules_found() == ["picamera2:0 (imx708)", "picamera2:1 (ov5647)"]


@pytest.mark.parametrize("error", ["ImportError('no libcamera')", "ValueError('numpy.dtype size changed')"])
def test_a_picamera2_that_cannot_be_loaded_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "picamera2.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="camera.source: picamera2 cannot be loaded here") as caught:
        build_source(CameraConfig(source="picamera2"))
    assert "apt install python3-picamera2" in str(caught.value)
    assert f"--system-site-packages {sys.prefix}" in str(caught.value)
    assert modules_found() == []


def test_the_daemon_reads_a_module_and_takes_it_up_again(
    broker: Broker, subscribe, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    unplugged = tmp_path / "unplugged"
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{MADE}", "PICAMERA_UNPLUGGED": str(unplugged)}
    checked, out, _ = start("check", "--source", "picamera2:1", *plain(broker.port), env=env).finish()
    assert checked == 0
    assert "picamera2:0 (imx708), picamera2:1 (ov5647)" in out
    assert "picamera2:1, 640x480 px" in out
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", "picamera2", *plain(broker.port, **QUICK), env=env)
    wait_for(lambda: "update" in [e["type"] for e in subscriber.events()], "a face with an emotion")
    unplugged.touch()
    wait_for(lambda: subscriber.texts(STATUS)[-1] == "offline", "offline")
    unplugged.unlink()
    seen = len(subscriber.events())
    wait_for(lambda: subscriber.texts(STATUS)[-1] == "online", "online again")
    wait_for(lambda: len(subscriber.events()) > seen, "a face again")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)


def test_a_module_that_is_not_there_ends_the_start(start) -> None:
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{MADE}"}
    code, _, err = start("run", "--source", "picamera2:7", "--set", "mqtt.broker=null", env=env).finish()
    assert (code, err.count("\n")) == (69, 1)
    assert "camera.source: picamera2:7: is not there; `rpicam-hello --list-cameras`" in err


def test_webcams_that_are_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.capture.webcams_found", lambda: ["/dev/v4l/by-id/usb-A-video-index0"])
    with pytest.raises(CameraError, match="cannot be opened") as caught:
        open_capture(CameraConfig(source="/dev/v4l/by-id/usb-B-video-index0"), colour=True)
    assert caught.value.advice == "there is /dev/v4l/by-id/usb-A-video-index0"


class RpicamVid:
    """Serves the clip to whoever connects, as `rpicam-vid --listen` in a loop: it ends with its reader, and is begun
    anew."""

    def __init__(self, video: Path, *codec: str) -> None:
        self.port, self._ended = free_port(), threading.Event()
        self._command = ["ffmpeg", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", video, "-an", *codec]
        self._command.append(f"tcp://127.0.0.1:{self.port}?listen")
        self.child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            self.child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
            self.child.wait()
            self._ended.wait(0.2)

    def close(self) -> None:
        self._ended.set()
        while self._thread.is_alive():
            self.child.kill()
            self._thread.join(0.1)


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15", "-bsf:v", "dump_extra")


@pytest.fixture(params=["h264", "mpegts"])
def rpicam_vid(request: pytest.FixtureRequest, video: Path) -> Iterator[RpicamVid]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    server = RpicamVid(video, *H264, "-f", request.param)
    yield server
    server.close()


def test_a_stream_of_rpicam_vid_is_read_and_taken_up_again(
    rpicam_vid: RpicamVid, broker: Broker, subscribe, start: Callable[..., Daemon]
) -> None:
    subscriber = subscribe(broker.port)
    settings = {**QUICK, "camera.timeout_s": 5.0}
    wait_for(lambda: rpicam_vid.child is not None, "the server is started")
    source = f"tcp://127.0.0.1:{rpicam_vid.port}"
    wait_for(lambda: _is_listening(rpicam_vid.port), "the server listens")
    daemon = start("run", "--source", source, *plain(broker.port, **settings))
    wait_for(lambda: "update" in [e["type"] for e in subscriber.events()], "a face with an emotion")
    rpicam_vid.child.send_signal(signal.SIGSTOP)
    wait_for(lambda: subscriber.texts(STATUS)[-1] == "offline", "offline, since the stream stands still")
    rpicam_vid.child.kill()
    seen = len(subscriber.events())
    wait_for(lambda: subscriber.texts(STATUS)[-1] == "online", "online again", 2 * PATIENCE_S)
    wait_for(lambda: len(subscriber.events()) > seen, "a face again")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)


def _is_listening(port: int) -> bool:
    """Without connecting: there is one connection to be had."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


def test_the_options_for_tcp_are_set_for_tcp_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
    for url, known in [("http://127.0.0.1:9/x", None), ("tcp://127.0.0.1:9", "rtsp_flags;prefer_tcp")]:
        with pytest.raises(CameraError):
            open_capture(CameraConfig(source=url, timeout_s=1), colour=True)
        assert os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS") == known


def test_a_source_spelt_almost_like_a_module_is_refused() -> None:
    for source in ("picamera2:", "picamera2:x", "picamera2:-1"):
        with pytest.raises(ValueError, match="picamera2:0, picamera2:1"):
            CameraConfig(source=source)
