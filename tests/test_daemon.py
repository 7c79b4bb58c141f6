"""The real process against a real broker, as a subscriber and an operator see it."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from conftest import ROOT, Broker, Daemon, free_port, is_open, mosquitto, plain, wait_for
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.daemon import run
from edge.loop import Wishes
from edge.outbox import Outbox

STATUS, CAMERA_STATUS, EMOTION = "emotiond/pi/status", "emotiond/pi/camera/status", "emotiond/pi/camera/emotion"
MODEL = TfliteClassifier().model_id


def printed_events(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_the_built_in_clip_arrives_at_a_subscriber(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", "--max-frames", "215", *plain(broker.port))
    code, _, err = daemon.finish(timeout=60)
    assert code == 0, err
    wait_for(lambda: subscriber.texts(STATUS) == ["online", "stopped"], "both states of the device")
    # It is `offline` from the start until the first frame, unless that comes before the connection.
    assert subscriber.texts(CAMERA_STATUS)[-2:] == ["online", "offline"]
    assert len(subscriber.texts(CAMERA_STATUS)) <= 3
    events = [e for e in subscriber.events() if e["track"] == subscriber.events()[0]["track"]]
    assert (events[0]["type"], events[0]["emotion"], events[-1]["type"]) == ("new", None, "end")
    updates = [e for e in events if e["type"] == "update"]
    assert updates and updates[0]["previous"] is None
    assert updates[0]["confidence"] >= 0.45
    assert {(e["device"], e["camera"], e["model"], tuple(e["frame"])) for e in events} == {
        ("pi", "camera", MODEL, (640, 480))
    }
    dominant = [json.loads(text) for text in subscriber.texts(EMOTION)]
    assert updates[0]["emotion"] in [message["emotion"] for message in dominant]
    assert (dominant[-1]["emotion"], dominant[-1]["faces"]) == (None, 0)
    live = [json.loads(text) for text in subscriber.texts("emotiond/pi/camera/faces")]
    assert 40 < len(live) <= 80  # 5 a second for 14 s
    assert max(len(message["faces"]) for message in live) >= 1


def test_its_threads_do_not_interrupt_one_another(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", *plain(broker.port))
    wait_for(lambda: "online" in subscriber.texts(CAMERA_STATUS), "frames come")
    assert os.sched_getscheduler(daemon.process.pid) == os.SCHED_BATCH


def test_a_file_gives_the_same_events_every_time_and_ends(video: Path, start) -> None:
    def play() -> list[dict]:
        arguments = ["run", "--source", str(video), "--events", "-", "--set", "mqtt.broker=null", "--set", "device=pi"]
        code, out, err = start(*arguments).finish()
        assert (code, err) == (0, "")
        return [
            {k: v for k, v in event.items() if k not in ("id", "at", "started_at", "latency_ms")}
            for event in printed_events(out)
        ]

    first = play()
    assert {"new", "update", "end"} <= {event["type"] for event in first}
    assert play() == first


def test_real_faces_give_events(shared: Path, broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    for name in ("again.mkv", "head-pose-face-detection-male.gif"):
        code, out, err = start(
            "run", "--source", str(shared / "data/clips" / name), "--events", "-", *plain(broker.port)
        ).finish(timeout=60)
        assert code == 0, err
        types = [event["type"] for event in printed_events(out)]
        assert types.count("new") == types.count("end") >= 1
    wait_for(lambda: subscriber.texts(STATUS).count("stopped") == 2, "both ends")
    assert sum(event["type"] == "new" for event in subscriber.events()) >= 2


def test_sigterm_ends_it_cleanly(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", *plain(broker.port))
    wait_for(lambda: subscriber.events(), "a face")
    code, _, err = daemon.stop(signal.SIGTERM)
    wait_for(lambda: subscriber.texts(STATUS)[-1] == "stopped", "stopped")
    assert (code, "Traceback" in err) == (0, False)
    assert subscriber.events()[-1]["type"] == "end"


def test_it_ends_also_when_no_broker_answers(start) -> None:
    daemon = start("run", *plain(free_port()))
    assert any("cannot be reached" in line for line in daemon.process.stderr)
    assert daemon.stop(signal.SIGTERM)[0] == 0


def test_kill_9_leaves_offline_as_the_last_will(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", *plain(broker.port))
    wait_for(lambda: subscriber.texts(STATUS) == ["online"], "online")
    daemon.stop(signal.SIGKILL)
    wait_for(lambda: subscriber.texts(STATUS) == ["online", "offline"], "offline")
    late = subscribe(broker.port, STATUS)
    wait_for(lambda: late.messages == [(STATUS, "offline", True)], "offline is retained")


def listening(pid: int) -> list[str]:
    """The rows of TCP and UDP sockets of a process that take what anybody sends."""
    owned = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    rows = []
    for protocol, takes in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for row in table.read_text().splitlines()[1:] if table.exists() else []:
            words = row.split()  # local and remote address, state, ..., inode
            if words[3] == takes and f"socket:[{words[9]}]" in owned:
                rows.append(row)
    return rows


def test_by_default_nothing_listens_and_no_picture_is_sent_or_written(
    broker: Broker, subscribe, start, tmp_path: Path
) -> None:
    subscriber = subscribe(broker.port)
    home = tmp_path / "home"
    home.mkdir()
    places = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    settings = plain(broker.port, **{"spool.folder": str(home / "state"), "mqtt.stats_interval_s": 0.3})
    daemon = start("run", *settings, env=places, cwd=home)
    wait_for(lambda: subscriber.texts("emotiond/pi/stats") and subscriber.events(), "events and figures")
    subscriber.publish("emotiond/pi/camera/look", "")  # who asks for pictures gets none
    seen = len(subscriber.messages)
    wait_for(lambda: len(subscriber.messages) > seen + 10, "it goes on")
    assert listening(daemon.process.pid) == []
    assert daemon.stop()[0] == 0
    for topic, text, _ in subscriber.messages:
        assert text in ("online", "offline", "stopped", "") or json.loads(text), topic
        assert len(text) < 4000, topic
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {name.partition("events.db")[0] for name in written} == {"state/"}, written


def test_it_runs_on_without_a_broker_says_so_once_and_delivers_later(broker: Broker, subscribe, start) -> None:
    daemon = start("run", "--max-frames", "210", *plain(broker.port, **{"mqtt.retry_max_s": 0.5}))
    first = subscribe(broker.port)
    wait_for(lambda: first.events(), "a face")
    broker.kill()
    time.sleep(3)
    broker.start()
    second = subscribe(broker.port)
    wait_for(lambda: any(e["type"] == "end" for e in second.events()), "the face is gone")
    code, _, err = daemon.finish()
    assert code == 0
    assert err.count("connection lost") == 1
    assert err.count("cannot be reached") <= 1
    assert second.texts(STATUS)[-2:] == ["online", "stopped"]


def test_pause_stops_reading_and_resume_goes_on(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    start("run", *plain(broker.port, **{"mqtt.commands": True}))
    wait_for(lambda: subscriber.events(), "a face")
    subscriber.publish("emotiond/pi/cmd/pause", "")
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "paused", "paused")
    wait_for(lambda: subscriber.events()[-1]["type"] == "end", "faces end with the pause")
    seen = len(subscriber.events())
    time.sleep(1)
    assert len(subscriber.events()) == seen
    subscriber.publish("emotiond/pi/cmd/resume", "")
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "online", "online")
    wait_for(lambda: len(subscriber.events()) > seen, "a face again")


def test_stats_tell_how_it_goes(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    start("run", *plain(broker.port, **{"mqtt.stats_interval_s": 1.0}))
    wait_for(lambda: len(subscriber.texts("emotiond/pi/stats")) >= 2, "two stats messages")
    stats = json.loads(subscriber.texts("emotiond/pi/stats")[1])
    assert 5 < stats["fps_out"] <= 16
    assert stats["latency_ms"]["p50"] <= stats["latency_ms"]["p99"]
    assert (stats["model"], stats["runtime"], stats["queue"]) == (MODEL, "litert", 0)
    of_frames = {"superseded", "undecodable", "over_max_fps", "too_hot"}
    lost = {"events_overflowed", "events_expired", "events_damaged", "events_refused"}
    assert set(stats["drops"]) == of_frames | {"live_dropped"} | lost
    assert stats["pace"]["because"] in (None, "slow")
    assert stats["sweeps"] > 0
    assert (stats["spool"]["on_disk"], stats["spool"]["bytes"]) == (False, 0)


def test_a_process_that_was_stopped_owes_no_stats(broker: Broker, subscribe, start) -> None:
    """Suspended by its machine, say: figures of no time at all would come in a burst."""
    subscriber = subscribe(broker.port)
    daemon = start("run", *plain(broker.port, **{"mqtt.stats_interval_s": 1.0}))
    wait_for(lambda: subscriber.texts("emotiond/pi/stats"), "stats")
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    seen = len(subscriber.texts("emotiond/pi/stats"))
    daemon.process.send_signal(signal.SIGCONT)
    wait_for(lambda: len(subscriber.texts("emotiond/pi/stats")) >= seen + 2, "it goes on")
    first, second = [json.loads(text)["uptime_s"] for text in subscriber.texts("emotiond/pi/stats")[seen : seen + 2]]
    assert second > first


def test_systemd_is_told_when_it_is_ready_and_that_it_lives(tmp_path: Path, start) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        daemon = start("run", "--set", "mqtt.broker=null", env=env)
        said = [channel.recv(4096).decode() for _ in range(6)]
        daemon.process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in said:
            said.append(channel.recv(4096).decode())
        daemon.finish()
    assert said.count("READY=1") == 1
    assert "STATUS=camera camera online" in said
    assert said.count("WATCHDOG=1") >= 3


def test_a_sending_thread_that_fails_ends_the_daemon(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would seem to live, and systemd would not start it again."""
    caplog.set_level("INFO")  # as the daemon does, and set back at the end
    config = Config.model_validate({"device": "pi", "mqtt": {"broker": "127.0.0.1", "port": broker.port}})
    monkeypatch.setattr(Outbox, "take", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config, Wishes(), max_frames=150)


