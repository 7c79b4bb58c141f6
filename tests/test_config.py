"""Every mistake in the settings is one line that names file, key and way out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT
from edge.address import without_secret
from edge.config import Config, MqttConfig, MtcnnConfig
from edge.configfile import load
from edge.errors import ConfigError


def load_text(tmp_path: Path, text: str, *overrides: str, source: str | None = None) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load(path, overrides, source)


def error_of(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(tmp_path / "c.yaml"), "FILE")


def test_the_project_file_shows_every_key_with_its_default() -> None:
    tree = yaml.safe_load((ROOT / "config.yaml").read_text())
    defaults = Config(device="x").model_dump(exclude={"device", "cameras"})
    assert tree == defaults
    text = (ROOT / "config.yaml").read_text()
    assert "# device:" in text
    # Also as it would be without the comment marks, and `camera`.
    shown = re.search("^# cameras:.*\n(?:#  .*\n)+", text, re.M)[0]
    several = Config.model_validate_json(json.dumps(yaml.safe_load(re.sub("^# ?", "", shown, flags=re.M))))
    assert [each.camera.name for each in several.per_camera] == ["front", "door"]


def test_an_empty_file_and_empty_sections_mean_the_defaults(tmp_path: Path) -> None:
    assert load_text(tmp_path, "") == load_text(tmp_path, "camera:\nmqtt:\n") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("detector: {scale_facter: 1.2}", "FILE: detector.scale_facter: unknown key, did you mean scale_factor?"),
        ("detectr: {}", "FILE: detectr: unknown key, did you mean detector?"),
        ("mqtt: {xyz: 1}", "FILE: mqtt.xyz: unknown key, known keys: broker, port,"),
        ("mqtt: {port: '1883'}", 'FILE: mqtt.port: must be a valid integer, not "1883"'),
        ("mqtt: {port: 65536}", "FILE: mqtt.port: must be less than or equal to 65535, not 65536"),
        ("mqtt: {protocol: 4}", "FILE: mqtt.protocol: must be '5' or '3.1.1', not 4"),
        ("mqtt: {broker: 'mqtt://x'}", "FILE: mqtt.broker: must be 'embedded', or a host's name"),
        ("mqtt: {broker: ' localhost'}", "FILE: mqtt.broker: must be 'embedded', or a host's name"),
        ('mqtt: {broker: ["a", "b\\0"]}', r"FILE: mqtt.broker: 'b\x00': must be a host's name"),
        ("mqtt: {base_topic: 'a/+'}", "FILE: mqtt.base_topic: must be 1 to 64 printable characters without + # / $"),
        ("mqtt: {password_env: A}", "FILE: mqtt: a password needs a username"),
        ("mqtt: {username: u, password_env: A, password_file: b}", "FILE: mqtt: give one of password_file"),
        ("mqtt: {cert_file: a}", "FILE: mqtt: cert_file and key_file go together"),
        ("mqtt: {tls: false, ca_file: a}", "FILE: mqtt: ca_file and cert_file need tls: true"),
        ("mqtt: {retry_min_s: 99}", "FILE: mqtt: retry_min_s must not be larger than retry_max_s"),
        ("camera: {source: -1}", "FILE: camera.source: must be builtin, a webcam's number from 0, a file"),
        ("camera: {source: [1]}", "FILE: camera.source: must be builtin"),
        ("camera: {loop: 1}", "FILE: camera.loop: must be a valid boolean, not 1"),
        ("camera: 3", "FILE: camera: must be an object, not 3"),
        ("emotion: {min_confidence: 1.1}", "FILE: emotion.min_confidence: must be less than or equal to 1, not 1.1"),
        ("emotion: {dwell_s: .nan}", "FILE: emotion.dwell_s: must be a finite number"),
        ("emotion: {dwell_s: -1}\nmodel: {threads: 0}", "(and 1 more)"),
        ("- a", "FILE: must be a mapping of keys to values"),
        ("a: b: c", "FILE: line 1, column 5: mapping values are not allowed here"),
        ("camera:\n\tname: x", "FILE: line 2, column 1: found character"),
        ("x: &a 1\ny: *a", "FILE: line 2, column 4: aliases (*name) are not used here"),
        ("? a:\n: 1", "FILE: line 1, column 3: a key must be one word"),
        ("mqtt: {port: 1}\nmqtt: {port: 2}", "FILE: line 2, column 1: mqtt stands here twice"),
        ("2024-01-01: x", "FILE: holds values that no setting can have: keys must be"),
        ('device: "\\ud800"', "FILE: holds text that is not Unicode"),
        ('model: {path: "a\\0b"}', "FILE: model.path: must be a file's name, without NUL"),
        ("device: 12", "FILE: device: must be a valid string, not 12"),
        ("mqtt: {protocol: 5}", "FILE: mqtt.protocol: must be '5' or '3.1.1', not 5"),
        ("\x00", "FILE: not YAML: unacceptable character"),
        ("cameras: []", "FILE: cameras: must name at least one camera"),
        ("cameras: 3", "FILE: cameras: must be a list, not 3"),
        ("cameras: [3]", "FILE: cameras.#1: must be an object, not 3"),
        ("cameras: [{name: a}, {name: b}, {name: a}]", "FILE: cameras: 2 are named a: give each a name of its own"),
        (
            "cameras: [{}, {}]",
            "FILE: cameras: 2 are named camera: give each a name of its own",
        ),
        ("cameras: [{name: a}, {nam: b}]", "FILE: cameras.#2.nam: unknown key, did you mean name?"),
        ("cameras: [{name: a, fsp: 3}]", "FILE: cameras.a.fsp: unknown key, did you mean fps?"),
        ("cameras: [{name: a, source: -1}]", "FILE: cameras.a.source: must be builtin"),
        ("cameras: [{name: a, retry_min_s: 99}]", "FILE: cameras.a: retry_min_s must not be larger than retry_max_s"),
        ("cameras: [{name: a, mqtt: {}}]", "FILE: cameras.a.mqtt: unknown key, known keys: name, source,"),
        (
            "cameras: [{name: a, detector: {min_fase: 3}}]",
            "FILE: cameras.a.detector.min_fase: unknown key, did",
        ),
        ("cameras: [{name: a, detector: {kind: x}}]", "FILE: cameras.a.detector.kind: must be one of haar, mtcnn"),
        ("cameras: [{name: a, search: {region: 3}}]", "FILE: cameras.a.search.region: must be [left, top, right,"),
        ("cameras: [{name: a, emotion: {dwell_s: -1}}]", "FILE: cameras.a.emotion.dwell_s: must be greater than"),
        ("cameras: [{name: cmd}]", "FILE: cameras.cmd.name: must not be cmd"),
        ("camera: {}\ncameras: [{name: a}]", "FILE: camera and cameras: one of them must go"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_every_key_refuses_a_wrong_value(tmp_path: Path) -> None:
    keys = [
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in Config(device="x").model_dump().items()
        for key in (value if isinstance(value, dict) else [""])
    ]
    assert len(keys) > 40
    for key in keys:
        named = f"{key}.#1" if key == "cameras" else key
        shown = "..." if key.startswith("mqtt.password") or key in ("model.public_key", "mqtt.key_file") else "[[]]"
        assert f"--set {key}={shown}: {named}: must" in error_of(tmp_path, "", f"{key}=[[]]")


def out_of_bounds(schema: dict) -> list[object]:
    """Values of the right type, each just past one of the limits that a setting's JSON schema states."""
    values: list[object] = []
    for kind in [schema, *schema.get("anyOf", [])]:
        step = 1 if kind.get("type") == "integer" else 0.001
        values += [kind["minimum"] - step] if "minimum" in kind else []
        values += [kind["maximum"] + step] if "maximum" in kind else []
        values += [kind[limit] for limit in ("exclusiveMinimum", "exclusiveMaximum") if limit in kind]
        values += ["x" * (kind["maxLength"] + 1)] if "maxLength" in kind else []
        values += [""] if "minLength" in kind or "pattern" in kind else []
        values += ["no-such"] if "enum" in kind or "const" in kind else []
    return values


