"""The device side of emotiond: camera stream in, emotion events over MQTT out. Never imports TensorFlow."""

__version__ = "0.1.0"
