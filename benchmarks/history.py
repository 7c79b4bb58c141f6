"""Results over time: a dated file per machine, a plot over commits, and a comparison that fails when it gets worse."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ratio, stamp
from edge.errors import BadDataError, EmotiondError, InputNotFoundError, pip
from training.console import writing

RESULTS = Path(__file__).parent / "results"
FALL_MAX = 0.1  # of a ratio, from one result to the next
STAMP = ("at", "version", "commit", "machine")

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure that can be compared, because both of its sides were measured in one run."""

    name: str
    keys: tuple[str, ...]
    less_is_better: bool = False

    def of(self, result: Result) -> float | None:
        """Its value so that more is better; None if it was not measured."""
        value: Any = result
        for key in self.keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, int | float):
            return None
        return (1 / value if value else None) if self.less_is_better else float(value)


RATIOS = (
    Ratio("int8 over float32, network", ("inference", "int8_over_float32")),
    Ratio("int8 over float32, pipeline", ("pipeline", "total", "int8_over_float32")),
    Ratio("pipeline over naive loop", ("pipeline", "total", "over_naive")),
    Ratio("pipeline over decoding alone", ("pipeline", "total", "over_decode")),
    Ratio("decoding's processor time over the daemon's", ("pipeline", "total", "cpu_over_decode"), less_is_better=True),
    Ratio("recall", ("detection", "total", "recall")),
    Ratio("deployed over direct accuracy", ("accuracy", "deployed_over_direct")),
    Ratio("cost of a frame, first over last minutes", ("growth", "time", "last_over_first"), less_is_better=True),
)


def record(parts: dict[str, Callable[[], Result]], folder: Path = RESULTS) -> Path:
    """Measure every part, and append one result to the file of this day and machine; returns the file.

    A part that fails in any way is told and left out: the others took their time. So did those before Ctrl-C.
    """
    result: Result = stamp()
    path = folder / f"{result['at'][:10]}-{machine_name(result['machine'])}.json"
    # What cannot be appended to, or written, is told before minutes are spent on measuring.
    _write(_recorded(path), path.with_suffix(".part"))
    path.with_suffix(".part").unlink()
    try:
        for name, measure in parts.items():
            sys.stderr.write(f"{name} ...\n")
            try:
                result[name] = _without_stamp(measure())
            except Exception as error:  # noqa: BLE001 - a browser, a package: whatever its bug, it is one part's
                sys.stderr.write(f"benchmarks: {name} left out: {_in_one_line(error)}\n")
    except KeyboardInterrupt:
        if set(parts) & set(result):
            _append(result, path)
            sys.stderr.write(f"benchmarks: interrupted: what was measured is in {path}\n")
        raise
    if not set(parts) & set(result):
        raise EmotiondError("nothing could be measured: nothing is recorded")
    _append(result, path)
    return path


def machine_name(machine: dict[str, Any]) -> str:
    """What distinguishes one kind of machine from another, for a file's name."""
    text = f"{machine['machine']} {machine['processor']} {machine['cores']} cores".lower().replace("(r)", "")
    return re.sub("[^a-z0-9_]+", "-", text).strip("-")


def read_all(folder: Path = RESULTS) -> list[Result]:
    """Every recorded result, oldest first. Raises InputNotFoundError if there is none."""
    results = [result for path in sorted(folder.glob("[0-9]*.json")) for result in _read(path)]
    if not results:
        raise InputNotFoundError(f"{folder}: no results there; python -m benchmarks record makes one")
    return sorted(results, key=lambda result: str(result["at"]))


