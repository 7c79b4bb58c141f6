"""Files give every frame, in order; live sources give the newest, and come back."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import PATIENCE_S, ROOT, as_ordinary_user, free_port, wait_for
from edge import clip
from edge.app import build_source
from edge.camera import STOP_S, LatestFrame, is_live
from edge.capture import open_capture
from edge.config import CameraConfig
from edge.errors import BadDataError, CameraError, EndOfStream, InputNotFoundError, ServiceUnavailableError
from edge.preprocess import as_grey, usable
from edge.records import Frame
from fakes import frame


def frames_of(config: CameraConfig, limit: int = 1000) -> list[Frame]:
    taken: list[Frame] = []
    with build_source(config) as source:
        try:
            while len(taken) < limit:
                if (frame := source.take(1.0)) is not None:
                    taken.append(frame)
        except EndOfStream:
            pass
    return taken


def test_the_built_in_clip_is_an_endless_real_time_camera() -> None:
    began_at = time.monotonic()
    taken = frames_of(CameraConfig(), limit=8)
    assert time.monotonic() - began_at > 7 / 15 * 0.9
    assert [f.seq for f in taken] == list(range(8))
    assert taken[0].size == (640, 480)
    looped = frames_of(CameraConfig(realtime=False), limit=250)
    assert len(looped) == 250
    times = [f.media_time for f in looped]
    assert times == sorted(set(times))
    np.testing.assert_array_equal(looped[0].image, looped[240].image)


def test_a_video_gives_every_frame_at_its_own_time(video: Path, clip_frames: list[np.ndarray]) -> None:
    taken = frames_of(CameraConfig(source=str(video)))
    assert len(taken) == len(clip_frames)
    assert [f.media_time for f in taken] == pytest.approx([n / 15 for n in range(len(taken))], abs=2e-3)
    assert (taken[15].wall_time - taken[0].wall_time).total_seconds() == pytest.approx(1.0, abs=0.01)
    assert np.abs(taken[60].image.astype(int) - clip_frames[60]).mean() < 3


def test_a_video_can_be_looped_and_played_in_real_time(video: Path) -> None:
    taken = frames_of(CameraConfig(source=str(video), loop=True), limit=300)
    assert len(taken) == 300
    began_at = time.monotonic()
    frames_of(CameraConfig(source=str(video), realtime=True), limit=5)
    assert time.monotonic() - began_at > 4 / 15 * 0.9


def test_take_returns_nothing_while_the_next_frame_is_not_due(video: Path) -> None:
    with build_source(CameraConfig(source=str(video), realtime=True)) as source:
        assert source.take(1.0) is not None
        assert source.take(0.001) is None
        assert source.take(1.0).seq == 1


@pytest.mark.parametrize("later_s", [0, 3600])
def test_a_recording_whose_clock_jumps_goes_on_in_its_own_pace(video: Path, tmp_path: Path, later_s: int) -> None:
    """As segments of a video recorder that were joined: the second begins at 0 again, or much later."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, offset_s in zip(parts, (0, later_s), strict=True):
        options = ("-t", "1", "-c:v", "mpeg2video", "-output_ts_offset", str(offset_s))
        subprocess.run(["ffmpeg", "-v", "error", "-i", video, *options, part], check=True, stdin=subprocess.DEVNULL)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    times = [frame.media_time for frame in frames_of(CameraConfig(source=str(joined)))]
    assert len(times) == pytest.approx(2 * clip.FPS, abs=4)
    steps = np.diff(times)
    assert steps == pytest.approx(1 / clip.FPS, abs=0.6 / clip.FPS)


@pytest.mark.parametrize("kind", ["mkv", "mp4", "webm"])
def test_a_recording_in_which_nothing_came_for_a_while_has_its_own_times(
    video: Path, tmp_path: Path, kind: str
) -> None:
    """As of a stream that was lost for a while: such files have one clock, which every player shows."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    paused = tmp_path / f"paused.{kind}"
    coder = ("libvpx", "-deadline", "realtime", "-cpu-used", "8") if kind == "webm" else ("mpeg4",)
    pause = ("-vf", "setpts='(N/15+if(gte(N,30),90,0))/TB'", "-frames:v", "45", "-vsync", "vfr", "-c:v", *coder)
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, *pause, paused], check=True, stdin=subprocess.DEVNULL)
    times = [frame.media_time for frame in frames_of(CameraConfig(source=str(paused)))]
    assert times == pytest.approx([number / 15 + (90 if number >= 30 else 0) for number in range(45)], abs=0.04)


def test_a_raw_stream_in_a_file_has_the_pace_of_its_rate(video: Path, tmp_path: Path) -> None:
    """As `rpicam-vid -o x.h264` writes it: such frames have no time of their own."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    raw = tmp_path / "raw.h264"
    options = ("-c:v", "libx264", "-preset", "ultrafast", raw)
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, *options], check=True, stdin=subprocess.DEVNULL)
    times = [frame.media_time for frame in frames_of(CameraConfig(source=str(raw)))]
    assert times == pytest.approx([number / clip.FPS for number in range(round(clip.CYCLE_S * clip.FPS))], abs=0.01)


