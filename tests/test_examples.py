"""examples/: what they name is there, and Node-RED, where it is installed, runs its flow on a real run's events."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, Broker, free_port, plain, wait_for
from edge.config import MetricsConfig
from edge.metrics import Metrics

EXAMPLES = ROOT / "examples"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    # The daemon's own, with every figure given.
    metrics = Metrics(MetricsConfig())
    metrics.use("pi", ["camera"])
    figures = {
        "fps_in": 1,
        "fps_out": 1,
        "queue": 0,
        "uptime_s": 1,
        "temperature_c": 50.0,
        "sweeps": 1,
        "still_frames": 1,
    }
    what = {"version": "1", "model": "m", "runtime": "r"}
    metrics.stats([{"camera": "camera", **figures, **what, "latency_ms": {"p95": 1.0}, "drops": {"superseded": 0}}])
    there = {f"{family.name}_total" if family.type == "counter" else family.name for family in metrics.collect()}
    text = (EXAMPLES / "grafana-dashboard.json").read_text()
    asked = set(
        re.findall(r"emotiond_\w+", "".join(t["expr"] for p in json.loads(text)["panels"] for t in p["targets"]))
    )
    assert len(asked) >= 7 and asked <= there


def test_prometheus_answers_what_the_dashboard_asks(start, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian has it)")
    ours, port = free_port(), free_port()
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "emotiond"}]}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{ours}"]}]
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    panels = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())["panels"]
    # Grafana puts in what is chosen, and a time of a few scrapes.
    asked = {
        panel["title"]: target["expr"].replace("$device", ".*").replace("$__rate_interval", "30s")
        for panel in panels
        for target in panel["targets"]
        if "temperature" not in target["expr"]  # which not every machine tells
    }

    def answered(expression: str, at: float | None = None) -> list:
        query = urllib.parse.urlencode({"query": expression} | ({"time": at} if at else {}))
        answer = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}"))
        assert answer["status"] == "success"
        return answer["data"]["result"]

    # Two cameras whose events have nowhere to go: what is the device's stands in the figures of both.
    settings = {
        "cameras": [{"name": name, "source": "builtin"} for name in ("one", "two")],
        "mqtt": {"broker": "127.0.0.1", "port": free_port(), "stats_interval_s": 0.5},
        "metrics": {"http_port": ours},
        "spool": {"max_events": 1},
    }
    (tmp_path / "two.yaml").write_text(json.dumps(settings))
    start("run", "--config", str(tmp_path / "two.yaml"))
    command = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)

    def ready() -> bool:
        with contextlib.suppress(OSError):  # it answers 503 before
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready").close()
            return True
        return False

    try:
        wait_for(ready, "it is ready")
        for expression in asked.values():
            wait_for(lambda: answered(expression), f"an answer to {expression}")  # noqa: B023
        lost = 'rate(emotiond_drops_total{cause="events_overflowed"}[30s])'
        wait_for(lambda: answered(f"{lost} > 0"), "events that were lost")
        now = time.time()
        assert len(answered(asked["Events waiting for the broker"], now)) == 1
        drops = {one["metric"]["cause"]: one["value"][1] for one in answered(asked["Drops by cause"], now)}
        assert float(drops["events_overflowed"]) == max(float(one["value"][1]) for one in answered(lost, now)) > 0
    finally:
        server.kill()
        server.wait()


def test_telegraf_reads_topics_that_there_are() -> None:
    channels = yaml.safe_load((ROOT / "docs/schema/asyncapi.yaml").read_text())["channels"].values()
    there = {re.sub(r"{\w+}", "+", channel["address"]) for channel in channels}
    text = (EXAMPLES / "telegraf.conf").read_text()
    for topics, parsed, tags in re.findall(
        r'topics = \["(.+?)"\].*?\n    topic = "(.+?)"\n    tags = "(.+?)"', text, re.S
    ):
        assert topics == parsed and topics in there
        assert len(tags.split("/")) == len(topics.split("/"))


def test_telegraf_is_told_of_fields_that_there_are() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and newer read TOML")
    inputs = tomllib.loads((EXAMPLES / "telegraf.conf").read_text())["inputs"]["mqtt_consumer"]
    events, stats = (next(one for one in inputs if one["topics"][0].endswith(kind)) for kind in ("events", "stats"))
    schemas = {name: json.loads((ROOT / f"docs/schema/{name}.json").read_text()) for name in ("events", "stats")}
    (parser,) = events["json_v2"]
    asked = {field["path"] for field in (*parser["tag"], *parser["field"])} | {parser["timestamp_path"]}
    assert len(asked) >= 6 and asked <= schemas["events"]["properties"].keys()
    assert "camera" in stats["tag_keys"]  # or the figures of several cameras would be one point
    asked = {stats["json_time_key"], *stats["json_string_fields"], *stats["tag_keys"]}
    assert len(asked) >= 3 and asked <= schemas["stats"]["properties"].keys()


def test_node_red_says_who_turned_happy(broker: Broker, subscribe, start, tmp_path: Path) -> None:
    program = shutil.which("node-red", path=os.environ.get("EMOTIOND_NODE_RED", os.environ["PATH"]))
    if program is None:
        pytest.skip("node-red is neither in PATH nor in the folder EMOTIOND_NODE_RED")
    flow = (EXAMPLES / "node-red-flow.json").read_text().replace('"1883"', f'"{broker.port}"')
    (tmp_path / "flow.json").write_text(flow.replace('"localhost"', '"127.0.0.1"'))
    subscriber = subscribe(broker.port, "#")
    command = [program, "--userDir", tmp_path, "--port", str(free_port()), tmp_path / "flow.json"]
    node_red = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(node_red.stdout))
    try:
        # It may take long to start, and subscribes when it has connected.
        connected = False
        for line in node_red.stdout:
            said.append(line)
            if "Connected to broker" in line:
                connected = True
                break
        assert connected, "".join(said)
        reader.start()
        subscriber.publish("mark", "x")
        start("run", *plain(broker.port))
        wait_for(lambda: subscriber.texts("home/happy"), "a happy face", 120)
    finally:
        node_red.terminate()
        node_red.wait()
    assert subscriber.texts("home/happy")[0].startswith("pi/camera: face 1 looks happy")