def test_run_watch_shows_what_an_embedded_broker_delivers(start) -> None:
    arguments = ["--set", "device=pi", "--set", f"mqtt.port={free_port()}"]
    code, out, err = start("run", "--watch", "--max-frames", "90", *arguments).finish(timeout=60)
    assert (code, "Traceback" in err) == (0, False)
    assert re.search(r"^pi/status +online$", out, re.M)
    assert re.search(r"^pi/camera +[\d:.]+  face 1 appears$", out, re.M)
    assert re.search(r"^pi/camera +[\d:.]+  face 1 uncertain -> \w+ \(\d+ %\)$", out, re.M)
    assert re.search(r"^pi/status +stopped$", out, re.M)


def test_two_embedded_brokers_do_not_meet(start: Callable[..., Daemon]) -> None:
    daemons = [start("run", "--max-frames", "45") for _ in range(2)]
    errors = [daemon.finish(timeout=60) for daemon in daemons]
    ports = {re.search(r"embedded broker: \w+ on 127.0.0.1:(\d+)", err)[1] for _, _, err in errors}
    assert [code for code, _, _ in errors] == [0, 0]
    assert len(ports) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (
            ["run", "--set", "camera.sorce=1"],
            78,
            "--set camera.sorce=1: camera.sorce: unknown key, did you mean source?",
        ),
        (["run", "--config", "nowhere.yaml"], 78, "nowhere.yaml: cannot read the settings"),
        (["run", "--source", "nowhere.mkv"], 66, "camera.source: nowhere.mkv: no such file, folder or camera"),
        (["run", "--source", "README.md"], 65, "camera.source: README.md: not a video"),
        (["run", "--source", "97", "--set", "camera.timeout_s=1"], 69, "camera.source: 97: cannot be opened"),
        (["run", "--set", "model.path=nowhere.tflite"], 78, "model.path: nowhere.tflite: cannot be read"),
        (["run", "--set", "detector.cascade=README.md"], 78, "detector.cascade: README.md: not a Haar cascade"),
        *(
            (["run", "--set", f"metrics.file={name}"], 78, f"--set metrics.file={name}: metrics.file: must be a file")
            for name in (".", "/", "..", '""')
        ),
        (
            ["run", "--set", "metrics.http_port=9", "--set", "metrics.http_host=a..b"],
            69,
            "metrics.http_port: a..b:9: cannot listen: no host can have this name",
        ),
        (["watch", "--set", "mqtt.port=9"], 69, "mqtt.broker: 127.0.0.1:9: cannot be reached: Connection refused"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(arguments: list[str], code: int, expected: str, start) -> None:
    quiet = [] if arguments[0] == "watch" else ["--set", "mqtt.broker=null"]
    returned, out, err = start(*arguments, *quiet).finish()
    assert (returned, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"emotiond: {expected}")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "--max-frames", "0"], ["run", "--events", "x"]])