def test_every_limit_of_every_key_holds_also_of_one_camera_of_several(tmp_path: Path) -> None:
    parts = Config.model_json_schema()["$defs"]
    sections = {name: model for name, model in parts.items() if name != "CameraEntry"}
    tried = 0
    for name, model in sections.items():
        section = "detector" if name in ("HaarConfig", "MtcnnConfig") else name.removesuffix("Config").lower()
        fixed = {"kind": "mtcnn"} if name == "MtcnnConfig" else {}
        for key, schema in model["properties"].items():
            for value in out_of_bounds(schema):
                text = json.dumps({section: {**fixed, key: value}})
                assert f"FILE: {section}.{key}: must" in error_of(tmp_path, text), text
                tried += 1
                if section == "camera":
                    text = json.dumps({"cameras": [{"name": "front", key: value}]})
                elif section in ("detector", "search", "tracker", "emotion"):
                    text = json.dumps({"cameras": [{"name": "front", section: {**fixed, key: value}}]})
                else:
                    continue
                assert f"{key}: must" in error_of(tmp_path, text), text
    assert tried > 80


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: cannot read the settings: No such file"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("how", [{"overrides": ["detector.kind=mtcnn"]}, {"detector": "mtcnn"}])
def test_another_detector_has_its_own_defaults(how: dict[str, Any]) -> None:
    config = load(ROOT / "config.yaml", **how)  # which has all settings of haar
    assert config.detector == MtcnnConfig(kind="mtcnn")
    again = load(ROOT / "config.yaml", overrides=["detector.min_face=60", "detector.kind=haar"])
    assert again.detector.min_face == 60


