"""`emotiond check`: proves model, camera and broker one by one, as the daemon would use them."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TextIO

import numpy as np

from edge.address import without_secret
from edge.app import build_detector, build_source, naming_source, refuse_for_a_device, sees_colour
from edge.broker import EmbeddedBroker
from edge.capture import webcams_found
from edge.classifier import TfliteClassifier, installed_runtimes
from edge.config import CameraConfig, Config
from edge.connection import Dialer, passing_client_id
from edge.console import shown
from edge.errors import ConfigError, EmotiondError, EndOfStream, ServiceUnavailableError
from edge.eventfile import NAME as EVENTS
from edge.eventfile import DamagedError, EventFile, InUseError
from edge.golden import NAME, prove
from edge.messages import Topics
from edge.picamera import modules_found
from edge.preprocess import FACE_SIZE
from edge.statefolder import state_folder

FRAME_TIMEOUT_S = 5.0


def check(config: Config, out: TextIO) -> int:
    """Write a table of what holds; returns 0, or the exit code of the first thing that does not."""
    first_failure = 0
    proofs = list(_proofs(config))
    width = max(10, *(len(name) for name, _ in proofs))
    for name, attempt in proofs:
        try:
            result, mark = attempt(), "ok"
        except EmotiondError as error:
            result, mark = str(error), "FAIL"
            first_failure = first_failure or error.exit_code
        out.write(f"{name:<{width}} {mark:<5} {shown(result)}\n")
        out.flush()
    return first_failure


def _proofs(config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    each = config.per_camera
    names = ", ".join(one.camera.name for one in each)
    yield "settings", lambda: f"device {config.device}, camera{'s' * (len(each) > 1)} {names}"
    yield (
        "runtime",
        lambda: f"installed: {', '.join(installed_runtimes()) or 'none'}; model.runtime: {config.model.runtime}",
    )
    yield "model", lambda: _prove_model(config)
    yield "cameras", _list_cameras
    for one in each:
        which = "" if config.cameras is None else f" {one.camera.name}"
        if config.cameras is None or one.detector != config.detector or one is each[0]:
            yield f"detector{which}", partial(_prove_detector, one)
        yield f"camera{which}", partial(_prove_camera, config, one.camera)
    yield "spool", lambda: _prove_spool(config)
    if config.metrics.file is not None or config.metrics.http_port is not None:
        yield "metrics", lambda: _prove_metrics(config)
    yield "broker", lambda: _prove_broker(config)


def _prove_model(config: Config) -> str:
    classifier = TfliteClassifier.from_config(config.model)
    face = np.full((FACE_SIZE, FACE_SIZE), 128, np.uint8)
    classifier.classify([face])
    began_at = time.perf_counter()
    classifier.classify([face])
    took_ms = (time.perf_counter() - began_at) * 1000
    proof = "gives the scores that it must" if prove(classifier) else f"no {NAME} beside it to prove it with"
    return f"{classifier.path.name} {classifier.model_id} on {classifier.runtime}, {took_ms:.1f} ms a face, {proof}"


def _prove_detector(config: Config) -> str:
    refuse_for_a_device(config.detector)
    build_detector(config.detector)
    return config.detector.kind


def _list_cameras() -> str:
    found = webcams_found() + modules_found()
    return f"found: {', '.join(found)}" if found else "none found in /dev/v4l and by picamera2"


def _prove_camera(config: Config, camera: CameraConfig) -> str:
    with naming_source(config, camera.name), build_source(camera, colour=sees_colour(config)) as source:
        deadline = time.monotonic() + FRAME_TIMEOUT_S
        try:
            while (frame := source.take(0.2)) is None and time.monotonic() < deadline:
                pass
        except EndOfStream:
            frame = None
        name = without_secret(camera.source)
        if frame is None:
            raise ServiceUnavailableError(f"camera.source: {name}: opens, but gives no frame")
    return f"{name}, {frame.size[0]}x{frame.size[1]} px"


def _prove_spool(config: Config) -> str:
    folder = state_folder(config.spool)
    if folder is None:
        return "events wait in memory only (spool.folder: null; a service keeps them in its StateDirectory)"
    try:
        if not (folder / EVENTS).exists():
            # Not made here: it would be the user's who checks, root's perhaps, and not the daemon's.
            there = next(place for place in (folder, *folder.parents) if place.exists())
            if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
                raise ConfigError(f"spool.folder: {folder}: cannot be used: {there} is no folder to write to")
            return f"{folder}, 0 events wait"
        file = EventFile(folder)
    except InUseError:
        return f"{folder}, in use by a running emotiond"
    except (OSError, sqlite3.Error, DamagedError) as error:
        raise ConfigError(f"spool.folder: {folder}: cannot be used: {error}") from None
    file.close()
    return f"{folder}, {file.count} events wait"


def _prove_metrics(config: Config) -> str:
    import edge.metrics  # noqa: F401 - of an extra: without it the daemon does not start

    # Not listened: the port may be that of the daemon that runs.
    file, port = config.metrics.file, config.metrics.http_port
    places = [str(file)] * (file is not None) + [f"{config.metrics.http_host}:{port}"] * (port is not None)
    return f"to {', '.join(places)}"


def _prove_broker(config: Config) -> str:
    if config.mqtt.broker is None:
        return "none wanted (mqtt.broker: null)"
    with ExitStack() as stack:
        settings, kind = config.mqtt, ""
        if settings.embedded:
            broker = stack.enter_context(EmbeddedBroker(settings.port))
            settings, kind = broker.settings(settings), f"embedded {broker.kind} "
        dialer = Dialer(settings, passing_client_id("check"))
        status = Topics(settings.base_topic, config.device).status
        # With the daemon's last will: a broker may take everything else. It is not sent, for we leave in order.
        connection = dialer.dial(lambda client, _: client.will_set(status, "offline", qos=1, retain=True))
        connection.close()
    secured = "TLS" if settings.use_tls else "no TLS"
    return f"{kind}{dialer.host}:{dialer.port}, MQTT {connection.protocol}, {secured}"
