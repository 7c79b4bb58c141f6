"""The short form of `make fuzz`."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.parametrize("target", ["command", "config", "settings", "dataset", "votes", "picture"])
def test_a_few_thousand_inputs_crash_nothing(target: str, tmp_path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed here (it has wheels for few versions of Python)")
    done = subprocess.run(
        [sys.executable, ROOT / "tests/fuzz.py", target, "-runs=2000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 2000 runs" in done.stderr
