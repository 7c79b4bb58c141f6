"""`emotiond video` as people call it: the annotated copy, the tables, the timeline, and what it says to bad files."""

import contextlib
import csv
import fcntl
import itertools
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT, as_ordinary_user, wait_for
from edge.draw import COLOURS
from edge.output import Progress
from edge.video import EVENTS_HEADER, FACES_HEADER
from edge.videofile import VideoFile, asked_for_h264

PROGRESS = re.compile(r"/s(, \d+:\d\d left)?$")


def video_command(
    *arguments: object,
    cwd: Path = ROOT,
    file_mb: float | None = None,
    path: str | None = None,
    before: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """`emotiond video`, perhaps with no room for larger files, with other programs to be found, or started by one."""
    size = None if file_mb is None else round(file_mb * 2**20)
    done = subprocess.run(
        [*before, sys.executable, "-m", "edge", "video", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"PATH": path} if path is not None else {})},
        cwd=cwd,
        preexec_fn=None if size is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    # On a busy machine it also says how far it has come.
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if not PROGRESS.search(line))
    return done


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        read, image = capture.read()
        if not read:
            return frames
        frames.append(image)


def times_of(path: Path) -> list[float]:
    """Seconds."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    times = []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return times


def test_a_video_gives_a_copy_two_tables_and_a_timeline(tmp_path: Path, video: Path, clip_frames: list) -> None:
    copy, table, timeline = tmp_path / "copy.mp4", tmp_path / "faces.csv", tmp_path / "timeline.png"
    outputs = ["--output-video", copy, "--output-csv", table, "--output-timeline", timeline]
    done = video_command(video, *outputs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{video}: frames: {len(clip_frames)}, faces: 1, events: 3, written as ")

    copied = frames_of(copy)
    assert len(copied) == len(clip_frames)
    middle = len(copied) // 2
    yellow = np.abs(copied[middle].astype(int) - COLOURS["happy"]).max(axis=2) < 40
    assert yellow.sum() > 1000
    assert np.abs(copied[0].astype(int) - clip_frames[0]).mean() < 5  # nobody there yet

    header, *faces = rows(table)
    assert tuple(header) == FACES_HEADER
    assert len(faces) > 100
    assert {face[2] for face in faces} == {"1"}
    assert all(float(before[1]) < float(after[1]) for before, after in itertools.pairwise(faces))
    header, *events = rows(tmp_path / "faces-events.csv")
    assert tuple(header) == EVENTS_HEADER
    assert [event[1:5] for event in events] == [
        ["new", "1", "uncertain", ""],
        ["update", "1", "happy", "uncertain"],
        ["end", "1", "happy", "happy"],
    ]
    drawn = cv2.imread(str(timeline))
    assert drawn.shape[1] == 1280
    assert (drawn == COLOURS["happy"]).all(axis=2).sum() > 30_000

    again = tmp_path / "again.csv"
    assert video_command(video, "--output-csv", again).returncode == 0
    assert again.read_text() == table.read_text()


def test_a_copy_has_every_frame_whatever_a_daemon_would_pass_over(tmp_path: Path, clip_frames: list) -> None:
    (tmp_path / "in").mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), clip_frames[number])
    copy = tmp_path / "copy.mp4"
    done = video_command(tmp_path / "in", "--output-video", copy, "--set", "camera.max_fps=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "frames: 12, " in done.stdout
    assert len(frames_of(copy)) == 12


@pytest.mark.parametrize(
    ("name", "coder", "times"),
    [
        ("dark.webm", "libvpx", "if(lt(N,30),N/60,0.5+(N-30)/5)"),
        ("dark.mp4", "libx264", "if(lt(N,30),N/60,0.5+(N-30)/5)"),
        ("paused.mp4", "libx264", "N/15+if(gte(N,20),30,0)"),
    ],
)
def test_a_copy_keeps_the_pace_of_frames_that_come_irregularly(
    tmp_path: Path, name: str, coder: str, times: str
) -> None:
    """As telephones in the dark and recorders of screens write them, and what was cut off for a while."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    for number in range(40):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 5 * number + 20, np.uint8))
    irregular, copy = tmp_path / name, tmp_path / "copy.mp4"
    options = ["-vf", f"setpts='({times})/TB'", "-vsync", "vfr", "-enc_time_base", "1/1000", "-c:v", coder]
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "%d.png", *options, "-deadline", "realtime", "-y", irregular]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert video_command(irregular, "--output-video", copy).returncode == 0
    read = list(zip(times_of(irregular), (frame.mean() for frame in frames_of(irregular)), strict=True))
    written = list(zip(times_of(copy), (frame.mean() for frame in frames_of(copy)), strict=True))
    for at_s, level in written:
        last = max(index for index, (t, _) in enumerate(read) if t <= at_s + 0.001)
        near = [seen for t, seen in read if abs(t - at_s) < 0.15] + [read[last][1]]
        assert min(near) - 4 < level < max(near) + 4
    assert written[-1][0] == pytest.approx(read[-1][0], abs=0.15)
    assert all(min(abs(level - seen) for _, level in written) < 2 for _, seen in read)  # none was left out