def compare(old: Path | None = None, new: Path | None = None, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Rows of the ratios of two results; without files, of the newest and the newest before it that can be compared.

    Such are of the same kind of machine, with at least one ratio on the same clips and settings; rows say why others
    are not compared. The newest, also of a file with several, is the last in which a ratio was measured. One file alone
    is compared with what was recorded before it.
    """
    return rows(*_pair(old, new, folder))


def rows(before: Result, after: Result) -> list[dict[str, Any]]:
    """A ratio each; `change` is None, and `why_not` says why, where it cannot be compared."""
    made = []
    for figure in RATIOS:
        a, b = figure.of(before), figure.of(after)
        why_not = None if a and b is not None else "not measured in both"
        if not why_not and not _measured_alike(figure.keys[0], before, after):
            why_not = "other clips or settings"
        change = None if why_not or not a or b is None else b / a - 1
        names = before["commit"] or "old", f"{after['commit'] or 'new'} "
        made.append({"ratio": figure.name, names[0]: a, names[1]: b, "change": change, "why_not": why_not})
    return made


def fallen(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The ratios that fell by more than they may."""
    return [f"{row['ratio']} {row['change']:+.0%}" for row in rows if (row["change"] or 0) < -FALL_MAX]


def trend(path: Path, folder: Path = RESULTS) -> int:
    """Draw frames a second over commits, int8 and float32, as PNG; returns the number of results in it.

    Only results of the machine of the newest one: times do not carry over.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        raise InputNotFoundError(f"matplotlib is not installed: {pip('install', 'matplotlib')}") from None
    results = read_all(folder)
    name = machine_name(results[-1]["machine"])
    results = [result for result in results if machine_name(result["machine"]) == name]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    places = range(len(results))
    for key, colour in (("int8", "#0a7d53"), ("float32", "#b3541e")):
        axes[0].plot(places, [_network_fps(r, key) for r in results], "o-", color=colour, label=key)
    lines = {"int8": "fps", "float32": "float32_fps", "decoding alone": "decode_fps", "naive loop": "naive_fps"}
    colours = ("#0a7d53", "#b3541e", "#888888", "#6a51a3")
    for (label, key), colour in zip(lines.items(), colours, strict=True):
        values = [_number(result.get("pipeline", {}).get("total", {}).get(key)) for result in results]
        axes[1].plot(places, values, "o-", color=colour, label=label)
    axes[0].set(title="the network, one face a call, one thread", ylabel="faces/s")
    axes[1].set(title="the pipeline on files, median over clips", ylabel="frames/s", yscale="log")
    for axis in axes:
        axis.set_xticks(list(places), [f"{r['commit']}\n{r['at'][:10]}" for r in results], rotation=45, ha="right")
        axis.set_ylim(bottom=0 if axis is axes[0] else None)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"{results[-1]['machine']['processor']}, {results[-1]['machine']['cores']} cores", fontsize=10)
    with writing(path):
        figure.savefig(path, dpi=110, format="png")
    return len(results)


def _pair(old: Path | None, new: Path | None, folder: Path) -> tuple[Result, Result]:
    if old is not None and new is not None:
        return _newest(_read(old)), _newest(_read(new))
    results = read_all(folder)
    after = _newest(results if old is None else _read(old))
    for before in reversed(results):
        if str(before["at"]) < str(after["at"]) and _can_be_compared(before, after):
            return before, after
    raise InputNotFoundError(
        f"{folder}: no earlier result of such a machine with a ratio on the same clips and settings: nothing could be "
        "compared; compare OLD NEW takes two files"
    )


def _newest(results: Sequence[Result]) -> Result:
    """The last one in which a ratio was measured; of none, the last one."""
    return next(
        (made for made in reversed(results) if any(figure.of(made) is not None for figure in RATIOS)), results[-1]
    )


def _can_be_compared(before: Result, after: Result) -> bool:
    """Of one kind of machine, with a ratio that was measured alike in both."""
    if machine_name(before["machine"]) != machine_name(after["machine"]):
        return False
    return any(row["change"] is not None for row in rows(before, after))


def _measured_alike(part: str, before: Result, after: Result) -> bool:
    return _conditions(before.get(part)) == _conditions(after.get(part))


def _conditions(part: Any) -> list[Any]:
    """What the figures of a part hang on besides the code: another of them is another figure, neither rise nor fall."""
    part = part if isinstance(part, dict) else {}
    names = sorted(str(row.get("clip")) for row in part.get("clips") or [])
    over_time = part.get("time") or {}
    return [
        *(names, part.get("overrides") or [], part.get("n"), part.get("method")),
        *(over_time.get("clip"), over_time.get("minutes")),
    ]


def _append(result: Result, path: Path) -> None:
    if "accuracy" in result:
        accuracy = result["accuracy"]
        accuracy["deployed_over_direct"] = ratio(accuracy["deployed"], accuracy["direct"])
    part = path.with_suffix(".part")
    _write([*_recorded(path), result], part)
    part.replace(path)


def _write(results: Sequence[Result], path: Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


def _recorded(path: Path) -> list[Result]:
    """What is in this file already."""
    return _read(path) if path.is_file() else []


def _in_one_line(error: Exception) -> str:
    if isinstance(error, EmotiondError):
        return " ".join(str(error).split())
    first = next(iter(str(error).strip().splitlines()), "")  # browsers' errors have a page of advice behind it
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _read(path: Path) -> list[Result]:
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BadDataError(f"{path}: not JSON: {error}") from None
    kept = isinstance(results, list) and all(isinstance(one, dict) and set(STAMP) <= set(one) for one in results)
    if not (kept and results):
        raise BadDataError(f"{path}: not a file of results; python -m benchmarks record makes them")
    return results


def _without_stamp(result: Result) -> Result:
    return {key: value for key, value in result.items() if key not in STAMP}


def _network_fps(result: Result, model: str) -> float:
    rows = result.get("inference", {}).get("rows", [])
    of_one = [row["fps"] for row in rows if (row["model"], row["threads"]) == (model, 1)]
    return _number(of_one[0] if of_one else None)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
