"""Outgrowing one broker: a list of them, a cluster whose node is killed, several readers that share the events."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Broker, Daemon, free_port, is_open, plain, wait_for
from edge.backoff import Backoff
from edge.connection import CONNACK_TIMEOUT_S

CLUSTER_PORTS = 31


def brokers(*ports: int) -> list[str]:
    return ["--set", f"mqtt.broker={json.dumps([f'127.0.0.1:{port}' for port in ports])}", "--set", "device=pi"]


def report(daemon: Daemon, timeout: float = 240) -> dict:
    return report_and_errors(daemon, timeout)[0]


def report_and_errors(daemon: Daemon, timeout: float = 240) -> tuple[dict, str]:
    code, out, err = daemon.finish(timeout)
    assert code == 0, out + err
    return json.loads(out), err


@pytest.fixture(params=[("nats", "nats-server"), ("rabbitmq", "rabbitmq-server")], ids=lambda param: param[0])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[int], Callable[[int], None]]]:
    """Three nodes that are one MQTT broker, by the recipe of examples: their ports, and what kills one."""
    kind, program = request.param
    if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{program} is not installed (Debian has it)")
    before = free_ports(CLUSTER_PORTS) - 1
    folder = tmp_path / "cluster"

    def run(verb: str, *arguments: str) -> None:
        output = (tmp_path / f"{verb}.out").open("w")  # not a pipe: the nodes inherit it
        command = [ROOT / "examples/cluster", verb, *arguments]
        env = {**os.environ, "PORTS": str(before), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        done = subprocess.run(command, env=env, stdout=output, stderr=output, timeout=300, check=False)
        assert done.returncode == 0, (tmp_path / f"{verb}.out").read_text()

    try:
        run("start", kind, str(folder))
        yield [before + n for n in (1, 2, 3)], lambda number: run("kill", str(folder), str(number))
    finally:
        run("stop", str(folder))
        assert not [port for port in range(before + 1, before + 1 + CLUSTER_PORTS) if is_open(port)]


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the kernel gives out."""
    while True:
        first = random.randrange(20000, 32000 - count)
        if not any(is_open(port) for port in range(first, first + count)):
            return first


def test_a_fleet_on_a_cluster_loses_nothing_when_a_node_is_killed(cluster, start) -> None:
    ports, kill = cluster
    # The nodes must have found each other before a session can be made: the first tries may fail, and devices would be
    # on other nodes than the one that is killed.
    for port in ports:
        one = ("fleet-sim", "--devices", "1", "--seconds", "0.5", *brokers(port))
        wait_for(lambda: start(*one).finish()[0] == 0, f"a session at port {port}")  # noqa: B023
    daemon = start("fleet-sim", "--devices", "20", "--seconds", "20", "--patience", "120", *brokers(*ports))
    for line in daemon.process.stderr:
        if "devices are connected" in line:
            break
    time.sleep(3)
    kill(2)
    made, said = report_and_errors(daemon)
    assert (made["published"], made["lost"], made["drops"]) == (400, 0, 0)
    # Some had chosen the node that was killed, and found another.
    back = made["outages"]["back_in_second"]
    assert made["outages"]["count"] == sum(back.values()) >= 1
    _, _, bars = said.partition("by seconds after the first loss:\n")
    drawn = [line.split() for line in bars.splitlines()]
    assert {second: int(count) for second, count, *_ in drawn if count != "0"} == back
    assert (made["offline_at_the_end"], made["queued_at_the_end"]) == (0, 0)


def test_several_readers_share_the_events(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port, "#")
    options = [*plain(broker.port), "--readers", "3", "--devices", "6", "--rate", "5", "--seconds", "4"]
    made = report(start("fleet-sim", *options))
    assert (made["published"], made["arrived"], made["lost"]) == (120, 120, 0)
    assert sum(made["by_reader"]) == 120 and min(made["by_reader"]) > 0
    assert made["bytes_per_event"] > 300
    # It stays below a base of its own, and leaves nothing retained.
    late = subscribe(broker.port, "#")
    late.publish("mark", "x")
    wait_for(lambda: late.texts("mark"), "what is retained came before")
    assert [topic for topic, _, _ in late.messages] == ["mark"]
    assert all(topic.startswith("emotiond-sim-") for topic, _, _ in subscriber.messages if topic != "mark")


def test_a_large_fleet_is_several_processes(broker: Broker, start) -> None:
    options = [*plain(broker.port), "--devices", "260", "--rate", "0.5", "--seconds", "2"]
    made = report(start("fleet-sim", *options))
    assert (made["processes"], made["published"], made["lost"], made["queued_at_the_end"]) == (2, 260, 0, 0)


