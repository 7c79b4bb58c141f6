"""What a running daemon is to go on with: made whole, with all that can fail, before any of it is used."""

from dataclasses import dataclass

from edge.broker import EmbeddedBroker
from edge.channel import Channel
from edge.classifier import TfliteClassifier
from edge.config import Config, MqttConfig
from edge.connection import Dialer
from edge.pipeline import FrameSource
from edge.search import FaceSearch


@dataclass(slots=True)
class CameraPlan:
    """One camera. A part that is None serves on as it is, in the channel that goes on."""

    config: Config
    """As it is for this camera."""
    channel: Channel | None
    search: FaceSearch | None
    source: FrameSource | None


@dataclass(slots=True)
class Plan:
    """New settings and the parts that they need, made but not begun. A part that is None serves on as it is."""

    config: Config
    cameras: list[CameraPlan]
    classifier: TfliteClassifier | None
    dialer: Dialer | None
    mqtt: MqttConfig
    """`config.mqtt`, with the address of the embedded broker if there is one."""
    broker: EmbeddedBroker | None
    """The embedded one, if it is used. It runs already: it may fail to."""