def test_usage_errors_exit_with_2(arguments: list[str], start) -> None:
    code, _, err = start(*arguments).finish()
    assert (code, "usage: emotiond" in err, "Traceback" in err) == (2, True, False)


def test_a_reader_who_has_seen_enough_does_not_end_in_a_traceback(video: Path) -> None:
    command = f"{sys.executable} -m edge run --source {video} --set mqtt.broker=null --events - | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=env)
    assert json.loads(done.stdout)["type"] == "new"
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


# Settings under which the clip makes an event with nearly every frame.
MANY = ["camera.realtime=false", "mqtt.broker=null", "tracker.confirm_frames=1", "tracker.coast_s=0",
        "detector.min_neighbors=0", "emotion.min_confidence=0", "emotion.dwell_s=0"]  # fmt: skip


def many() -> list[str]:
    return [part for setting in MANY for part in ("--set", setting)]


def test_a_reader_who_reads_nothing_does_not_hold_it_up(start) -> None:
    reading_end, writing_end = os.pipe()
    daemon = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", *many(), "--events", "-"], stdout=writing_end, cwd=ROOT
    )
    os.close(writing_end)
    wait_for(lambda: select.select([reading_end], [], [], 0)[0], "an event")
    time.sleep(4)
    daemon.send_signal(signal.SIGTERM)
    try:
        assert daemon.wait(10) == 0
    finally:
        daemon.kill()
        os.close(reading_end)


