"""`emotiond check` as a process: a table, and the exit code of the first thing that does not hold."""

import io
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Broker, free_port, plain
from edge.check import check
from edge.classifier import TfliteClassifier
from edge.config import Config, MqttConfig, SpoolConfig


def rows(out: str) -> dict[str, tuple[str, str]]:
    return {name: (mark, rest) for name, mark, rest in (line.split(maxsplit=2) for line in out.splitlines())}


def test_everything_holds(broker: Broker, start) -> None:
    code, out, err = start("check", *plain(broker.port)).finish()
    assert (code, err) == (0, "")
    table = rows(out)
    assert list(table) == ["settings", "runtime", "model", "cameras", "detector", "camera", "spool", "broker"]
    assert {mark for mark, _ in table.values()} == {"ok"}
    assert "litert" in table["runtime"][1]
    assert "on litert" in table["model"][1]
    assert "gives the scores that it must" in table["model"][1]
    assert table["camera"][1] == "builtin, 640x480 px"
    assert table["broker"][1] == f"127.0.0.1:{broker.port}, MQTT 5, no TLS"


def test_the_folder_of_the_spool_is_proved(tmp_path: Path) -> None:
    out = io.StringIO()
    (tmp_path / "file").write_text("")
    config = Config(mqtt=MqttConfig(broker=None))
    assert check(config.model_copy(update={"spool": SpoolConfig(folder=tmp_path / "new")}), out) == 0
    assert check(config.model_copy(update={"spool": SpoolConfig(folder=tmp_path / "file/x")}), out) == 78
    assert f"spool      ok    {tmp_path}/new, 0 events wait" in out.getvalue()
    assert not (tmp_path / "new").exists(), "it would belong to who checks, not to the daemon"
    assert f"spool      FAIL  spool.folder: {tmp_path}/file/x: cannot be used" in out.getvalue()


def test_metrics_that_are_asked_for_need_their_package(start, tmp_path: Path) -> None:
    arguments = [
        "check",
        "--set",
        "mqtt.broker=null",
        "--set",
        "metrics.http_port=9123",
        "--set",
        "metrics.file=/x/y.prom",
    ]
    code, out, _ = start(*arguments).finish()
    assert (code, rows(out)["metrics"]) == (0, ("ok", "to /x/y.prom, 127.0.0.1:9123"))
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")  # as if it were not installed
    code, out, err = start(*arguments, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}).finish()
    assert (code, err, rows(out)["broker"][0]) == (78, "", "ok")
    # Of the environment that runs: on Debian a bare pip is another's, and refuses.
    way_out = f"{sys.executable} -m pip install 'emotiond[metrics]'"
    assert rows(out)["metrics"] == ("FAIL", f"metrics: needs prometheus-client: {way_out}")


def test_the_embedded_broker_is_proved_too(start) -> None:
    code, out, _ = start("check", "--set", f"mqtt.port={free_port()}").finish()
    assert code == 0
    assert rows(out)["broker"][1].startswith("embedded ")


@pytest.mark.parametrize(
    ("arguments", "failing", "code"),
    [
        (["--source", "nowhere.mkv"], ["camera"], 66),
        (["--set", "model.path=nowhere"], ["model"], 78),
        (["--set", f"model.folder=/{'x' * 300}"], ["model"], 78),
        (["--set", f"detector.cascade=/{'x' * 300}"], ["detector"], 78),
        (["--set", f"spool.folder=/{'x' * 300}"], ["spool"], 78),
        (["--set", "mqtt.broker=127.0.0.1", "--set", "mqtt.port=9"], ["broker"], 69),
        (["--source", "97", "--set", "camera.timeout_s=1", "--set", "mqtt.port=9", "--set", "mqtt.broker=127.0.0.1"],
         ["camera", "broker"], 69),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_marked_and_the_rest_is_still_proved(
    arguments: list[str], failing: list[str], code: int, start
) -> None:
    quiet = [] if "broker" in failing else ["--set", "mqtt.broker=null"]
    returned, out, err = start("check", *arguments, *quiet).finish()
    assert (returned, err) == (code, "")
    assert [name for name, (mark, _) in rows(out).items() if mark == "FAIL"] == failing


def test_a_row_is_one_line_that_steers_no_terminal(start) -> None:
    code, out, _ = start("check", "--source", "a\x1b[31m\nb", "--set", "mqtt.broker=null").finish()
    assert code == 66
    assert rows(out)["camera"] == ("FAIL", "camera.source: a\ufffd[31m\ufffdb: no such file, folder or camera")


def test_a_runtime_that_computes_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    right = TfliteClassifier.classify
    monkeypatch.setattr(TfliteClassifier, "classify", lambda self, crops: right(self, [crop.T for crop in crops]))
    assert check(Config(mqtt=MqttConfig(broker=None)), sys.stdout) == 78
    assert "model      FAIL  model.path: " in capsys.readouterr().out


@pytest.mark.parametrize("lacking", ["max_qos 0", "retain_available false"])
def test_a_broker_that_lacks_what_the_daemon_needs_is_named(broker_at, start, lacking: str) -> None:
    broker = broker_at(f"allow_anonymous true\n{lacking}")
    code, out, _ = start("check", *plain(broker.port)).finish()
    assert (code, rows(out)["broker"][0]) == (69, "FAIL")
    assert f"(mosquitto: {lacking.split()[0]})" in rows(out)["broker"][1]