def with_tone(video: Path, path: Path, coder: str, late: str = "v", late_s: float = 0.0, *options: str) -> Path:
    """A copy of a video with a tone from its sixth second on, its pictures (v) or its sound (a) later by so much."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    tone = ["-f", "lavfi", "-t", "16", "-i", "aevalsrc=gt(t\\,5)*sin(2764*t)/2"]
    shifts = [["-itsoffset", str(late_s if late == kind else 0)] for kind in "va"]
    coders = ["-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", coder, *options]
    command = ["ffmpeg", "-v", "error", *shifts[0], "-i", video, *shifts[1], *tone, *coders, path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def tone_begins_at(path: Path) -> float | None:
    """Seconds from the first picture; None without a tone. Raises what ffmpeg does without sound."""
    sound = ["-map", "0:a", "-af", "aresample=8000:async=1:first_pts=0", "-ac", "1", "-f", "s16le", "-"]
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, *sound], capture_output=True, stdin=subprocess.DEVNULL)
    loud = np.flatnonzero(np.abs(np.frombuffer(done.stdout, np.int16).astype(int)) > 5000)
    return loud[0] / 8000 if loud.size else None


@pytest.mark.parametrize(
    ("name", "coder", "copied_to", "late", "late_s", "begins_s", "said"),
    [
        ("plain.mp4", "aac", "copy.mp4", "v", 0, 5, "H.264 with its sound"),
        ("to other.mkv", "libopus", "copy.mkv", "v", 0, 5, "H.264 with its sound"),
        ("late pictures.mkv", "aac", "copy.mp4", "v", 2, 3, "H.264 with its sound"),
        ("late sound.mp4", "aac", "copy.avi", "a", 1, 6, "H.264 with its sound as AAC"),
        ("late sound.mp4", "aac", "copy.MOV", "a", 1, 6, "H.264 with its sound"),
        ("unfit.mov", "pcm_s16be", "copy.mp4", "v", 0, 5, "H.264 with its sound as AAC"),
    ],
)
def test_a_copy_has_its_originals_sound_when_it_is_heard_there(
    tmp_path: Path,
    video: Path,
    name: str,
    coder: str,
    copied_to: str,
    late: str,
    late_s: float,
    begins_s: float,
    said: str,
) -> None:
    heard, copy = with_tone(video, tmp_path / name, coder, late, late_s), tmp_path / copied_to
    before = sorted([*tmp_path.iterdir(), copy])
    done = video_command(heard, "--output-video", copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f", written as {said}\n")
    assert tone_begins_at(copy) == pytest.approx(begins_s, abs=0.1)
    assert len(frames_of(copy)) == len(frames_of(video))
    assert sorted(tmp_path.iterdir()) == before


def test_sound_of_a_recording_that_begins_in_its_middle_is_where_it_belongs(tmp_path: Path, video: Path) -> None:
    """Its first pictures cannot be decoded, its sound can."""
    whole = with_tone(video, tmp_path / "whole.ts", "aac", "v", 0, "-g", "45").read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole[len(whole) // 188 // 10 * 188 :])
    first = frames_of(cut)[0].astype(int)
    distances = [np.abs(frame - first).mean() for frame in frames_of(tmp_path / "whole.ts")]
    assert video_command(cut, "--output-video", tmp_path / "copy.mp4").returncode == 0
    assert tone_begins_at(tmp_path / "copy.mp4") == pytest.approx(5 - np.argmin(distances) / 15, abs=0.1)


def test_a_copy_stays_whole_where_it_cannot_be_given_its_sound(tmp_path: Path, video: Path) -> None:
    heard, folder = with_tone(video, tmp_path / "heard.mkv", "aac"), tmp_path / "shut"
    folder.mkdir()
    copy = folder / "copy.mp4"
    copy.touch()
    copy.chmod(0o666)
    user = as_ordinary_user()
    folder.chmod(0o555)
    done = video_command(heard, "--output-video", copy, before=user)
    folder.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", written as H.264 without its sound: Permission denied\n")
    assert len(frames_of(copy)) == len(frames_of(video))


def test_a_copy_says_that_the_sound_is_missing_where_nothing_adds_it(tmp_path: Path, video: Path) -> None:
    done = video_command(video, "--output-video", tmp_path / "copy.mp4", path="")
    assert done.stdout.endswith(" without sound (the program ffmpeg would add it)\n")


def test_without_outputs_the_events_are_told() -> None:
    done = video_command("builtin")
    assert (done.returncode, done.stderr) == (0, "")
    told = [line.partition("face ")[2] for line in done.stdout.splitlines()]
    assert told[:3] == ["1 appears", "1 uncertain -> happy", "1 is gone, last happy"]


def test_where_nothing_makes_h264_another_codec_is_taken_and_said(tmp_path: Path, video: Path) -> None:
    done = video_command(video, "--output-video", tmp_path / "copy.mp4", path="")
    if "written as H.264" in done.stdout:
        pytest.skip("this OpenCV makes H.264 by itself")
    assert done.returncode == 0
    assert "written as MPEG-4, for nothing here makes H.264" in done.stdout
    assert len(frames_of(tmp_path / "copy.mp4")) == len(frames_of(video))


def test_without_h264_a_rate_of_many_digits_is_no_obstacle(tmp_path: Path, clip_frames: list) -> None:
    """As a telephone's slow motion has it: MPEG-4 counts at most 65,535 units a second."""
    slow_motion, copy = tmp_path / "slow.avi", tmp_path / "copy.mp4"
    writer = cv2.VideoWriter(str(slow_motion), cv2.VideoWriter.fourcc(*"MJPG"), 119.723, (640, 480))
    for picture in clip_frames[30:50]:
        writer.write(picture)
    writer.release()
    done = video_command(slow_motion, "--output-video", copy, path="")
    assert (done.returncode, done.stderr) == (0, "")
    written = cv2.VideoCapture(str(copy))
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(119.72, abs=0.01)
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 20