@pytest.mark.parametrize(
    ("command", "redirection", "code"),
    [
        ("check --set mqtt.broker=null", ">&-", 0),
        ("check --set mqtt.broker=null", ">/dev/full", 74),
        ("--help", ">&-", 0),
        ("--help", ">/dev/full", 0),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(command: str, redirection: str, code: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    shell = f"{sys.executable} -m edge {command} {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=env)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_watch_ends_with_its_reader_and_on_sigterm_even_in_the_background(broker: Broker) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    watch = f"{sys.executable} -m edge watch --set mqtt.broker=127.0.0.1 --set mqtt.port={broker.port}"
    publish = f"mosquitto_pub -h 127.0.0.1 -p {broker.port} -t emotiond/pi/status -m online"
    repeat = f"for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; {publish}; done"
    shell = f"({repeat}) & {watch} | head -n 1; {watch} >/dev/null & sleep 2; kill -TERM $!; wait $!; echo ended"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout.split() == ["pi/status", "online", "ended"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "setting", ["password_file=/nowhere", "password_env=NOT_SET", "password_credential=x", "ca_file=/nowhere"]
)
def test_an_mqtt_setting_that_cannot_work_ends_the_start(setting: str, start) -> None:
    arguments = [*plain(free_port()), "--set", "mqtt.username=edge", "--set", f"mqtt.{setting}"]
    code, _, err = start("run", *arguments).finish()
    assert (code, err.count("\n")) == (78, 1)
    assert err.startswith(f"emotiond: mqtt.{setting.split('=')[0]}: ")


def test_sigterm_is_obeyed_while_the_first_frame_is_waited_for(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        daemon = start("run", "--source", url, "--set", "mqtt.broker=null", "--set", "camera.timeout_s=20")
        peer, _ = silent.accept()
        with peer:
            assert daemon.stop()[0] == 0


def test_kill_9_while_the_embedded_broker_starts_leaves_nothing_either(tmp_path: Path) -> None:
    program, port = mosquitto(), free_port()
    code = (
        "import os, signal, subprocess\n"
        "from edge.broker import EmbeddedBroker\n"
        "start = subprocess.Popen.__init__\n"
        "def killed(self, command, **options):\n"
        "    start(self, command, **options)\n"
        f"    if {program!r} in command: os.kill(os.getpid(), signal.SIGKILL)\n"
        "subprocess.Popen.__init__ = killed\n"
        f"EmbeddedBroker({port}).__enter__()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: list(tmp_path.iterdir()) == [], "its files are gone")
    wait_for(lambda: not is_open(port), "the embedded broker is gone")


def test_kill_9_takes_the_embedded_broker_and_its_files_with_it(start, tmp_path: Path) -> None:
    port = free_port()
    daemon = start("run", "--set", f"mqtt.port={port}", env={"TMPDIR": str(tmp_path)})
    wait_for(lambda: is_open(port), "the embedded broker listens")
    daemon.stop(signal.SIGKILL)
    wait_for(lambda: not is_open(port), "the embedded broker is gone")
    wait_for(lambda: not list(tmp_path.glob("emotiond-broker-*")), "its settings are gone")


def test_a_file_waits_while_it_is_paused(video: Path, broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    arguments = ["--set", "camera.loop=true", "--set", "camera.realtime=true"]
    daemon = start("run", "--source", str(video), *arguments, *plain(broker.port, **{"mqtt.commands": True}))
    wait_for(lambda: subscriber.events(), "a face")
    subscriber.publish("emotiond/pi/cmd/pause", "")
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "paused", "paused")
    ticks = lambda: sum(map(int, Path(f"/proc/{daemon.process.pid}/stat").read_text().split()[13:15]))  # noqa: E731
    before = ticks()
    time.sleep(2)
    assert ticks() - before < 40  # of the 200 that a loop without rest would take


def test_a_single_picture_is_told_before_it_ends(tmp_path: Path, clip_frames, broker: Broker, subscribe, start) -> None:
    cv2.imwrite(str(tmp_path / "face.jpg"), clip_frames[60])
    subscriber = subscribe(broker.port)
    settings = plain(broker.port, **{"tracker.confirm_frames": 1, "emotion.dwell_s": 0})
    code, _, err = start("run", "--source", str(tmp_path / "face.jpg"), *settings).finish()
    assert (code, "Traceback" in err) == (0, False)
    wait_for(lambda: subscriber.texts(STATUS) == ["online", "stopped"], "both states of the device")
    assert [event["type"] for event in subscriber.events()] == ["new", "end"]