def crews(daemon: Daemon) -> list[int]:
    """The processes of its devices."""
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_fleet_that_is_interrupted_leaves_nothing(broker: Broker, subscribe, start) -> None:
    daemon = start("fleet-sim", *plain(broker.port), "--devices", "5", "--seconds", "60")
    assert "5 devices are connected" in daemon.process.stderr.readline()
    for process in (*crews(daemon), daemon.process.pid):  # as a terminal does on Ctrl-C
        os.kill(process, signal.SIGINT)
    code, out, err = daemon.finish()
    assert (code, out, err) == (130, "", "")
    late = subscribe(broker.port, "#")
    late.publish("mark", "x")
    wait_for(lambda: late.texts("mark"), "what is retained came before")
    assert [topic for topic, _, _ in late.messages] == ["mark"]


def test_a_fleet_whose_process_is_killed_says_so(broker: Broker, start) -> None:
    daemon = start("fleet-sim", *plain(broker.port), "--devices", "260", "--seconds", "60", "--rate", "0.1")
    assert "260 devices are connected" in daemon.process.stderr.readline()
    one, other = crews(daemon)
    os.kill(one, signal.SIGKILL)
    code, out, err = daemon.finish()
    assert (code, out, err.count("\n"), "process" in err) == (69, "", 1, True)
    assert not Path(f"/proc/{other}").exists()


def test_the_daemon_finds_the_broker_of_its_list_that_lives(broker_at, subscribe, start) -> None:
    one, other = broker_at(), broker_at()
    one.kill()
    seen = subscribe(other.port)
    daemon = start("run", *brokers(one.port, other.port), "--set", "mqtt.retry_min_s=0.1")
    wait_for(lambda: seen.events(), "events at the one that lives")
    one.start()
    first = subscribe(one.port)
    other.kill()
    wait_for(lambda: first.events(), "events at the one that came back")
    assert daemon.stop()[0] == 0


def test_brokers_that_refuse_or_stay_silent_are_passed_over(broker_at, subscribe, start) -> None:
    refusing, silent, good = broker_at("allow_anonymous false"), broker_at(), broker_at()
    seen = subscribe(good.port)
    silent.freeze()
    ports = [refusing.port, silent.port, good.port]
    first = zlib.crc32(b"emotiond-pi") % len(ports)  # where this device begins
    options = ["--set", "mqtt.protocol=3.1.1", "--set", "mqtt.ack_timeout_s=2"]
    start("run", *brokers(*ports[-first:], *ports[:-first]), *options)
    wait_for(lambda: seen.events(), "events at the one that takes it")


def test_a_broker_that_takes_its_time_is_not_asked_again_meanwhile(broker_at, subscribe, start, tmp_path) -> None:
    # Of a cluster without a leader each further question makes it take longer.
    log = tmp_path / "broker.log"
    broker = broker_at(f"allow_anonymous true\nlog_dest file {log}\nlog_type all")
    seen = subscribe(broker.port)
    before = log.read_text().count("New connection from")
    broker.freeze()
    start("run", *plain(broker.port))
    time.sleep(CONNACK_TIMEOUT_S + 3)
    broker.thaw()
    wait_for(lambda: seen.events(), "events when it goes on")
    assert log.read_text().count("New connection from") == before + 1


def test_fleet_sim_says_what_it_lacks(start) -> None:
    code, _, err = start("fleet-sim").finish()
    assert (code, "mqtt.broker" in err) == (78, True)
    code, _, err = start("fleet-sim", "--devices", "2001", *brokers(free_port(), free_port())).finish()
    assert (code, err.count("\n"), "at most 2000" in err) == (2, 1, True)
    code, _, err = start("fleet-sim", *brokers(free_port(), free_port())).finish()
    assert (code, err.count("\n"), "cannot be reached" in err) == (69, 1, True)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *(("--seconds", value, "a number from 0.1 to 86400") for value in ("inf", "nan", "0", "1e300")),
        *(("--rate", value, "a number from 0.001 to 1000") for value in ("inf", "nan", "-1", "1e-300", "1e300")),
        *(("--patience", value, "a number from 0 to 86400") for value in ("inf", "nan", "-1")),
        ("--readers", "101", "at most 100"),
        ("--devices", "9" * 5000, "a whole number from 1"),
    ],
)
def test_fleet_sim_refuses_what_no_fleet_can_be(option: str, value: str, expected: str, start) -> None:
    code, _, err = start("fleet-sim", option, value, *brokers(free_port(), free_port())).finish()
    assert (code, option in err.splitlines()[-1], "Traceback" in err) == (2, True, False)
    assert expected in err.splitlines()[-1] and len(err) < 2000


@pytest.mark.parametrize("wrong", ['["embedded", "a"]', "[a, a]", "[]", '["a:port"]', '["a:0"]', '["mqtt://a"]', "[1]"])
def test_a_wrong_list_is_told(wrong: str, start) -> None:
    code, _, err = start("check", "--set", f"mqtt.broker={wrong}").finish()
    assert (code, err.count("\n"), "mqtt.broker" in err) == (78, 1, True)


def test_a_large_fleet_may_come_back_slowly() -> None:
    # 100,000 devices that all come back within three seconds are no help to a broker that restarts.
    delays = [Backoff(60, 600, brisk_for_s=60).next() for _ in range(200)]
    assert min(delays) >= 30 and max(delays) - min(delays) > 20