def test_a_copy_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probe = asked_for_h264()
    probe.start()
    with VideoFile(Path("a:1.mp4"), 15.0, (64, 48), probe) as file:
        for _ in range(5):
            file.write(np.zeros((48, 64, 3), np.uint8))
    assert Path("a:1.mp4").stat().st_size > 0


def test_the_program_ffmpeg_makes_h264_of_odd_sizes_too(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((121, 161, 3), 40 * number, np.uint8))
    done = video_command(tmp_path, "--output-video", tmp_path / "copy.mp4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "written as H.264" in done.stdout
    assert frames_of(tmp_path / "copy.mp4")[0].shape == (122, 162, 3)


def test_a_damaged_video_goes_on_behind_the_damage(tmp_path: Path, video: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (tests/system_packages.sh installs it)")
    whole = tmp_path / "whole.mp4"
    options = ["-c:v", "libx264", "-g", "15", "-pix_fmt", "yuv420p", "-y"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, *options, whole], check=True, stdin=subprocess.DEVNULL)
    content = bytearray(whole.read_bytes())
    third, fifth = len(content) // 3, len(content) // 5
    content[third : third + fifth] = np.random.default_rng(1).bytes(fifth)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    done = video_command(damaged, "--output-csv", tmp_path / "faces.csv")
    assert done.returncode == 0
    assert float(rows(tmp_path / "faces.csv")[-1][1]) > 12  # seconds; the damage is at about 5 to 9


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([""], 2, "IN: is empty; name a video file or a folder of pictures"),
        (["picamera2:x"], 78, "IN: must be picamera2 or, of several camera modules"),
        (["pipe.mkv"], 66, "pipe.mkv: neither a file nor a folder; what comes through a pipe must be saved"),
        (["missing.mkv"], 66, "missing.mkv: no such file"),
        (["none/*.png"], 66, "none/*.png: No such file"),
        (["text.png"], 65, "text.png: no picture in it can be decoded"),
        (["text.mkv"], 65, "text.mkv: not a video that OpenCV can read"),
        (["empty.mkv"], 65, "empty.mkv: not a video that OpenCV can read"),
        (["rtsp://me:word@127.0.0.1/x"], 2, "rtsp://127.0.0.1/x: does not end; emotiond video is for files"),
        (["0"], 2, "0: does not end, being a webcam's number"),
        (["2024"], 2, "2024: does not end, being a webcam's number; a file or folder of this name is ./2024"),
        (
            [os.fsdecode(b"lat\xe9.mkv")],
            2,
            "lat\\udce9.mkv: is no Unicode, as the name of what is read must be; rename",
        ),
        (["\x1b[2Jmissing.mkv"], 66, "�[2Jmissing.mkv: no such file"),
        (["builtin", "--output-video", "x.txt"], 2, "--output-video x.txt: must end in .mp4"),
        (["builtin", "--output-video", "none/x.mp4"], 74, "none/x.mp4: No such file or directory"),
        (["builtin", "--output-csv", "/dev/full"], 74, "/dev/full: No space left on device"),
        (["builtin", "--output-timeline", "x.doc"], 2, "--output-timeline x.doc: must end in .bmp"),
        (["builtin", "--output-timeline", "x.pgm"], 2, "--output-timeline x.pgm: must end in .bmp"),
        (["text.mkv", "--output-video", "text.mkv"], 2, "--output-video: text.mkv is one of the files that are read"),
        (["text.mkv", "--output-video", "link.mkv"], 2, "--output-video: link.mkv is one of the files that are read"),
        (["pics", "--output-timeline", "pics/1.png"], 2, "--output-timeline: pics/1.png is one of the files that are"),
        (["pics/%03d.png", "--output-timeline", "pics/1.png"], 2, "--output-timeline: pics/1.png is one of the files"),
        (["text.csv", "--output-csv", "text.csv"], 2, "--output-csv: text.csv is one of the files that are read"),
        (["text-events.csv", "--output-csv", "text.csv"], 2, "--output-csv: text-events.csv is one of the files that"),
        (["builtin", "--output-csv", "pics/1.png"], 2, "--output-csv pics/1.png: is named like a picture or a video"),
        (["builtin", "--output-csv", "."], 2, "--output-csv .: is a folder; name a file, such as faces.csv"),
        (
            ["builtin", "--output-csv", "text.csv", "--output-timeline", "t.png"],
            2,
            "--output-timeline: t.png is written",
        ),
        (["builtin", "--output-csv", "text.csv", "--output-video", "o.txt"], 2, "--output-video o.txt: must end in"),
        (
            ["builtin", "--output-csv", "text.csv", "--output-timeline", "pics/"],
            2,
            "--output-timeline pics: is a folder",
        ),
        (["builtin", "--output-csv", "text.csv", "--output-timeline", "no/t.png"], 74, "no/t.png: No such file or dir"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    for name in ("text.mkv", "text.png", "text.csv", "text-events.csv"):
        (tmp_path / name).write_text("this is no video\n" * 50)
    (tmp_path / "empty.mkv").touch()
    os.mkfifo(tmp_path / "pipe.mkv")
    (tmp_path / "link.mkv").hardlink_to(tmp_path / "text.mkv")
    (tmp_path / "t.png").symlink_to("text.csv")
    (tmp_path / "pics").mkdir()
    cv2.imwrite(str(tmp_path / "pics" / "1.png"), np.full((120, 160, 3), 90, np.uint8))
    (tmp_path / os.fsdecode(b"lat\xe9.mkv")).touch()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    done = video_command(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(f"emotiond: {said}")
    assert done.stderr.count("\n") == 1
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_folder_that_is_named_by_a_number_can_be_read(tmp_path: Path, clip_frames: list) -> None:
    (tmp_path / "2024").mkdir()
    cv2.imwrite(str(tmp_path / "2024" / "1.png"), clip_frames[0])
    done = video_command("./2024", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "./2024: frames: 1, faces: 0, events: 0\n", "")


def test_a_timeline_that_may_not_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    timeline, table = tmp_path / "timeline.png", tmp_path / "faces.csv"
    timeline.touch(0o444)
    user = as_ordinary_user()
    done = video_command("builtin", "--output-timeline", timeline, "--output-csv", table, before=user)
    assert (done.returncode, done.stderr) == (74, f"emotiond: {timeline}: Permission denied\n")
    assert not table.exists()
    timeline.unlink()
    tmp_path.chmod(0o555)
    done = video_command("builtin", "--output-timeline", timeline, before=user)
    tmp_path.chmod(0o755)
    assert (done.returncode, done.stdout) == (74, "")
    assert done.stderr == f"emotiond: {timeline}: Permission denied\n"


@pytest.mark.parametrize("programs", [None, ""], ids=["any encoder", "OpenCV's own"])
def test_a_full_disk_is_told(tmp_path: Path, programs: str | None) -> None:
    copy = tmp_path / "copy.mp4"
    done = video_command("builtin", "--output-video", copy, file_mb=0.05, path=programs)
    assert done.returncode == 74
    assert done.stderr.startswith(f"emotiond: {copy}: ")
    assert done.stderr.count("\n") == 1


def test_an_encoder_that_dies_is_told_in_its_own_words(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *lavfi*) exit 0;; esac\nhead -c 2000000 >/dev/null\n'
        'echo "Error closing file file:copy.mp4: out of cheese" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    copy = tmp_path / "copy.mp4"
    done = video_command("builtin", "--output-video", copy, path=f"{tmp_path}:{os.environ['PATH']}")
    if done.returncode == 0:
        pytest.skip("this OpenCV makes H.264 by itself")
    assert (done.returncode, done.stderr) == (74, f"emotiond: {copy}: out of cheese\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_whole_copy_of_what_was_read(
    tmp_path: Path, clip_frames: list, number: signal.Signals
) -> None:
    pictures, copy, table = tmp_path / "in", tmp_path / "copy.mp4", tmp_path / "faces.csv"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "0.jpg"), clip_frames[len(clip_frames) // 2])
    for frame in range(1, 20_000):
        (pictures / f"{frame}.jpg").symlink_to("0.jpg")
    command = [sys.executable, "-m", "edge", "video", pictures, "--output-video", copy, "--output-csv", table]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: table.exists() and table.stat().st_size > 10_000, "faces are read")
    child.send_signal(number)
    said = child.communicate()[1]
    assert child.returncode == 130
    assert [line for line in said.splitlines() if not PROGRESS.search(line)] == []
    assert 20 < len(frames_of(copy)) < 20_000
    assert table.read_text().endswith("\n")
    assert [event[1] for event in rows(tmp_path / "faces-events.csv")] == ["type", "new", "update"]


@pytest.mark.parametrize("asked", ["lavfi", "framecrc"], ids=["whether it makes H.264", "what streams there are"])
def test_an_ffmpeg_that_answers_nothing_is_ended_with_the_run(tmp_path: Path, video: Path, asked: str) -> None:
    program, started = tmp_path / "ffmpeg", tmp_path / "started"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *{asked}*) sleep 1000 & echo $! >{started}.new\n'
        f"mv {started}.new {started}; wait;; esac\n"
        f'exec {shutil.which("ffmpeg")} "$@"\n'
    )
    program.chmod(0o755)
    command = [sys.executable, "-m", "edge", "video", video, "--output-video", tmp_path / "copy.mp4"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path})
    wait_for(started.exists, "it was asked")
    child.terminate()
    wait_for(lambda: child.poll() is not None, "the run ends")
    assert child.returncode == 130
    wait_for(lambda: not runs(int(started.read_text())), "nothing is left behind")


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_progress_stays_one_line_of_a_narrow_terminal(tmp_path: Path, clip_frames: list) -> None:
    cv2.imwrite(str(tmp_path / "0.jpg"), clip_frames[0])
    for number in range(1, 1000):
        (tmp_path / f"{number}.jpg").symlink_to("0.jpg")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    command = [sys.executable, "-m", "edge", "video", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # Linux's way to say that nobody writes any more
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert child.wait() == 0
    lines = said.decode().split("\r\x1b[K")
    assert len(lines) > 2
    assert max(map(len, lines)) < 20


def test_progress_says_how_much_is_left() -> None:
    assert Progress("frames", 1000).text(250, elapsed_s=10.0) == " 25% of 1000 frames, 25 frames/s, 0:30 left"
    assert Progress("frames", 36_000).text(100, elapsed_s=10.0).endswith("10 frames/s, 59:50 left")
    assert Progress("frames").text(250, elapsed_s=10.0) == "250 frames, 25 frames/s"
    assert Progress("frames", 10).text(12, elapsed_s=1.0) == "12 frames, 12 frames/s"
    assert Progress("frames", 10).text(0, elapsed_s=0.0) == "  0% of 10 frames, 0 frames/s, 0:00 left"
