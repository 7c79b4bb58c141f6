"""Results that are kept: appended, drawn, compared."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from benchmarks import cli, history
from benchmarks.measure import stamp
from benchmarks_made import run, write_short_clip


def result(day: int, int8_over_float32: float = 4.0, cpu_over_decode: float = 1.2, cores: int = 2) -> dict:
    made = {**stamp(), "at": f"2026-01-{day:02}T10:00:00Z", "commit": f"c{day}"}
    made["machine"] = {**made["machine"], "cores": cores}
    made["inference"] = {
        "rows": [
            {"runtime": "litert", "model": "int8", "threads": 1, "fps": 1000 * int8_over_float32},
            {"runtime": "litert", "model": "float32", "threads": 1, "fps": 1000.0},
        ],
        "int8_over_float32": int8_over_float32,
    }
    made["pipeline"] = {"total": {"over_naive": 20.0, "cpu_over_decode": cpu_over_decode, "fps": 200.0}}
    return made


def keep(folder: Path, *results: dict) -> Path:
    for made in results:
        path = folder / f"{made['at'][:10]}-machine.json"
        path.write_text(json.dumps([made]))
    return folder


def test_record_appends_to_the_file_of_the_day(tmp_path: Path) -> None:
    clip, folder = write_short_clip(tmp_path / "clip.avi"), tmp_path / "results"
    for count in (1, 2):
        run("record", "--only", "detection", "--only", "flicker", "--clip", clip, "--folder", folder, "--no-mtcnn")
        (path,) = folder.iterdir()
        results = json.loads(path.read_text())
        assert len(results) == count
    assert path.name.startswith(results[0]["at"][:10])
    assert results[1]["detection"]["total"]["recall"] > 0
    assert {"commit", "version", "machine"} <= set(results[1])
    assert "at" not in results[1]["flicker"]


def fails(error: BaseException) -> Callable[[object], dict]:
    def measure(_: object) -> dict:
        raise error

    return measure


def recorded(monkeypatch: pytest.MonkeyPatch, folder: Path, **parts: Callable[[object], dict]) -> int:
    """The exit code of `record`, where its parts are these."""
    monkeypatch.setattr(cli, "measure", lambda name, options: parts[name](options))
    only = [text for name in parts for text in ("--only", name)]
    return cli.main(["record", *only, "--folder", str(folder)])


def kept(folder: Path) -> dict:
    (path,) = folder.iterdir()
    return json.loads(path.read_text())[-1]


def test_record_keeps_what_was_measured_when_a_part_fails_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = RuntimeError("BrowserType.launch: no chromium\nLook:\n  playwright install")
    parts = {"inference": lambda _: result(1), "dashboard": fails(broken), "idle": fails(AssertionError())}
    assert recorded(monkeypatch, tmp_path, **parts) == 0
    assert kept(tmp_path)["inference"]["inference"]["int8_over_float32"] == 4.0
    assert not {"dashboard", "idle"} & set(kept(tmp_path))
    said = capsys.readouterr().err.splitlines()
    assert "benchmarks: dashboard left out: RuntimeError: BrowserType.launch: no chromium" in said
    assert "benchmarks: idle left out: AssertionError" in said
    assert len(said) == 5  # and the three names


def test_record_keeps_what_was_measured_before_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded(monkeypatch, tmp_path, inference=fails(KeyboardInterrupt())) == 130
    assert not list(tmp_path.iterdir())
    parts = {"inference": lambda _: result(1), "pipeline": fails(KeyboardInterrupt()), "idle": lambda _: result(1)}
    assert recorded(monkeypatch, tmp_path, **parts) == 130
    assert set(kept(tmp_path)) == {*history.STAMP, "inference"}
    assert f"interrupted: what was measured is in {next(tmp_path.iterdir())}" in capsys.readouterr().err


def test_an_accuracy_of_nothing_does_not_cost_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded(monkeypatch, tmp_path, accuracy=lambda _: {"direct": 0.0, "deployed": 0.0}) == 0
    assert kept(tmp_path)["accuracy"]["deployed_over_direct"] is None


def test_a_file_that_cannot_be_appended_to_is_told_before_the_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stamped = stamp()
    (tmp_path / f"{stamped['at'][:10]}-{history.machine_name(stamped['machine'])}.json").write_text("half a f")
    assert recorded(monkeypatch, tmp_path, inference=lambda _: pytest.fail("measured")) == 65
    assert "not JSON" in capsys.readouterr().err


def test_a_folder_that_takes_no_results_is_told_before_the_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "results"
    assert recorded(monkeypatch, folder, inference=lambda _: pytest.fail("measured")) == 74
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_compare_fails_when_a_ratio_falls_by_more_than_a_tenth(tmp_path: Path) -> None:
    keep(tmp_path, result(1), result(2, int8_over_float32=3.7))
    assert "int8 over float32" in run("compare", "--folder", tmp_path).stdout
    keep(tmp_path, result(3, int8_over_float32=3.2))
    done = run("compare", "--folder", tmp_path, code=1)
    assert "fell by more than 10%: int8 over float32, network -14%" in done.stderr


def test_where_less_is_better_more_is_a_fall(tmp_path: Path) -> None:
    rows = history.compare(folder=keep(tmp_path, result(1), result(2, cpu_over_decode=1.5)))
    assert history.fallen(rows) == ["decoding's processor time over the daemon's -20%"]


def test_results_of_another_machine_are_not_compared(tmp_path: Path) -> None:
    keep(tmp_path, result(1, int8_over_float32=9.0, cores=64), result(2))
    assert "no earlier result of such a machine" in run("compare", "--folder", tmp_path, code=66).stderr
    keep(tmp_path, result(3))
    assert "c2" in run("compare", "--folder", tmp_path).stdout


def on(made: dict, part: str, **conditions: object) -> dict:
    """The result with a part that was measured under other conditions."""
    return {**made, part: {**made[part], **conditions}}


def merged(part: dict, other: dict) -> dict:
    """The part with other entries, within `time` too."""
    both = {**part, **other}
    return {**both, "time": {**part["time"], **other["time"]}} if "time" in other else both


def rows_of(*names: str) -> list[dict]:
    return [{"clip": name} for name in names]


@pytest.mark.parametrize(
    ("part", "then", "now"),
    [
        ("pipeline", {"clips": rows_of("book", "again")}, {"clips": rows_of("book", "milk")}),
        ("pipeline", {"overrides": []}, {"overrides": ["detector.min_face=60"]}),
        ("accuracy", {"n": 3589}, {"n": 1200}),
        ("growth", {"time": {"minutes": 30.0}}, {"time": {"minutes": 4.0}}),
        ("growth", {"time": {"clip": "book"}}, {"time": {"clip": "milk"}}),
        ("detection", {"method": {"second_opinion": "mtcnn"}}, {"method": {"second_opinion": None}}),
    ],
)
def test_only_what_was_measured_alike_is_compared(tmp_path: Path, part: str, then: dict, now: dict) -> None:
    parts = {"accuracy": {"deployed_over_direct": 0.9}, "detection": {"total": {"recall": 0.9}}}
    old, new = ({**result(day), **parts, "growth": {"time": {"last_over_first": 1.0}}} for day in (1, 2))
    old[part], new[part] = merged(old[part], then), merged(new[part], now)
    keep(tmp_path, old, new)
    others = {row["ratio"]: row["why_not"] for row in history.compare(folder=tmp_path)}
    for figure in history.RATIOS:
        measured = figure.of(old) is not None
        differs = "other clips or settings" if figure.keys[0] == part else None
        assert others[figure.name] == (differs if measured else "not measured in both")
    assert "not compared, other clips or settings: " in run("compare", "--folder", tmp_path).stderr


def test_a_result_of_which_nothing_was_measured_alike_is_passed_over(tmp_path: Path) -> None:
    first, second, third = (on(result(day), "pipeline", clips=rows_of("book")) for day in (1, 2, 3))
    second = on(second, "pipeline", clips=rows_of("milk"))
    del second["inference"]
    keep(tmp_path, first, second, third)
    assert "c1" in run("compare", "--folder", tmp_path).stdout
    (tmp_path / "2026-01-01-machine.json").unlink()
    said = run("compare", "--folder", tmp_path, code=66).stderr
    assert "no earlier result of such a machine with a ratio on the same clips and settings: nothing could be" in said


def test_the_newest_result_is_the_last_with_a_ratio(tmp_path: Path) -> None:
    stamped = {key: value for key, value in result(2).items() if key in history.STAMP}
    later = [result(2, int8_over_float32=2.0), {**stamped, "people": {"clips": []}}]
    keep(tmp_path, result(1))
    old, new = tmp_path / "2026-01-01-machine.json", tmp_path / "2026-01-02-machine.json"
    new.write_text(json.dumps(later))
    for named in ((), (new,), (old, new)):
        done = run("compare", *named, "--folder", tmp_path, code=1)
        assert "fell by more than 10%: int8 over float32, network -50%" in done.stderr


def test_clips_are_the_same_in_any_order_and_other_parts_do_not_count(tmp_path: Path) -> None:
    old = on(result(1), "pipeline", clips=rows_of("book", "again"))
    new = on(result(2), "pipeline", clips=rows_of("again", "book"))
    keep(tmp_path, {**old, "people": {"clips": rows_of("milk")}}, {**new, "people": {"clips": rows_of("bird")}})
    assert all(row["change"] == 0 for row in history.compare(folder=tmp_path) if row["change"] is not None)


def test_a_comparison_of_nothing_is_no_success(tmp_path: Path) -> None:
    stamped = {key: value for key, value in result(2).items() if key in history.STAMP}
    keep(tmp_path, result(1), {**stamped, "events": {"rows": []}})
    assert "nothing could be compared" in run("compare", "--folder", tmp_path, code=66).stderr
    old, new = sorted(tmp_path.iterdir())
    assert "nothing could be compared" in run("compare", old, new, code=65).stderr


def test_results_without_a_common_ratio_are_passed_over(tmp_path: Path) -> None:
    stamped = {key: value for key, value in result(2).items() if key in history.STAMP}
    keep(tmp_path, result(1), {**stamped, "events": {"rows": []}}, result(3, int8_over_float32=2.0))
    assert "int8 over float32, network -50%" in run("compare", "--folder", tmp_path, code=1).stderr


def test_what_could_not_be_compared_is_told(tmp_path: Path) -> None:
    new = on(result(2), "pipeline", clips=rows_of("milk"), total={"over_naive": 1.0})
    keep(tmp_path, on(result(1), "pipeline", clips=rows_of("book")), new)
    old, new = sorted(tmp_path.iterdir())
    done = run("compare", old, new)
    assert "not compared, other clips or settings: pipeline over naive loop\n" in done.stderr
    assert re.search("not compared, not measured in both: .*; recall;", done.stderr)


def test_one_file_is_compared_with_what_was_recorded_before_it(tmp_path: Path) -> None:
    keep(tmp_path, result(1), result(2, int8_over_float32=2.0), result(3, int8_over_float32=9.0))
    assert "-50%" in run("compare", sorted(tmp_path.iterdir())[1], "--folder", tmp_path, code=1).stderr


def test_the_results_in_the_repository_can_be_read() -> None:
    results = history.read_all()
    assert len(results) >= 3
    changes = [row["change"] for made in results for row in history.rows(made, made)]
    assert set(changes) == {0, None}  # a part that was measured alone may have no ratio
    # Not the newest: it may be the first of its machine or of its parts, with nothing before it to be compared with.
    grown = history.RESULTS / "2026-11-29-x86_64-amd-epyc-2-cores.json"
    assert any(row["change"] is not None for row in history.compare(grown))


def test_two_files_can_be_compared(tmp_path: Path) -> None:
    keep(tmp_path, result(1), result(2, int8_over_float32=2.0))
    old, new = sorted(tmp_path.iterdir())
    run("compare", old, new, code=1)
    run("compare", new, old)


def test_trend_draws_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    keep(tmp_path, result(1), result(2), result(3, cores=64))
    done = run("trend", "--folder", tmp_path, "--out", tmp_path / "t.png")
    assert "1 results" in done.stdout
    picture = cv2.imread(str(tmp_path / "t.png"))
    assert picture.shape[1] > 500
    assert picture.std() > 10


def test_a_file_that_holds_no_results_is_told(tmp_path: Path) -> None:
    path = tmp_path / "2026-01-01-x.json"
    for text in ("{}", "[1]", "[]", '["at version commit machine"]'):
        path.write_text(text)
        assert "not a file of results" in run("compare", "--folder", tmp_path, code=65).stderr
        assert run("compare", path, path, code=65).stderr.count("\n") == 1
    assert "no results there" in run("trend", "--folder", tmp_path / "none", code=66).stderr


def test_a_missing_package_is_named_with_the_command_for_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["trend", "--folder", str(tmp_path)]) == 66
    assert capsys.readouterr().err == (
        f"benchmarks: matplotlib is not installed: {sys.executable} -m pip install matplotlib\n"
    )
