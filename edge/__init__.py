"""The device side of emotiond: camera stream in, emotion events over MQTT out. Never imports TensorFlow."""

import os

# OpenCV and FFmpeg write lines of their own about a camera that is away, a damaged file, a missing codec; emotiond says
# it once, in its own words.
# OpenCV reads these when it is loaded.
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
# Its threads would turn round and round waiting for more to do, on the cores that others need meanwhile.
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER", "0")
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_MAIN", "0")

__version__ = "0.1.0"
