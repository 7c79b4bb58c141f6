"""Several cameras in one daemon: each goes its own way, none disturbs another."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from test_metrics import read

from conftest import PATIENCE_S, Broker, Daemon, free_port, plain, wait_for
from mjpeg_server import MjpegCamera

# A camera that is lost is noticed soon; the busiest machine gives a picture within these times.
QUICK = {"timeout_s": 5.0, "stale_after_s": 5.0, "retry_min_s": 0.1, "retry_max_s": 0.5}


@pytest.fixture
def cameras(clip_frames: list[np.ndarray]) -> Iterator[tuple[MjpegCamera, MjpegCamera]]:
    """Two streams of one picture with a face: nobody comes or goes."""
    servers = MjpegCamera(clip_frames[60:61]), MjpegCamera(clip_frames[60:61])
    yield servers
    for server in servers:
        server.close()


def entry(name: str, source: str, **settings: object) -> dict[str, object]:
    return {"name": name, "source": source, **QUICK, **settings}


def status(subscriber, camera: str) -> str:
    """The newest one."""
    return ["", *subscriber.texts(f"emotiond/pi/{camera}/status")][-1]


def comings(subscriber, camera: str) -> list[str]:
    """Who came and went before a camera."""
    events = [event for event in subscriber.events() if event["camera"] == camera]
    return [event["type"] for event in events if event["type"] != "update"]


def as_files(folder: Path, pictures: list[np.ndarray]) -> str:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:03}.png"), picture)
    return str(folder)


def test_one_camera_fails_and_comes_back_and_the_other_goes_on(
    cameras: tuple[MjpegCamera, MjpegCamera], service, broker: Broker, subscribe, tmp_path: Path
) -> None:
    front, door = cameras
    subscriber = subscribe(broker.port)
    path = tmp_path / "emotiond.prom"
    running = service(
        cameras=[entry("front", front.url), entry("door", door.url)],
        metrics={"file": str(path)},
        mqtt={"live_rate_hz": 50},
    )
    wait_for(lambda: "new" in comings(subscriber, "front") and "new" in comings(subscriber, "door"), "a face on both")
    door.mode = "refuse"
    wait_for(lambda: status(subscriber, "door") == "offline", "one is offline")
    seen = len(subscriber.texts("emotiond/pi/front/faces"))
    wait_for(lambda: len(subscriber.texts("emotiond/pi/front/faces")) > seen + 30, "the other is looked at")

    def online() -> dict[str, float]:
        values = read(path.read_text(), {"device": "pi"}) if path.exists() else {}
        return {camera: values.get(("emotiond_camera_online", (camera,))) for camera in ("front", "door")}

    wait_for(lambda: online() == {"front": 1, "door": 0}, "the metrics tell them apart")
    door.mode = "run"
    wait_for(lambda: status(subscriber, "door") == "online", "it is back")
    wait_for(lambda: comings(subscriber, "door") == ["new", "end", "new"], "its face ended and is found again")
    assert status(subscriber, "front") == "online"
    assert subscriber.texts("emotiond/pi/front/status").count("offline") == 1, "only before the first frame"
    assert "end" not in comings(subscriber, "front")
    stats = [json.loads(text) for text in subscriber.texts("emotiond/pi/stats")]
    assert {message["camera"] for message in stats} == {"front", "door"}
    running.stop()


def test_frames_are_shared_fairly_and_one_that_is_not_there_stops_nobody(
    clip_frames: list[np.ndarray], broker: Broker, subscribe, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    people = np.tile(clip_frames[60], (2, 2, 1))
    crowd = as_files(tmp_path / "crowd", [people, np.roll(people, 6, axis=1)])
    quiet = as_files(tmp_path / "quiet", [np.full((480, 640, 3), grey, np.uint8) for grey in (60, 90)])
    entries = [
        entry("crowd", crowd, loop=True, detector={"search_width": 960}),
        entry("lost", f"http://127.0.0.1:{free_port()}/"),
        entry("quiet", quiet, loop=True),
    ]
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"cameras": entries}))
    subscriber = subscribe(broker.port)
    options = plain(broker.port, **{"mqtt.live_rate_hz": 1000})
    code, _, err = start("run", "--config", str(config), "--max-frames", "81", *options).finish()
    assert (code, "Traceback" in err) == (0, False), err
    wait_for(lambda: "stopped" in subscriber.texts("emotiond/pi/status"), "the end")
    newest = {name: json.loads(subscriber.texts(f"emotiond/pi/{name}/faces")[-1]) for name in ("crowd", "quiet")}
    assert {name: message["seq"] for name, message in newest.items()} == {"crowd": 40, "quiet": 39}
    assert comings(subscriber, "crowd").count("new") == 4 and comings(subscriber, "quiet") == []
    assert "online" not in subscriber.texts("emotiond/pi/lost/status")


def test_one_that_cannot_be_read_is_told_and_the_others_go_on_to_their_end(
    clip_frames: list[np.ndarray], start: Callable[..., Daemon], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "0.png").write_text("no picture")
    entries = [entry("damaged", str(damaged)), entry("sound", as_files(tmp_path / "sound", clip_frames[60:90]))]
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"cameras": entries, "mqtt": {"broker": None}}))
    code, out, err = start("run", "--config", str(config), "--events", "-").finish()
    assert code == 0, err
    assert [json.loads(line)["camera"] for line in out.splitlines()][:2] == ["sound", "sound"]
    assert f"{damaged}: no picture in it can be decoded" in err and err.count("the other cameras go on") == 1


def test_each_camera_tells_what_it_would_tell_alone(
    clip_frames: list[np.ndarray], start: Callable[..., Daemon], tmp_path: Path
) -> None:
    entries = [
        entry("early", as_files(tmp_path / "early", clip_frames[10:50])),
        entry("late", as_files(tmp_path / "late", clip_frames[70:100]), emotion={"dwell_s": 0.2}),
    ]

    def told(*some: dict[str, object]) -> dict[str, list[tuple]]:
        config = tmp_path / "c.yaml"
        config.write_text(yaml.safe_dump({"cameras": list(some), "mqtt": {"broker": None}}))
        code, out, err = start("run", "--config", str(config), "--events", "-").finish()
        assert code == 0, err
        events = [json.loads(line) for line in out.splitlines()]
        return {
            one["name"]: [
                (event["type"], event["track"], event["emotion"], event["scores"], event["box"])
                for event in events
                if event["camera"] == one["name"]
            ]
            for one in some
        }

    together = told(*entries)
    assert together == {**told(entries[0]), **told(entries[1])}
    assert {event[0] for event in together["late"]} == {"new", "update", "end"}


def test_cameras_are_added_and_removed_while_another_goes_on(
    cameras: tuple[MjpegCamera, MjpegCamera], service, broker: Broker, subscribe
) -> None:
    subscriber = subscribe(broker.port, "#")
    front, door = entry("front", cameras[0].url), entry("door", cameras[1].url)
    home = {"prefix": "homeassistant"}
    running = service(camera=front, homeassistant=home)
    wait_for(lambda: comings(subscriber, "front") == ["new"], "a face")
    running.reload(cameras=[front, door], homeassistant=home)
    wait_for(lambda: "new" in comings(subscriber, "door"), "a face on the one that was added")
    assert comings(subscriber, "front") == ["new"]

    def components() -> dict[str, dict]:
        return json.loads(subscriber.texts("homeassistant/device/emotiond_pi/config")[-1])["components"]

    wait_for(lambda: "emotiond_pi_door_emotion" in components(), "Home Assistant is told")
    assert components()["emotiond_pi_front_paused"]["command_topic"] == "emotiond/pi/front/pause"
    running.reload(cameras=[door], homeassistant=home)
    wait_for(lambda: status(subscriber, "front") == "offline", "the one that was removed is offline")
    wait_for(lambda: comings(subscriber, "front")[-1] == "end", "and its face ended")
    wait_for(lambda: components()["emotiond_pi_front_emotion"] == {"platform": "sensor"}, "Home Assistant is told")
    assert "end" not in comings(subscriber, "door")
    assert status(subscriber, "door") == "online"
    running.stop()
    wait_for(lambda: "stopped" in subscriber.texts("emotiond/pi/status"), "the end")
    assert subscriber.texts("emotiond/pi/status").count("online") == 1, "one connection for all of it"


def test_cameras_pause_alone_and_together(
    cameras: tuple[MjpegCamera, MjpegCamera], service, broker: Broker, subscribe
) -> None:
    subscriber = subscribe(broker.port)
    entries = [entry("front", cameras[0].url), entry("door", cameras[1].url)]
    running = service(cameras=entries)

    def are(front: str, door: str) -> None:
        wait_for(
            lambda: (status(subscriber, "front"), status(subscriber, "door")) == (front, door), f"{front} and {door}"
        )

    are("online", "online")
    subscriber.publish("emotiond/pi/door/pause", "on")
    are("online", "paused")
    subscriber.publish("emotiond/pi/cmd/pause", "")
    are("paused", "paused")
    running.reload(cameras=[*entries, entry("yard", cameras[0].url)])
    wait_for(lambda: status(subscriber, "yard") == "paused", "one that comes to a paused device is paused too")
    subscriber.publish("emotiond/pi/door/pause", "off")
    are("paused", "online")
    subscriber.publish("emotiond/pi/nowhere/pause", "")
    subscriber.publish("emotiond/pi/cmd/resume", "")
    are("online", "online")
    running.stop()


def test_it_is_ready_also_where_no_camera_is_there_yet_and_finds_them(
    cameras: tuple[MjpegCamera, MjpegCamera], service, broker: Broker, subscribe
) -> None:
    subscriber = subscribe(broker.port)
    for camera in cameras:
        camera.mode = "refuse"
    running = service(cameras=[entry("front", cameras[0].url), entry("door", cameras[1].url)])
    wait_for(lambda: (status(subscriber, "front"), status(subscriber, "door")) == ("offline", "offline"), "both told")
    cameras[1].mode = "run"
    wait_for(lambda: status(subscriber, "door") == "online", "one is found")
    assert running.stop().count("cannot be opened") == 2


def test_a_file_that_is_not_there_is_named_with_its_camera(start: Callable[..., Daemon], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"cameras": [{"name": "front"}, {"name": "door", "source": "/nowhere.mkv"}]}))
    code, _, err = start("run", "--config", str(config), "--set", "mqtt.broker=null").finish()
    assert (code, err) == (66, "emotiond: cameras.door.source: /nowhere.mkv: no such file, folder or camera\n")


def test_check_proves_each_camera(start: Callable[..., Daemon], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"cameras": [{"name": "front"}, {"name": "door", "source": "/nowhere.mkv"}]}))
    code, out, _ = start("check", "--config", str(config), "--set", "mqtt.broker=null").finish()
    rows = {line[: line.index("  ")]: line for line in out.splitlines()}
    assert code == 66
    assert "cameras front, door" in rows["settings"]
    assert "640x480 px" in rows["camera front"]
    assert "FAIL  cameras.door.source: /nowhere.mkv: no such file" in rows["camera door"]
    assert "none wanted" in rows["broker"]


def test_frames_that_come_while_the_process_ends_do_not_abort_it(service) -> None:
    servers = [MjpegCamera([np.full((48, 64, 3), 90, np.uint8)], fps=50) for _ in range(24)]
    running = service(
        cameras=[entry(f"camera{number}", server.url) for number, server in enumerate(servers)], mqtt={"broker": None}
    )
    wait_for(lambda: all(server.clients for server in servers), "all are read")
    time.sleep(2)
    for server in servers:
        server.mode = "stall"
    time.sleep(0.2)
    running.daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)  # a stalled read is waited for so long; then they return one by one, in whatever is done last
    for server in servers:
        time.sleep(0.02)
        server.mode = "run"
    code, _, err = running.daemon.finish()
    for server in servers:
        server.close()
    assert (code, "terminate" in err) == (0, False)


def test_a_camera_that_takes_connections_and_says_nothing_keeps_no_other_waiting(
    camera: MjpegCamera, broker: Broker, subscribe, start, tmp_path: Path
) -> None:
    """OpenCV opens one stream after another."""
    subscriber = subscribe(broker.port)
    camera.mode = "refuse"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hung = {"name": "hung", "source": f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam", "timeout_s": 60}
        cameras = [hung, {"name": "door", "source": camera.url}]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"cameras": cameras}))
        start("run", "--config", str(tmp_path / "config.yaml"), *plain(broker.port))
        silent.settimeout(PATIENCE_S)
        connection, _ = silent.accept()
        camera.mode = "run"
        wait_for(lambda: "online" in subscriber.texts("emotiond/pi/door/status"), "the other is read", 30)
        connection.close()