def test_what_one_stream_needs_is_not_asked_of_the_others(video: Path, tmp_path: Path) -> None:
    """A raw stream is opened after a short look; one that is joined in the middle shows its size some seconds later."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    whole, rest = tmp_path / "whole.ts", tmp_path / "rest.ts"
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-g", str(5 * clip.FPS), "-sc_threshold", "0", whole)
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, *options], check=True, stdin=subprocess.DEVNULL)
    options = ("-ss", "1", "-c", "copy", "-copyinkf", rest)
    subprocess.run(["ffmpeg", "-v", "error", "-i", whole, *options], check=True, stdin=subprocess.DEVNULL)
    with pytest.raises(CameraError, match="cannot be opened"):
        open_capture(CameraConfig(source=f"tcp://127.0.0.1:{free_port()}"), colour=True)
    assert len(frames_of(CameraConfig(source=str(rest)))) > 100


def test_names_may_hold_colons_and_lie_on_the_ram_disk(video: Path, tmp_path: Path, monkeypatch) -> None:
    """To FFmpeg what stands before a colon is a protocol."""
    shutil.copy(video, tmp_path / "2026-11-28T12:30:00.avi")
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(CameraConfig(source="2026-11-28T12:30:00.avi"))) > 100
    assert is_live("/dev/video0") and is_live("/dev/v4l/by-id/usb-a-webcam")
    shared = Path("/dev/shm/emotiond-test.avi")
    if not os.access(shared.parent, os.W_OK):
        pytest.skip("no RAM disk here")
    shutil.copy(video, shared)
    try:
        assert not is_live(str(shared))
    finally:
        shared.unlink()


def test_a_truncated_video_gives_what_can_be_read(video: Path, tmp_path: Path) -> None:
    whole = video.read_bytes()
    short = tmp_path / "short.avi"
    short.write_bytes(whole[: len(whole) // 2])
    assert 50 < len(frames_of(CameraConfig(source=str(short)))) < 200


@pytest.mark.parametrize("content", [b"", b"no video at all, whatever its name says\n" * 100])
def test_what_is_no_video_is_bad_data(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mkv"
    path.write_bytes(content)
    with pytest.raises(BadDataError, match="x.mkv: not a video"):
        build_source(CameraConfig(source=str(path)))


@pytest.mark.parametrize("name", ["x" * 300, "**.jpg", "nowhere.mkv", "nowhere/*.jpg", "*.png", "f%03d.jpg", "."])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputNotFoundError, match="camera.source: "):
        build_source(CameraConfig(source=str(tmp_path / name)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """f1 to f12, of every kind; f3 is broken, f4 is empty."""
    colour = np.full((60, 80, 3), (10, 20, 30), np.uint8)
    kinds = {
        "f1.png": colour,
        "f2.png": colour[:, :, 0],
        "f10.png": colour.astype(np.uint16) * 256,
        "f11.png": np.dstack([colour, colour[:, :, :1]]),
        "f12.jpg": colour,
    }
    for name, image in kinds.items():
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "f3.png").write_bytes((tmp_path / "f1.png").read_bytes()[:40])
    (tmp_path / "f4.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_pictures_of_a_folder_come_in_natural_order_whatever_their_kind(pictures: Path) -> None:
    with build_source(CameraConfig(source=str(pictures), fps=2)) as source:
        taken = [source.take(1) for _ in range(5)]
        assert source.drops["undecodable"] == 2
        with pytest.raises(EndOfStream):
            source.take(1)
    assert {f.image.shape for f in taken} == {(60, 80, 3)}
    assert [f.image.reshape(-1)[0] for f in taken] == [10] * 5
    assert [f.media_time for f in taken] == [0.0, 0.5, 2.0, 2.5, 3.0]
    assert {as_grey(f.image).shape for f in taken} == {(60, 80)}


@pytest.mark.parametrize(("pattern", "count"), [("*.png", 4), ("f%d.jpg", 1), ("f1.png", 1), ("f1?.*", 3)])
def test_pictures_can_be_named_by_a_pattern(pictures: Path, pattern: str, count: int) -> None:
    assert len(frames_of(CameraConfig(source=str(pictures / pattern)))) == count


def test_pictures_that_cannot_be_decoded_are_told(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames_of(CameraConfig(source=str(pictures)))
    assert "2 pictures could not be decoded" in caplog.text
    with pytest.raises(BadDataError, match="f3.png: no picture in it can be decoded"):
        frames_of(CameraConfig(source=str(pictures / "f3.png")))


def test_after_a_pause_a_real_time_file_goes_on_where_it_was(video: Path) -> None:
    with build_source(CameraConfig(source=f"file://{video}", realtime=True)) as source:
        before = source.take(1)
        time.sleep(1.5)
        after = [source.take(1) for _ in range(4)]
    assert [f.seq for f in after] == [1, 2, 3, 4]
    assert after[3].captured_at - after[0].captured_at > 3 / 15 * 0.8
    assert (after[0].wall_time - before.wall_time).total_seconds() > 1.4


@pytest.mark.parametrize(
    "image",
    [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros(4, np.uint8),
    ],
)
def test_frames_with_nothing_to_look_at_are_not_usable(image: np.ndarray | None) -> None:
    assert usable(image) is None


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    latest = LatestFrame()
    assert latest.take(0.01) is None
    for seq in range(5):
        latest.put(frame(seq=seq))
    assert latest.take(0.01).seq == 4
    assert latest.superseded == 4
    assert latest.take(0.01) is None


def test_a_waiting_loop_is_woken_by_a_frame_and_by_a_failure() -> None:
    woken = threading.Event()  # what the daemon's loop waits for, which has other cameras too
    latest = LatestFrame(woken.set)
    threading.Timer(0.05, latest.put, [frame(seq=7)]).start()
    assert latest.take(10).seq == 7
    assert woken.wait(PATIENCE_S)
    woken.clear()
    threading.Timer(0.05, latest.fail, [MemoryError("capture thread")]).start()
    with pytest.raises(MemoryError, match="capture thread"):
        latest.take(10)
    assert woken.wait(PATIENCE_S)


@pytest.mark.parametrize("source", [97, "/dev/video97", "rtsp://user:s3cret@127.0.0.1:9/x", "http://127.0.0.1:9/cam"])
def test_a_camera_that_is_not_there_is_named_without_its_password(source: int | str) -> None:
    threads = threading.active_count()
    with pytest.raises(ServiceUnavailableError) as caught:
        frames_of(CameraConfig(source=source, timeout_s=1), limit=1)
    assert "camera.source: " in str(caught.value)
    assert "s3cret" not in str(caught.value)
    wait_for(lambda: threading.active_count() == threads, "the capture thread ends")


def test_many_cameras_that_hang_end_as_soon_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_s: list[float] = []
    join = threading.Thread.join

    def watched(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "capture":
            assert timeout is not None
            waited_s.append(timeout)
        join(thread, timeout)

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never answers
        config = CameraConfig(source=f"http://127.0.0.1:{silent.getsockname()[1]}/x.mjpg", timeout_s=1)
        sources = [build_source(config) for _ in range(8)]  # OpenCV opens one stream after another
        for source in sources:
            source.__enter__()
        silent.accept()[0].close()
        monkeypatch.setattr(threading.Thread, "join", watched)
        for source in sources:
            source.stop()
        for source in sources:
            source.__exit__(None, None, None)
    assert len(waited_s) == 8
    assert sum(waited_s) < 2 * STOP_S, "not one after another"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_piece_of_a_recording_does_not_end_early(
    tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = ["-f", "segment", "-segment_time", "2", "-segment_format", "matroska", str(tmp_path / "piece%d.mkv")]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(video), "-c:v", "mpeg4", "-g", "5", *cut], check=True)
    pieces = sorted(tmp_path.glob("piece*.mkv"))
    assert len(pieces) > 2
    for piece in pieces:
        assert frames_of(CameraConfig(source=str(piece)))
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["video.avi", "picture.png"])
def test_what_may_not_be_read_is_told_as_such(tmp_path: Path, video: Path, name: str) -> None:
    shutil.copy(video, tmp_path / name)
    (tmp_path / name).chmod(0)
    command = [*as_ordinary_user(), sys.executable, "-m", "edge", "run", "--source", str(tmp_path / name)]
    done = subprocess.run(
        [*command, "--set", "mqtt.broker=null"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 65
    assert "cannot be read: Permission denied" in done.stderr
