"""What tells our own messages from those of another that has our name: a user property, in MQTT 5 only."""

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties

SIGNATURE = "instance"
LENGTHS = 4 + 1 + 2 + 2  # bytes at most: of all properties, the kind of this one, of its name, of its value


def signature(packet: int, signed: str | None, protocol: str) -> Properties | None:
    """The property of a message that says which process sent it; `signer` reads it."""
    if signed is None or protocol != "5":
        return None
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.UserProperty = (SIGNATURE, signed)
    return properties


def signature_size(signed: str | None) -> int:
    """Bytes of the properties of a message, at most."""
    return 1 if signed is None else LENGTHS + len(SIGNATURE.encode()) + len(signed.encode())


def signer(message: paho.MQTTMessage) -> str | None:
    """Which process sent a message, if it says so."""
    return dict(getattr(message.properties, "UserProperty", [])).get(SIGNATURE)
