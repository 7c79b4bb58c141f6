"""docs/schema says what the code does: it is up to date, and real messages and settings hold to it."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from conftest import ROOT, Broker, plain, wait_for
from edge import configfile
from edge.errors import ConfigError

FOLDER = ROOT / "docs/schema"
ASYNCAPI = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
CONFIG_SCHEMA = json.loads((FOLDER / "config.json").read_text())


def closed(schema: Any) -> Any:
    """The same, but for readers who refuse unknown keys: so that a key which the schema does not name is noticed."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        return {**schema, "additionalProperties": False} if "properties" in schema else schema
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


def test_the_committed_documents_are_what_the_code_makes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "docs/schemas.py", tmp_path], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FOLDER.iterdir()}, "run `make schemas`"


def test_what_a_real_run_sends_is_what_the_document_says(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    extra = {"camera.loop": False, "mqtt.stats_interval_s": 1.0}
    code, _, err = start("run", *plain(broker.port, **extra)).finish(timeout=120)
    assert code == 0, err
    wait_for(lambda: "stopped" in subscriber.texts("emotiond/pi/status"), "the end")
    addresses = {
        re.compile(re.sub(r"{\w+}", "[^/]+", channel["address"])): name
        for name, channel in ASYNCAPI["channels"].items()
    }
    heard = set()
    for topic, text, _ in subscriber.messages:
        (name,) = [name for address, name in addresses.items() if address.fullmatch(topic)]
        is_json = ASYNCAPI["components"]["messages"][name]["contentType"] == "application/json"
        message = json.loads(text) if is_json else text
        jsonschema.validate(message, closed(ASYNCAPI["components"]["schemas"][name]))
        if is_json:
            jsonschema.validate(message, closed(json.loads((FOLDER / f"{name}.json").read_text())))
        heard.add(name)
    sent = {name for name, operation in ASYNCAPI["operations"].items() if operation["action"] == "send"}
    assert heard == sent - {"snapshot"}  # which nobody asked for


def test_a_message_that_is_not_ours_is_refused() -> None:
    schema = json.loads((FOLDER / "emotion.json").read_text())
    good = {"v": 1, "device": "pi", "camera": "c", "emotion": "happy", "confidence": 0.9, "faces": 1}
    good["at"] = "2026-11-21T08:20:48.371Z"
    jsonschema.validate({**good, "emotion": None, "confidence": None, "new_key": 1}, schema)
    for key, wrong in {"v": 2, "emotion": "cheerful", "faces": -1, "at": "2026-11-21 08:20:48"}.items():
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, key: wrong}, schema)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            here = [part["$ref"]] if "$ref" in part else []
            return here + [each for value in part.values() for each in references(value)]
        return [each for value in part for each in references(value)] if isinstance(part, list) else []

    found = references(ASYNCAPI)
    assert len(found) >= 2 * len(ASYNCAPI["channels"])
    for reference in found:
        part = ASYNCAPI
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]


def test_the_settings_file_holds_to_its_schema_and_editors_find_it() -> None:
    text = (ROOT / "config.yaml").read_text()
    jsonschema.validate(yaml.safe_load(text), CONFIG_SCHEMA)
    (path,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", text, re.M)
    assert ROOT / path == FOLDER / "config.json"
    for section, values in yaml.safe_load(text).items():
        (whole, null) = CONFIG_SCHEMA["properties"][section]["anyOf"]
        assert null == {"type": "null"}
        kinds = [kind["$ref"].rpartition("/")[2] for kind in whole.get("oneOf", [whole])]
        for key in values:
            assert any(key in CONFIG_SCHEMA["$defs"][kind]["properties"] for kind in kinds), f"{section}.{key}"
    assert "degrees C" in CONFIG_SCHEMA["$defs"]["PaceConfig"]["properties"]["hot_c"]["description"]


GOOD = [
    {},
    {"mqtt": None},
    {"camera": {"source": 0}},
    {"camera": {"source": "rtsp://camera/1", "fps": 15}},
    {"search": {"region": [0, 0.2, 1, 1]}},
    {"mqtt": {"broker": None}},
    {"pace": {"hot_c": None}},
    {"spool": {"folder": "/var/lib/emotiond"}},
    {"cameras": None},
    {"camera": None, "cameras": [{"name": "a", "source": 0}, {"name": "b", "source": "x.mkv", "search": None}]},
    {"cameras": [{"name": "a", "detector": {"min_face": 64}, "search": {"region": [0, 0, 1, 0.5]}}]},
]
BAD = [
    {"camara": {}},
    {"camera": {"sorce": 0}},
    {"camera": {"source": -1}},
    {"camera": {"source": ""}},
    {"camera": {"width": "640"}},
    {"search": {"region": [0, 0.2, 1]}},
    {"mqtt": {"port": "1883"}},
    {"mqtt": {"port": 0}},
    {"mqtt": {"protocol": "3"}},
    {"mqtt": 3},
    {"tracker": {"box_smoothing": 1}},
    {"cameras": []},
    {"cameras": {"a": {}}},
    {"cameras": [{"sorce": 0}]},
    {"cameras": [{"source": -1}]},
    {"cameras": [{"mqtt": {}}]},
    {"cameras": [{"detector": {"min_face": 0}}]},
    {"camera": {}, "cameras": [{"name": "a"}]},
]


@pytest.mark.parametrize("tree", GOOD + BAD, ids=json.dumps)
def test_schema_and_program_agree_about_settings(tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    if tree in GOOD:
        jsonschema.validate(copy.deepcopy(tree), CONFIG_SCHEMA)
        configfile.load(path)
    else:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tree, CONFIG_SCHEMA)
        with pytest.raises(ConfigError):
            configfile.load(path)
