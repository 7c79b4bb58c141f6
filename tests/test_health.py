"""What the daemon tells systemd, over a real socket, and its figures."""

import socket
import threading
import time
from pathlib import Path

import pytest

from conftest import wait_for
from edge.health import Counters, Notifier, is_service
from fakes import ORIGIN


def received(channel: socket.socket) -> list[str]:
    channel.setblocking(False)
    texts = []
    try:
        while True:
            texts.append(channel.recv(4096).decode())
    except BlockingIOError:
        return texts


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_of_readiness_and_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@{tmp_path.name}-notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        notifier = Notifier()
        notifier.say("READY=1", "STATUS=camera online")
        for _ in range(5):
            notifier.alive()
        assert received(channel) == ["READY=1\nSTATUS=camera online", "WATCHDOG=1"]
        time.sleep(0.11)
        notifier.alive()
        assert received(channel) == ["WATCHDOG=1"]


def test_a_systemd_that_reads_nothing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        saying = threading.Thread(target=lambda: [notifier.say("READY=1") for _ in range(5000)], daemon=True)
        saying.start()
        wait_for(lambda: not saying.is_alive(), "all is said")
        assert 0 < len(received(channel)) < 5000


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier()
    notifier.say("READY=1")
    notifier.alive()
    assert not is_service()


def test_stats_count_frames_and_drops_since_the_last_message() -> None:
    counters = Counters()
    for age_s in (0.001, 0.002, 0.100):
        counters.frame_done(time.monotonic() - age_s)
    time.sleep(0.1)
    message = counters.stats_message(
        ORIGIN, "litert", {"superseded": 3, "undecodable": 0, "events_refused": 5}, queued=2, work={"sweeps": 4}
    )
    assert message["fps_in"] == pytest.approx(2 * message["fps_out"], rel=0.02)
    assert 0 < message["fps_out"] <= 30
    assert 2 <= message["latency_ms"]["p50"] < 100 <= message["latency_ms"]["p99"] + 2.5
    assert (message["queue"], message["drops"]["superseded"], message["runtime"]) == (2, 3, "litert")
    assert message["sweeps"] == 4
    again = counters.stats_message(ORIGIN, "litert", {"superseded": 3, "undecodable": 0}, queued=0, work={})
    assert (again["fps_in"], again["fps_out"], again["latency_ms"]) == (0.0, 0.0, None)