def test_overrides_win_over_the_file_and_the_source_over_all(tmp_path: Path) -> None:
    config = load_text(tmp_path, "camera: {source: a.mkv, name: door}", "camera.source=b.mkv", source="3")
    assert (config.camera.source, config.camera.name) == (3, "door")


def test_what_is_not_said_of_one_of_several_cameras_is_as_for_all(tmp_path: Path) -> None:
    text = """
detector: {min_face: 60, scale_factor: 1.3}
cameras:
  - {name: front, source: 0}
  - {name: door, source: 1, max_fps: 5, detector: {min_face: 90}, search: {region: [0, 0, 1, 0.5]}}
"""
    front, door = load_text(tmp_path, text, "cameras.front.emotion.dwell_s=2.0", "tracker.coast_s=3.0").per_camera
    assert (front.camera.source, front.camera.max_fps, door.camera.max_fps) == (0, None, 5)
    assert (front.detector.min_face, door.detector.min_face, door.detector.scale_factor) == (60, 90, 1.3)
    assert (front.search.region, door.search.region) == (None, (0, 0, 1, 0.5))
    assert (front.emotion.dwell_s, door.emotion.dwell_s) == (2.0, 0.5)
    assert front.tracker.coast_s == door.tracker.coast_s == 3.0
    (only,) = load_text(tmp_path, text, source="7").per_camera
    assert (only.camera.name, only.camera.source) == ("camera", 7)


def test_settings_that_go_together_are_given_in_any_order(tmp_path: Path) -> None:
    mqtt = load_text(
        tmp_path, "", "mqtt.password_env=A", "mqtt.cert_file=a", "mqtt.key_file=b", "mqtt.username=me"
    ).mqtt
    assert (str(mqtt.cert_file), str(mqtt.key_file), mqtt.username) == ("a", "b", "me")
    alone = error_of(tmp_path, "", "mqtt.username=me", "mqtt.cert_file=a", "device=x")
    assert alone.startswith("--set mqtt.cert_file=a: mqtt: cert_file and key_file go together")
    wrong = error_of(tmp_path, "", "mqtt.cert_file=a", "mqtt.key_file=b", "mqtt.prt=1")
    assert wrong.startswith("--set mqtt.prt=1: mqtt.prt: unknown key, did you mean port?")


@pytest.mark.parametrize(
    "override", ["cameras.back.fps=1", "cameras.front=1", "cameras.front.fsp=1", "camera.fps=1", "cameras.=1"]
)
def test_an_override_of_a_camera_that_cannot_be_is_named(tmp_path: Path, override: str) -> None:
    assert override in error_of(tmp_path, "cameras: [{name: front}]", override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("camera.sorce=1", "--set camera.sorce=1: camera.sorce: unknown key, did you mean source?"),
        ("camera", "--set camera: must look like section.key=value"),
        ("=1", "must look like"),
        ("a..b=1", "must look like"),
        ("mqtt.port={", "--set mqtt.port={: line 1, column"),
        ("mqtt.port=1\n2", "--set mqtt.port=1\\n2: mqtt.port: "),
        ('log={"\n\ntleh"}', "log.\\ntleh: unknown key, known keys: level"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in error_of(tmp_path, "", override)


def test_a_source_is_shown_without_its_password() -> None:
    assert without_secret("rtsp://user:pa/ss@w@host:554/cam") == "rtsp://host:554/cam"
    assert without_secret("user:pass@host:1883") == "host:1883"
    assert without_secret(0) == "0"
    assert without_secret("a@b.mkv") == "a@b.mkv"


def test_tls_is_on_unless_the_broker_is_on_this_machine() -> None:
    assert not MqttConfig().use_tls
    assert not MqttConfig(broker="localhost").use_tls
    assert not MqttConfig(broker="[::1]").use_tls
    assert MqttConfig(broker="broker.example").use_tls
    assert not MqttConfig(broker="broker.example", tls=False).use_tls
    assert MqttConfig(broker="localhost", tls=True).use_tls


def test_the_password_comes_from_file_environment_or_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    monkeypatch.setenv("PW", "s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    sources = [{"password_file": tmp_path / "pw"}, {"password_env": "PW"}, {"password_credential": "pw"}]
    assert [MqttConfig(username="u", **source).password for source in sources] == ["s3cret"] * 3
    assert MqttConfig(username="u").password is None


@pytest.mark.parametrize(
    "source", [{"password_file": Path("/nowhere/pw")}, {"password_env": "NOT_SET"}, {"password_credential": "pw"}]
)
def test_a_password_that_is_not_there_is_named(source: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=f"mqtt.{next(iter(source))}: "):
        _ = MqttConfig(username="u", **source).password
