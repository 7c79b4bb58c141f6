"""Frames a second, latency, processor time, memory and cold start, beside what the machine could do at best and what
such projects do.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import clips
from benchmarks.contenders import has_keras, network
from benchmarks.daemon import Daemon, Inbox
from benchmarks.measure import in_turn, ratio, stamp
from benchmarks.stream import Stream
from benchmarks.worker import Worker
from edge.broker import EmbeddedBroker
from edge.config import MqttConfig
from edge.errors import EmotiondError
from edge.watch import Subscriber

ROUNDS, LIVE_S, COLD_STARTS = 4, 5.0, 3
STREAM_FPS = 30.0
TURN_S = 0.7  # at least, of each contender at full speed
NAIVE_FRAMES = 12  # a turn: it is many times slower
PATIENCE_S = 30.0  # for a first event


def run(
    named: Sequence[str],
    overrides: Sequence[str] = (),
    rounds: int = ROUNDS,
    seconds: float = LIVE_S,
    cold_starts: int = COLD_STARTS,
    keras: bool = True,
) -> dict[str, Any]:
    """Measure every clip; returns `clips`, a row each, and `total`, medians over the clips and their ratios.

    rounds: turns of each contender on the file. seconds: on the stream, that count; as many before them do not.
    keras: whether the naive loop takes part, which needs it. Raises EmotiondError for a clip that cannot be read, or if
    nothing that should see a face does.
    """
    with ExitStack() as stack:
        chosen = stack.enter_context(clips.opened(named))
        workers = {
            "pipeline": stack.enter_context(Worker("pipeline", overrides=list(overrides))),
            "float32": stack.enter_context(
                Worker("pipeline", overrides=[*overrides, f"model.path={network('float32')}"])
            ),
            "decode": stack.enter_context(Worker("decode")),
        }
        if keras and has_keras():
            workers["naive"] = stack.enter_context(Worker("naive"))
        reader = stack.enter_context(Worker("reader"))
        broker = stack.enter_context(EmbeddedBroker(None)).settings(MqttConfig())
        inbox = Inbox()
        stack.enter_context(Subscriber(broker, inbox.write, everything=True, raw=True))
        rows = []
        for clip in clips.each(chosen):
            row = {"clip": clip.name, **_full_speed(workers, clip, rounds)}
            row |= _live(reader, clip, broker, inbox, overrides, seconds)
            row["cold_start_s"] = _cold_start(clip, broker, inbox, overrides, cold_starts)
            rows.append(row)
    return {**stamp(), "overrides": list(overrides), "clips": rows, "total": _total(rows)}


def _full_speed(workers: dict[str, Worker], clip: clips.Clip, rounds: int) -> dict[str, Any]:
    """Each contender in turn on the file; medians of the rounds."""
    fps: dict[str, list[float]] = {name: [] for name in workers}
    seen: dict[str, float] = {}
    for number, name in enumerate(in_turn(list(workers), rounds)):
        wishes: dict[str, Any] = {"clip": str(clip.path)}
        wishes |= {"frames_max": NAIVE_FRAMES, "offset": number} if name == "naive" else {"seconds": TURN_S}
        measured = workers[name].turn(**wishes)
        if measured["frames"]:
            fps[name].append(measured["frames"] / measured["seconds"])
        seen[name] = measured.get("faces", 0.0)
    median = {name: float(np.median(values)) if values else None for name, values in fps.items()}
    if seen.get("naive", 0) >= 0.5 and not seen["pipeline"]:
        raise EmotiondError(
            f"{clip.name}: the pipeline sees no face where the naive loop does: its speed means nothing"
        )
    return {
        "fps": median["pipeline"],
        "naive_fps": median.get("naive"),
        "decode_fps": median["decode"],
        "float32_fps": median["float32"],
        "over_naive": ratio(median["pipeline"], median.get("naive")),
        "over_decode": ratio(median["pipeline"], median["decode"]),
        "int8_over_float32": ratio(median["pipeline"], median["float32"]),
        "faces": seen["pipeline"],
    }


def _live(
    reader: Worker, clip: clips.Clip, broker: MqttConfig, inbox: Inbox, overrides: Sequence[str], live_s: float
) -> dict[str, Any]:
    """The daemon on the clip as a stream, and at the same time a program that only reads the stream.

    One after the other, how fast the machine is at the moment would tell more than what they do.
    """
    with Stream(clip.path, STREAM_FPS) as stream:
        fixed = [f"mqtt.stats_interval_s={live_s}", *overrides]
        with Daemon(stream.url, broker, inbox, fixed) as daemon:
            warm = daemon.message("stats", live_s)
            cpu_before_s, began_at = daemon.cpu_s(), time.monotonic()
            alone = reader.turn(url=stream.url, seconds=live_s)
            cpu_s, took_s = daemon.cpu_s() - cpu_before_s, time.monotonic() - began_at
            measured = daemon.message("stats", live_s)
            if warm is None or measured is None:
                raise EmotiondError(f"{clip.name}: the daemon ended before its stream did")
            memory_mb, memory_max_mb = daemon.memory_mb()
    stats = measured[1]
    decode_ms = 1000 * alone["cpu_s"] / max(1, alone["frames"])
    cpu_ms = 1000 * cpu_s / max(1.0, stats["fps_out"] * took_s)
    return {
        "live_fps": stats["fps_out"],
        "live_superseded": stats["drops"]["superseded"],  # since the daemon's start: its first search takes longest
        "latency_ms": stats["latency_ms"],
        "cpu_ms_per_frame": cpu_ms,
        "decode_cpu_ms_per_frame": decode_ms,
        "cpu_over_decode": ratio(cpu_ms, decode_ms),
        "rss_mb": memory_mb,
        "rss_max_mb": memory_max_mb,
    }


def _cold_start(
    clip: clips.Clip, broker: MqttConfig, inbox: Inbox, overrides: Sequence[str], times: int
) -> float | None:
    """Seconds from the start of the process until its first event is with a subscriber; None if there is no event."""
    taken = []
    for _ in range(times):
        with Daemon(str(clip.path), broker, inbox, ["camera.realtime=false", *overrides]) as daemon:
            event = daemon.message("events", PATIENCE_S)
            if event is None:
                return None
            taken.append(event[0] - daemon.started_at)
    return float(np.median(taken)) if taken else None


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the clips; of ratios, the median of the clips' own."""

    def median(key: str) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return float(np.median(values)) if values else None

    keys = [key for key, value in rows[0].items() if isinstance(value, float | int) or value is None]
    latencies = [row["latency_ms"] for row in rows if row["latency_ms"]]
    return {
        **{key: median(key) for key in keys},
        "latency_ms": {p: float(np.median([one[p] for one in latencies])) for p in ("p50", "p95", "p99")}
        if latencies
        else None,
    }
