"""Files that the settings name and that are none: pipes that nobody writes, devices without an end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Daemon

SILENT, ENDLESS = "no file, and nothing comes from it", "MB: not what it should be"


@pytest.mark.parametrize(("given", "expected"), [("pipe", SILENT), ("/dev/zero", ENDLESS)])
@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--config", "FILE"], "FILE: cannot read the settings"),
        (["--set", "model.path=FILE"], "model.path: FILE: cannot be read"),
        (["--set", "mqtt.username=me", "--set", "mqtt.password_file=FILE"], "mqtt.password_file: cannot read FILE"),
        (["--set", "mqtt.ca_file=FILE"], "mqtt.ca_file: FILE"),
    ],
)
def test_what_is_no_file_is_told_in_one_line(
    tmp_path: Path, start: Callable[..., Daemon], arguments: list[str], key: str, given: str, expected: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = str(tmp_path / given)
    options = [argument.replace("FILE", given) for argument in arguments]
    code, _, err = start("run", "--set", "mqtt.broker=127.0.0.1", *options).finish()
    assert (code, err.count("\n")) == (78, 1)
    assert err.startswith(f"emotiond: {key.replace('FILE', given)}: ")
    assert expected in err


@pytest.mark.parametrize("give", ["pipe", "/dev/zero"])
def test_a_running_daemon_goes_on_with_its_settings(tmp_path: Path, service, give: str) -> None:
    running = service()
    running.path.unlink()
    if give == "pipe":
        os.mkfifo(running.path)
    else:
        running.path.symlink_to(give)
    running.daemon.process.send_signal(signal.SIGHUP)
    running.hear_until("READY=1")
    assert "reload refused, the old settings stay: " in running.stop()


def test_settings_may_come_from_another_program() -> None:
    command = f"exec {sys.executable} -m edge run --max-frames 1 --config <(sleep 0.5; echo 'mqtt: {{broker: null}}')"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
