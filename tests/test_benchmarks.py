"""The inference benchmark as a command; its figures are not judged here, only their form and honesty."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import inference
from benchmarks.measure import interleaved, table
from conftest import ROOT
from edge.classifier import TfliteClassifier
from edge.errors import EmotiondError


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "inference", "--rounds", "2", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    one_thread = {row["model"]: row for row in result["rows"] if row["threads"] == 1 and row["runtime"] == "litert"}
    assert set(one_thread) == {"int8", "float32"}
    assert set(one_thread["int8"]) == {"runtime", "model", "threads", "median_ms", "p95_ms", "fps"}
    ratio = one_thread["int8"]["fps"] / one_thread["float32"]["fps"]
    assert result["int8_over_float32"] == pytest.approx(ratio)
    assert f"int8 over float32: {ratio:.2f}x" in done.stdout
    assert result["machine"]["cores"] >= 1


def test_a_place_that_cannot_be_written_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks", "inference", "--rounds", "1", "--json", "/nowhere/r.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        65,
        "benchmarks: --json: /nowhere/r.json: cannot be written: No such file or directory",
    )


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, warm_up=1)
    assert "".join(calls) == "ab" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert {name: taken.shape for name, taken in times.items()} == {"a": (6,), "b": (6,)}


def test_two_networks_that_disagree_are_no_pair() -> None:
    class Other(TfliteClassifier):
        def classify(self, crops):
            return super().classify([255 - np.roll(crop, 20) for crop in crops])

    faces = inference.FACES
    with pytest.raises(EmotiondError, match="not one network"):
        inference.check_agreement(TfliteClassifier(), Other(), faces)
    inference.check_agreement(TfliteClassifier(), TfliteClassifier(), faces)


def test_a_table_has_its_columns_under_their_heads() -> None:
    assert table([{"a": 1.0, "name": "x"}, {"a": 22.5, "name": "yy"}]).splitlines() == [
        "a       name",
        "1.000   x   ",
        "22.500  yy  ",
    ]
