"""Passwords of the broker and of cameras appear nowhere, whatever goes wrong and however much is logged."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Broker, Daemon, free_port, wait_for
from edge.config import MqttConfig
from mjpeg_server import MjpegCamera

SECRET = "s3cret-of-the-broker"
CAMERA_SECRET = "s3cret-of-the-camera"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, str]]]:
    """A configuration file with secrets in every way that there is, and the environment that it needs."""

    def write(kind: str, **changed: object) -> tuple[Path, dict[str, str]]:
        given = {
            "file": {"password_file": str(tmp_path / "password")},
            "env": {"password_env": "BROKER_PASSWORD"},
            "credential": {"password_credential": "password"},
        }[kind]
        (tmp_path / "password").write_text(SECRET + "\n")
        mqtt = {"broker": "127.0.0.1", "port": free_port(), "username": "edge", "retry_min_s": 0.1, **given}
        camera = {"source": f"http://edge:{CAMERA_SECRET}@127.0.0.1:{free_port()}/cam", "timeout_s": 1.0}
        for key, value in changed.items():
            (mqtt if key in ("broker", "port", "tls") else camera)[key] = value
        path = tmp_path / "config.yaml"
        path.write_text(
            json.dumps({"device": "pi", "camera": camera, "mqtt": mqtt, "log": {"level": "debug"}}), encoding="utf-8"
        )
        return path, {"BROKER_PASSWORD": SECRET, "CREDENTIALS_DIRECTORY": str(tmp_path)}

    return write


def says_no_secret(*texts: str) -> None:
    for text in texts:
        assert SECRET not in text
        assert CAMERA_SECRET not in text


@pytest.mark.parametrize("kind", ["file", "env", "credential"])
@pytest.mark.parametrize("command", [["check"], ["run"], ["run", "--debug"]])
def test_what_fails_tells_no_secret(settings, start: Callable[..., Daemon], command: list[str], kind: str) -> None:
    path, env = settings(kind)
    code, out, err = start(*command, "--config", str(path), env=env).finish()
    assert code == 69
    assert "127.0.0.1" in out + err
    says_no_secret(out, err)


@pytest.mark.parametrize(
    "changed",
    [
        {"source": f"http://edge:{CAMERA_SECRET}@127.0.0.1/\0"},
        {"source": [f"http://edge:{CAMERA_SECRET}@127.0.0.1/"]},
        {"source": f"nonsense://edge:{CAMERA_SECRET}@127.0.0.1/"},
        {"source": f"http:/edge:{CAMERA_SECRET}@127.0.0.1/*.jpg"},
        {"source": f"/nowhere//edge:{CAMERA_SECRET}@127.0.0.1/"},
        {"broker": f"mqtt://edge:{SECRET}@127.0.0.1"},
        {"broker": f"edge:{SECRET}@127.0.0.1"},
        {"broker": f"edge:{SECRET}:x@127.0.0.1"},
        {"broker": [f"edge:{SECRET}@127.0.0.1", "b"]},
        {"broker": [f"edge:{SECRET}@127.0.0.1", 1]},
        {"tls": True},
    ],
)
def test_settings_that_are_wrong_tell_no_secret(
    settings, start: Callable[..., Daemon], changed: dict[str, object]
) -> None:
    path, env = settings("file", **changed)
    code, out, err = start("run", "--debug", "--config", str(path), env=env).finish()
    assert code in (66, 69, 78)
    says_no_secret(out, err)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("command", [["check"], ["run", "--debug"]])
def test_a_password_that_the_broker_refuses_is_not_told(
    settings, start: Callable[..., Daemon], broker_at, tmp_path: Path, command: list[str], protocol: str
) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "edge", "right"], check=True, capture_output=True)
    broker = broker_at(f"allow_anonymous false\npassword_file {passwords}")
    path, env = settings("file", port=broker.port, source="builtin")
    daemon = start(*command, "--config", str(path), "--set", f'mqtt.protocol="{protocol}"', env=env)
    if command == ["check"]:
        code, out, err = daemon.finish()
        assert (code, "Not authorized" in out + err) == (69, True)
        says_no_secret(out, err)
        return
    said: list[str] = []
    for line in daemon.process.stderr:
        said.append(line)
        if "Not authorized" in line:
            break
    code, out, err = daemon.stop()
    assert code == 0
    assert "refuses: Not authorized" in "".join(said)
    says_no_secret(out, err, *said)


TOKENS = [
    f"http://127.0.0.1:{{port}}/cam?token={CAMERA_SECRET}",
    f"http://127.0.0.1:{{port}}/cam.cgi?user=admin&pwd={CAMERA_SECRET}",
    f"rtsp://127.0.0.1:{{port}}/user=admin_password={CAMERA_SECRET}_channel=1_stream=0.sdp",
    f"http://127.0.0.1:{{port}}/cam#access_token={CAMERA_SECRET}",
]


@pytest.mark.parametrize("source", TOKENS)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_token_in_a_camera_s_address_is_not_told(
    settings, start: Callable[..., Daemon], command: str, source: str
) -> None:
    path, env = settings("file", source=source.format(port=free_port()))
    code, out, err = start(command, "--config", str(path), env=env).finish()
    assert (code, "127.0.0.1" in out + err) == (69, True)
    says_no_secret(out, err)


@pytest.mark.parametrize(
    "override",
    [
        "mqtt.password={}",
        "mqtt.pasword_env={}",
        "mqtt.token=[{}",
        "mqtt.password_file=[{}]",
        "camera.source=[http://a/?token={}]",
    ],
)
def test_a_secret_in_a_wrong_place_is_not_told(start: Callable[..., Daemon], override: str) -> None:
    code, out, err = start("run", "--set", override.format(SECRET)).finish()
    assert code == 78
    says_no_secret(out, err)


def test_a_password_that_is_not_utf_8_is_named_by_its_variable(start: Callable[..., Daemon]) -> None:
    options = [
        "--set",
        "mqtt.broker=127.0.0.1",
        "--set",
        "mqtt.username=u",
        "--set",
        "mqtt.password_env=BROKER_PASSWORD",
    ]
    code, out, err = start("check", *options, env={"BROKER_PASSWORD": f"{SECRET}\udcff"}).finish()
    problem = "mqtt.password_env: the environment variable BROKER_PASSWORD is not UTF-8"
    assert (code, err, out.splitlines()[-1]) == (78, "", f"broker     FAIL  {problem}")


def test_an_empty_password_file_is_told_and_no_mark_of_an_editor_is_part_of_one(start, tmp_path: Path) -> None:
    path = tmp_path / "password"
    options = ["--set", "mqtt.broker=127.0.0.1", "--set", "mqtt.username=u", "--set", f"mqtt.password_file={path}"]
    path.write_bytes(b"\n")
    code, _, err = start("run", *options).finish()
    problem = f"mqtt.password_file: {path}: is empty; write the password into it, or leave mqtt.password_file out"
    assert (code, err) == (78, f"emotiond: {problem}\n")
    path.write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")  # as Windows' Notepad writes it
    assert MqttConfig(username="u", password_file=path).password == SECRET


def test_a_password_given_as_a_variable_s_name_is_not_told(start: Callable[..., Daemon]) -> None:
    options = ["--set", "mqtt.username=edge", "--set"]
    code, out, err = start("check", *options, f"mqtt.password_env={SECRET}").finish()
    assert (code, "mqtt.password_env" in out + err) == (78, True)
    says_no_secret(out, err)
    assert "BROKER_PASSWORD is not set" in "".join(
        start("check", *options, "mqtt.password_env=BROKER_PASSWORD").finish()[1:]
    )


@pytest.mark.parametrize(
    "override", ["camera.source=rtsp://a:{}@b\0", "camera.source=[rtsp://a:{}@b]", "mqtt.broker=a:{}@b"]
)
def test_a_wrong_option_tells_no_secret(start: Callable[..., Daemon], override: str) -> None:
    code, out, err = start("run", "--set", override.format(SECRET).replace("\0", "\\0")).finish()
    assert code in (69, 78)
    says_no_secret(out, err)


def test_a_daemon_that_loses_its_camera_and_its_broker_tells_no_secret(
    clip_frames: list, settings, broker: Broker, subscribe, start: Callable[..., Daemon]
) -> None:
    camera = MjpegCamera(clip_frames[30:60])
    try:
        subscriber = subscribe(broker.port)
        source = camera.url.replace("//", f"//edge:{CAMERA_SECRET}@")
        path, env = settings("env", source=source, port=broker.port, stale_after_s=1.0)
        daemon = start("run", "--debug", "--config", str(path), env=env)
        wait_for(lambda: subscriber.events(), "a face")
        camera.mode = "refuse"
        broker.kill()
        wait_for(lambda: not camera.clients, "the camera is lost")
        broker.start()
        camera.mode = "run"
        wait_for(lambda: camera.clients, "the camera is back")
        code, out, err = daemon.stop()
    finally:
        camera.close()
    assert code == 0
    assert "127.0.0.1" in err
    says_no_secret(out, err, *(topic + text for topic, text, _ in subscriber.messages))
