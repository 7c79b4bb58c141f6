"""Prometheus: its own parser reads what a real run wrote, and it says what the stats message says."""

import json
import shutil
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import Broker, free_port, is_open, plain, wait_for

HERE = {"device": "pi", "camera": "camera"}


def read(text: str, here: dict[str, str] = HERE) -> dict[tuple, float]:
    """(name, further labels by name) to value. here: labels that all have."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.name.startswith("emotiond")
        for sample in family.samples:
            assert here.items() <= sample.labels.items()
            further = tuple(value for key, value in sorted(sample.labels.items()) if key not in here)
            assert (sample.name, further) not in found
            found[sample.name, further] = sample.value
    return found


def test_the_file_is_whole_at_every_moment_and_says_what_the_stats_say(
    broker: Broker, subscribe, start, tmp_path: Path
) -> None:
    path = tmp_path / "emotiond.prom"
    subscriber = subscribe(broker.port)
    daemon = start("run", *plain(broker.port, **{"mqtt.stats_interval_s": 0.2, "metrics.file": str(path)}))
    reads: list[str] = []

    def happy() -> bool:
        if path.exists():
            reads.append(path.read_text())
        return bool(reads) and ("emotiond_dominant", ("happy",)) in read(reads[-1])

    wait_for(happy, "a happy face in the file")
    values = read(reads[-1])
    assert values["emotiond_events_total", ("uncertain", "new")] >= 1
    assert values["emotiond_events_total", ("happy", "update")] >= 1
    assert (values["emotiond_faces", ()], values["emotiond_camera_online", ()]) == (1, 1)
    assert all(text.endswith("\n") and "emotiond_info{" in text for text in reads)
    assert path.stat().st_mode & stat.S_IROTH
    figures = {"sweeps": "sweeps_total", "uptime_s": "uptime_seconds", "still_frames": "still_frames_total"}
    written = {key: values[f"emotiond_{name}", ()] for key, name in figures.items()}

    def told() -> bool:
        stats = [json.loads(text) for text in subscriber.texts("emotiond/pi/stats")]
        return any({key: message[key] for key in figures} == written for message in stats)

    wait_for(told, "a stats message that says what the file does")
    assert {cause[0] for name, cause in values if name == "emotiond_drops_total"} >= {"superseded", "live_dropped"}
    assert daemon.stop()[0] == 0
    assert list(tmp_path.glob("*prom*")) == []


def test_node_exporter_hands_the_file_on(start, tmp_path: Path) -> None:
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        pytest.skip("prometheus-node-exporter is not installed (Debian has it)")
    path, port = tmp_path / "emotiond.prom", free_port()
    start("run", "--set", "mqtt.broker=null", "--set", "device=pi", "--set", f"metrics.file={path}")
    only = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}")
    exporter = subprocess.Popen([program, *only, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: path.exists() and is_open(port), "both are there")
        told = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert "node_textfile_scrape_error 0\n" in told
        ours = "".join(line for line in told.splitlines(True) if "emotiond_" in line and 'file="' not in line)
        assert read(ours)["emotiond_camera_online", ()] == 1
    finally:
        exporter.kill()
        exporter.wait()


def test_http_is_served_only_on_request_and_a_taken_port_is_told(broker: Broker, start) -> None:
    port = free_port()
    options = plain(broker.port, **{"mqtt.stats_interval_s": 0.2, "metrics.http_port": port})
    start("run", *options)
    found = {}

    def served() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                found.update(read(answer.read().decode()))
        except OSError:
            return False
        return ("emotiond_uptime_seconds", ()) in found

    wait_for(served, "figures over HTTP")
    assert found["emotiond_camera_online", ()] in (0, 1)
    code, _, err = start("run", *options).finish()
    assert (code, str(port) in err, "Traceback" in err) == (69, True, False)


def test_a_file_that_cannot_be_written_is_told_once_and_disturbs_nothing(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    options = plain(broker.port, **{"mqtt.stats_interval_s": 0.2, "metrics.file": "/proc/none/x.prom"})
    daemon = start("run", *options)
    wait_for(lambda: len(subscriber.texts("emotiond/pi/stats")) > 3, "stats")
    code, _, err = daemon.stop()
    assert (code, err.count("metrics.file: /proc/none/x.prom: cannot be written")) == (0, 1)
