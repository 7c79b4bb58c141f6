"""Makes docs/schema from the code's types: JSON Schemas of the messages and of config.yaml, and an AsyncAPI 3 document.

python docs/schemas.py [DIR]      default: docs/schema; a test fails while the committed ones differ
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from edge import __version__
from edge.config import Config
from edge.contract import (
    CameraStatus,
    DeviceStatus,
    EmotionMessage,
    EventMessage,
    FacesMessage,
    StatsMessage,
)
from edge.messages import Topics

ROOT = Path(__file__).parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MESSAGES = {"events": EventMessage, "faces": FacesMessage, "emotion": EmotionMessage, "stats": StatsMessage}
WORDS = {"device_status": DeviceStatus, "camera_status": CameraStatus}
TOPICS, CAMERA = Topics("emotiond", "{device}"), "{camera}"
# name: (topic, QoS, retained, sent by the daemon or received, what it is)
CHANNELS: dict[str, tuple[str, int, bool, str, str]] = {
    "device_status": (TOPICS.status, 1, True, "send", "`stopped`: clean exit; `offline`: the last will"),
    "camera_status": (
        TOPICS.of_camera(CAMERA, "status"),
        1,
        True,
        "send",
        "`offline`: no frame for camera.stale_after_s",
    ),
    "events": (
        TOPICS.of_camera(CAMERA, "events"),
        1,
        False,
        "send",
        "One message per change of one face, at least once",
    ),
    "emotion": (
        TOPICS.of_camera(CAMERA, "emotion"),
        1,
        True,
        "send",
        "When the dominant emotion or how many faces changes",
    ),
    "faces": (TOPICS.of_camera(CAMERA, "faces"), 0, False, "send", "At most mqtt.live_rate_hz a second"),
    "stats": (TOPICS.stats, 0, False, "send", "Every mqtt.stats_interval_s"),
    "pause": (TOPICS.command("pause"), 1, False, "receive", "Any payload, but `off` resumes; with mqtt.commands: true"),
    "resume": (TOPICS.command("resume"), 1, False, "receive", "Any payload; with mqtt.commands: true"),
    "camera_pause": (
        TOPICS.of_camera(CAMERA, "pause"),
        1,
        False,
        "receive",
        "Of several cameras this one; as pause",
    ),
    "camera_resume": (
        TOPICS.of_camera(CAMERA, "resume"),
        1,
        False,
        "receive",
        "Of several cameras this one; as resume",
    ),
    "reload": (TOPICS.command("reload"), 1, False, "receive", "Reads the settings anew; with mqtt.commands: true"),
    "look": (TOPICS.of_camera(CAMERA, "look"), 0, False, "receive", "Any payload; asks for pictures for 10 s"),
    "snapshot": (
        TOPICS.of_camera(CAMERA, "snapshot"),
        0,
        False,
        "send",
        "A picture to who asks; with mqtt.snapshots: true",
    ),
}
PICTURES = {"snapshot"}
PARAMETERS = {
    "device": {"description": "The device's name (`device` in its settings)"},
    "camera": {"description": "The camera's name (`camera.name`, or in `cameras`)"},
}


def message_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a message."""
    return {"$schema": DIALECT, **TypeAdapter(MESSAGES[name]).json_schema()}


def config_schema() -> dict[str, Any]:
    """The JSON Schema of config.yaml, whose comments explain the keys in an editor. Unknown keys are refused."""
    schema = Config.model_json_schema()
    comments = {**_comments(), "cameras": "Several cameras, instead of camera, each with settings of its own"}
    for section in Config.model_fields:
        # Of a section with kinds, each kind has a definition.
        names = re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema["properties"][section].get("oneOf", [])))
        names = names or re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema["properties"][section]))
        for name in names:
            for key, property_ in schema["$defs"][name].get("properties", {}).items():
                if comment := comments.get(f"{section}.{key}") or comments.get(f"camera.{key}"):
                    property_["description"] = comment
        if names:
            # An empty section is null in YAML, and means the defaults.
            schema["properties"][section] = {
                "anyOf": [schema["properties"][section], {"type": "null"}],
                "description": comments.get(section) or schema["$defs"][names[0]]["description"],
            }
    for name in ("CameraConfig", "CameraEntry"):
        source = schema["$defs"][name]["properties"]["source"]
        source["anyOf"] = [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]
    cameras = {"type": "array", "items": {"$ref": "#/$defs/CameraEntry"}, "minItems": 1}
    schema["properties"]["cameras"] = {"anyOf": [cameras, {"type": "null"}], "description": comments["cameras"]}
    schema["not"] = {
        "properties": {"camera": {"type": "object"}, "cameras": {"type": "array"}},
        "required": ["camera", "cameras"],
    }
    region = schema["$defs"]["SearchConfig"]["properties"]["region"]
    side = {"type": "number", "minimum": 0, "maximum": 1}
    region["anyOf"] = [{"type": "array", "items": side, "minItems": 4, "maxItems": 4}, {"type": "null"}]
    # The host's name, where it is made.
    schema["properties"]["device"].pop("default", None)
    return {"$schema": DIALECT, "title": "emotiond's settings", **{k: v for k, v in schema.items() if k != "title"}}


def _comments() -> dict[str, str]:
    """Dotted key to the comment beside it in config.yaml."""
    found: dict[str, str] = {}
    section = ""
    for line in (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)(\w+):[^#]*(?:# (.*))?$", line)
        if match is None:
            continue
        indent, key, comment = match.groups()
        section = section if indent else key
        if comment:
            found[f"{section}.{key}" if indent else key] = comment
    return found


def asyncapi() -> dict[str, Any]:
    """What the daemon sends and hears, as AsyncAPI 3."""
    schemas = {name: TypeAdapter(words).json_schema() for name, words in WORDS.items()}
    schemas |= {name: _inlined(message_schema(name)) for name in MESSAGES}
    channels, operations, messages = {}, {}, {}
    for name, (topic, qos, retained, action, summary) in CHANNELS.items():
        kind = "application/json" if name in MESSAGES else "image/jpeg" if name in PICTURES else "text/plain"
        other = {"type": "string", "format": "binary"} if name in PICTURES else {"type": "string"}
        channels[name] = {
            "address": topic,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "parameters": {key: value for key, value in PARAMETERS.items() if f"{{{key}}}" in topic},
        }
        operations[name] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": summary,
            "bindings": {"mqtt": {"qos": qos, "retain": retained, "bindingVersion": "0.2.0"}},
        }
        messages[name] = {
            "contentType": kind,
            "payload": {"$ref": f"#/components/schemas/{name}"} if name in schemas else other,
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "emotiond",
            "version": __version__,
            "description": "Apparent emotions of the faces before a camera, over MQTT. `emotiond` at the start of a "
            "topic is mqtt.base_topic. Times are UTC.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without $defs: in a larger document their references would point elsewhere."""
    definitions = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                rest = {key: value for key, value in part.items() if key != "$ref"}
                return inline({**definitions[part["$ref"].rpartition("/")[2]], **rest})
            return {key: inline(value) for key, value in part.items() if key not in ("$defs", "$schema")}
        return [inline(each) for each in part] if isinstance(part, list) else part

    return inline(schema)


def documents() -> dict[str, str]:
    """File name to content."""
    schemas = {f"{name}.json": message_schema(name) for name in MESSAGES} | {"config.json": config_schema()}
    made = {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in schemas.items()}
    head = "# Made by docs/schemas.py from the code's own types.\n"
    return made | {"asyncapi.yaml": head + yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120)}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/schema"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")
