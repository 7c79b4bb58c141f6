"""Home Assistant's own judgement of a discovery payload; run by a Python that has its package (not a test's own).

    python home_assistant.py PAYLOAD_JSON MESSAGES_JSON

Parses the payload as its MQTT integration does, validates every component with its platform's schema, and renders the
value templates with the messages ([[topic, text], ...]). Writes {component: {"platform": ..., "states": [...]}}.
"""

import asyncio
import importlib
import json
import sys
import tempfile
from pathlib import Path

from homeassistant.components.mqtt import discovery
from homeassistant.core import HomeAssistant
from homeassistant.helpers.template import Template


async def judge(payload: str, messages: list[list[str]]) -> dict[str, dict]:
    hass = HomeAssistant(tempfile.mkdtemp())
    found = discovery._parse_device_payload(hass, payload, "emotiond", None)
    assert found, "refused as a whole; the log says why"
    judged = {}
    for key, component in found["components"].items():
        platform = component.pop("platform")
        states = []
        if component:
            assert component["unique_id"]
            whole = discovery.MQTTDiscoveryPayload({**component, "device": found["device"], "origin": found["origin"]})
            schema = importlib.import_module(f"homeassistant.components.mqtt.{platform}").DISCOVERY_SCHEMA
            config = schema(dict(whole))
            for topic, text in messages:
                if topic == config["state_topic"]:
                    template = Template(config["value_template"].template, hass) if "value_template" in config else None
                    state = template.async_render_with_possible_json_value(text, "?") if template else text
                    states.append(state)
        judged[key] = {"platform": platform, "states": states}
    await hass.async_stop(force=True)
    return judged


if __name__ == "__main__":
    payload, messages = (Path(path).read_text() for path in sys.argv[1:3])
    print(json.dumps(asyncio.run(judge(payload, json.loads(messages)))))
