"""Network cameras: the daemon's process on real streams, with the faults that they have."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import PATIENCE_S, QUICK, ROOT, Broker, Daemon, free_port, is_open, plain, wait_for
from mjpeg_server import MjpegCamera

CAMERA_STATUS = "emotiond/pi/camera/status"


def threads_and_descriptors(daemon: Daemon) -> tuple[int, int]:
    proc = Path(f"/proc/{daemon.process.pid}")
    return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))


def test_an_mjpeg_stream_gives_events(camera: MjpegCamera, broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    start("run", "--source", camera.url, *plain(broker.port, **QUICK))
    wait_for(lambda: "update" in [e["type"] for e in subscriber.events()], "a face with an emotion")
    assert subscriber.texts(CAMERA_STATUS)[-1] == "online"


@pytest.mark.parametrize("fault", ["stall", "drop", "refuse", "corrupt"])
def test_a_stream_that_fails_is_offline_and_comes_back(
    camera: MjpegCamera, broker: Broker, subscribe, start: Callable[..., Daemon], fault: str
) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", camera.url, *plain(broker.port, **QUICK))
    wait_for(lambda: subscriber.events(), "a face")
    before = threads_and_descriptors(daemon)
    camera.mode = fault
    if fault != "corrupt":  # a shortened picture can still be decoded in part
        wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "the camera is reported offline")
        wait_for(lambda: subscriber.events()[-1]["type"] == "end", "the face is gone")
    else:
        time.sleep(1.5)
    camera.mode = "run"
    seen = len(subscriber.events())
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "online", "the camera is reported online again")
    if fault != "corrupt":
        wait_for(lambda: len(subscriber.events()) > seen, "a face again")
    wait_for(lambda: max(map(int.__sub__, threads_and_descriptors(daemon), before)) <= 2, "nothing is left behind")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)


def test_a_stalled_stream_does_not_delay_a_clean_end(camera: MjpegCamera, broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", camera.url, *plain(broker.port, **{**QUICK, "camera.timeout_s": 20.0}))
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1:] == ["online"], "online")
    camera.mode = "stall"
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "offline")
    assert daemon.stop()[0] == 0
    wait_for(lambda: subscriber.texts("emotiond/pi/status")[-1] == "stopped", "stopped")


def test_a_stream_that_is_not_there_is_named(start) -> None:
    url = f"http://127.0.0.1:{free_port()}/cam"
    code, _, err = start("run", "--source", url, "--set", "mqtt.broker=null", "--set", "camera.timeout_s=1").finish()
    assert (code, err.count("\n")) == (69, 1)
    assert f"camera.source: {url}: cannot be opened" in err
    assert "are its address, user and password right?" in err


@pytest.fixture
def hls(standing: list[np.ndarray], tmp_path: Path) -> Iterator[str]:
    """The address of a live stream of five pieces of 4 s, of which a player takes the last three; no more come."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    for index, image in enumerate((standing * 3)[:300]):
        cv2.imwrite(str(tmp_path / f"f{index:03d}.jpg"), image)
    pieces = ["-f", "hls", "-hls_time", "4", "-hls_flags", "omit_endlist", tmp_path / "live.m3u8"]
    encoded = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-v", "error", "-framerate", "15", "-i", tmp_path / "f%03d.jpg", *encoded, *pieces]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    port = free_port()
    serve = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", tmp_path]
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: is_open(port), "the web server listens")
    yield f"http://127.0.0.1:{port}/live.m3u8"
    server.kill()
    server.communicate()


def test_a_stream_in_pieces_is_read_at_its_own_rate(hls: str, broker: Broker, subscribe, start) -> None:
    """Else a piece is gone through in a moment, and nothing comes until the next."""
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", hls, *plain(broker.port))
    wait_for(lambda: len(subscriber.texts("emotiond/pi/camera/faces")) > 20, "faces for some seconds")
    code, _, err = daemon.stop()
    assert (code, "gives no frames" in err) == (0, False), err


@pytest.fixture
def rtmp(standing: list[np.ndarray], tmp_path: Path) -> Iterator[str]:
    """The address of a live stream without sound."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    for index, image in enumerate(standing):
        cv2.imwrite(str(tmp_path / f"f{index:03d}.jpg"), image)
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    pictures = ["-re", "-loop", "1", "-framerate", "15", "-i", tmp_path / "f%03d.jpg"]
    encoded = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-v", "error", *pictures, *encoded, "-f", "flv", "-listen", "1", url]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield url
    server.kill()
    server.communicate()


def test_an_rtmp_stream_without_sound_is_not_waited_for_until_it_is_lost(rtmp: str, broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", rtmp, *plain(broker.port), env={"NOTIFY_SOCKET": "/nowhere"})  # waits for it
    wait_for(lambda: len(subscriber.texts("emotiond/pi/camera/faces")) > 20, "faces for some seconds")
    code, _, err = daemon.stop()
    assert (code, "gives no frames" in err) == (0, False), err


@pytest.fixture
def rtsp(standing: list[np.ndarray], tmp_path: Path, request) -> Iterator[tuple[str, subprocess.Popen]]:
    """The stream's address and its server. A parameter: of so many frames one is a key frame."""
    python = Path("/usr/bin/python3")
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if not python.exists() or subprocess.run([python, "-c", probe], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server is not installed (tests/system_packages.sh installs it)")
    for index, image in enumerate(standing):
        cv2.imwrite(str(tmp_path / f"f{index:03d}.jpg"), image)
    port = free_port()
    command = [python, ROOT / "tests/rtsp_server.py", tmp_path / "f%03d.jpg", str(len(standing)), str(port)]
    command.append(str(getattr(request, "param", 15)))
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(lambda: is_open(port), "the RTSP server listens")
    yield f"rtsp://127.0.0.1:{port}/cam", server
    server.send_signal(signal.SIGCONT)
    server.kill()
    server.communicate()


def test_a_stream_that_its_server_does_not_have_is_no_question_of_a_plug(rtsp, start) -> None:
    url = rtsp[0].replace("rtsp://", "rtsp://user:wrong@") + "/other"
    code, _, err = start("run", "--source", url, "--set", "mqtt.broker=null", "--set", "camera.timeout_s=2").finish()
    assert code == 69
    assert "/other: cannot be opened; is it on, and are its address, user and password right?" in err
    assert "wrong" not in err


@pytest.mark.parametrize("rtsp", [100_000], indirect=True)
def test_a_stream_that_is_joined_long_before_its_next_key_frame_names_the_setting(rtsp, start) -> None:
    first = cv2.VideoCapture(rtsp[0], cv2.CAP_FFMPEG)
    wait_for(first.grab, "the stream has begun")
    code, _, err = start("run", "--source", rtsp[0], "--set", "mqtt.broker=null").finish()
    first.release()
    assert (code, "camera.timeout_s" in err, "plugged in" in err) == (69, True, False), err


def test_an_rtsp_stream_gives_events_and_is_offline_when_it_freezes(rtsp, broker: Broker, subscribe, start) -> None:
    url, server = rtsp
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", url, *plain(broker.port, **{**QUICK, "camera.timeout_s": 2.0}))
    wait_for(lambda: "update" in [e["type"] for e in subscriber.events()], "a face with an emotion")
    server.send_signal(signal.SIGSTOP)
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "offline")
    server.send_signal(signal.SIGCONT)
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "online", "online again", 2 * PATIENCE_S)
    server.kill()
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "offline again")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)
