"""One page about a run: the data, the training, the mistakes, and what quantizing did. `python -m training report`."""

import base64
import csv
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from training import augment, checks, config, data, evaluate, metrics, plots
from training.config import TrainConfig
from training.dataset import Dataset
from training.run import HISTORY

MISTAKES, SAMPLES = 24, 10


@dataclass(frozen=True)
class Section:
    """A heading, words, and a picture or a table."""

    title: str
    text: str
    figure: Figure | None = None
    table: Sequence[Sequence[str]] = ()

    @property
    def file_name(self) -> str:
        """Of the picture."""
        return self.title.lower().replace(" ", "-").replace(",", "") + ".png"


def write(run: Path, dataset: Dataset, usage: str, parity: Path | None = None, others: Sequence[Path] = ()) -> Path:
    """Write `RUN/report/index.html` and its PNGs, and return the page's path.

    usage: the rows to judge on. parity: parity.json of a conversion. others: runs to compare with.
    Raises InputNotFoundError or BadDataError for a folder that is no run.
    """
    settings, history = read_run(run)
    judged = dataset.split(usage)
    scores = evaluate.open_model(run / "model.keras")(judged.images)
    result = metrics.summarize(scores, judged.labels)
    learned, _validation = data.training_and_validation(dataset, settings.validation_share, settings.validation_seed)
    sections = [
        _data_section(dataset),
        _samples_section(learned),
        _augmentation_section(learned, settings),
        _curves_section(history),
        _class_section(result, usage),
        Section("Confusion", "Each row is a true emotion.", plots.confusion(np.array(result["confusion"]))),
        _calibration_section(scores, judged),
        _mistakes_section(scores, judged),
    ]
    if parity is not None:
        sections.append(_parity_section(parity))
    if others:
        sections.append(_comparison_section([run, *others], dataset, usage))
    sections.append(_settings_section(settings))
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    for section in sections:
        if section.figure is not None:
            section.figure.savefig(folder / section.file_name, dpi=110)
    page = folder / "index.html"
    page.write_text(_page(run, usage, result, sections, folder))
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    return page


def read_run(run: Path) -> tuple[TrainConfig, list[dict[str, float]]]:
    """A run's settings and history. Raises InputNotFoundError or BadDataError."""
    for name in ("config.json", "history.csv", "model.keras"):
        if not (run / name).is_file():
            raise InputNotFoundError(f"{run / name}: not found; give a folder that `training train --out` wrote")
    with (run / "history.csv").open(newline="") as file:
        try:
            history = [{key: float(row[key]) for key in HISTORY} for row in csv.DictReader(file)]
        except (csv.Error, KeyError, ValueError, TypeError) as error:
            raise BadDataError(f"{run / 'history.csv'}: not a run's history: {error!r}") from error
    if not history:
        raise BadDataError(f"{run / 'history.csv'}: no epoch was finished")
    return config.load(run / "config.json"), history


def _data_section(dataset: Dataset) -> Section:
    found = checks.find_duplicates(dataset)
    within = ", ".join(f"{count:,} in {usage}" for usage, count in found.within.items()) or "none"
    text = (
        f"{len(dataset):,} pictures; {len(dataset.skipped)} rows skipped as empty or of one grey level. Exact repeats "
        f"of an earlier picture of the same split: {within}, {found.conflicting:,} of them under another label. "
        f"{found.across:,} Training pictures are in a test too. None of these Training rows was learned from."
    )
    return Section("Data", text, plots.class_distribution(dataset))


def _samples_section(learned: Dataset) -> Section:
    text = "Drawn at random. About one label in nine is wrong or open to argument (FER+ taggers)."
    return Section("Samples", text, plots.sample_faces(learned, SAMPLES, np.random.default_rng(0)))


def _augmentation_section(learned: Dataset, settings: TrainConfig) -> Section:
    originals = learned.images[:SAMPLES]
    versions = [augment.augment(originals, settings, np.random.default_rng(epoch))[..., 0] for epoch in (1, 2, 3)]
    text = (
        "The same pictures as the network saw them: flipped, moved, turned, sheared, relit, partly erased, "
        "with the noise of a detector's box. Mixup then blends pairs."
    )
    return Section("Augmentation", text, plots.augmented(originals, versions))


def _curves_section(history: Sequence[dict[str, float]]) -> Section:
    best = min(history, key=lambda entry: entry["val_loss"])
    seconds = sum(entry["seconds"] for entry in history)
    share = sum(entry["augment_s"] for entry in history) / max(seconds, 1e-9)
    text = (
        f"{len(history)} epochs in {seconds / 60:.0f} minutes, {share:.1%} of it augmentation. The averaged weights "
        f"of epoch {best['epoch']:.0f} were kept: validation loss {best['val_loss']:.3f}, accuracy "
        f"{best['val_accuracy']:.1%}."
    )
    return Section("Training", text, plots.curves(history))


def _class_section(result: dict[str, Any], usage: str) -> Section:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    rows = [("emotion", "precision", "recall", "F1", "rows")]
    for emotion, entry in result["per_class"].items():
        rows.append((emotion, *(percent(entry[key]) for key in ("precision", "recall", "f1")), f"{entry['n']:,}"))
    return Section("Per emotion", f"On {result['n']:,} rows of {usage}.", table=rows)


def _calibration_section(scores: np.ndarray, judged: Dataset) -> Section:
    text = "Of the faces about which the network is 70 % sure, 70 % should be right."
    return Section("Calibration", text, plots.calibration(metrics.reliability(scores, judged.labels)))


def _mistakes_section(scores: np.ndarray, judged: Dataset) -> Section:
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    wrong = np.flatnonzero(predicted != judged.labels)
    worst = wrong[np.argsort(-confidence[wrong])][:MISTAKES]
    captions = [f"{EMOTIONS[predicted[i]]} {confidence[i]:.0%}\n(label: {EMOTIONS[judged.labels[i]]})" for i in worst]
    text = "Wrong by FER2013's label, and surest of it. Many of these labels are the mistake."
    return Section("Most confident mistakes", text, plots.faces(judged.images[worst], captions, columns=8))


def _parity_section(path: Path) -> Section:
    try:
        found = json.loads(path.read_text())
        text = (
            f"On {found['n']:,} faces: accuracy {found['accuracy']['float32']:.2%} in float32, "
            f"{found['accuracy']['int8']:.2%} in int8; the same top emotion for {found['top1_agreement']:.2%}; mean "
            f"and largest change of a score {found['mean_abs_difference']:.4f} and {found['max_abs_difference']:.3f}. "
            f"Numbers over the bars are points of recall."
        )
        return Section("float32 against int8", text, plots.recall_by_format(found["per_class"]))
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(f"{path}: not a parity.json of `convert`: {error!r}") from error


def _comparison_section(runs: Sequence[Path], dataset: Dataset, usage: str) -> Section:
    rows = [("run", "balance", "epochs", "accuracy", "macro F1", "disgust precision", "disgust recall")]
    judged = dataset.split(usage)
    for run in runs:
        settings, history = read_run(run)
        result = metrics.summarize(evaluate.open_model(run / "model.keras")(judged.images), judged.labels)
        disgust = result["per_class"]["disgust"]
        shares = [f"{disgust[key]:.1%}" if disgust["n"] else "-" for key in ("precision", "recall")]
        balance = settings.balance if settings.balance == "none" else f"{settings.balance} {settings.balance_strength}"
        rows.append(
            (run.name, balance, str(len(history)), f"{result['accuracy']:.1%}", f"{result['macro_f1']:.3f}", *shares)
        )
    return Section("Runs compared", f"What balancing the classes did, on {usage}.", table=rows)


def _settings_section(settings: TrainConfig) -> Section:
    rows = [("setting", "value"), *((name, str(value)) for name, value in vars(settings).items())]
    return Section("Settings", "As in config.json.", table=rows)


def _page(run: Path, usage: str, result: dict[str, Any], sections: Sequence[Section], folder: Path) -> str:
    figures = (
        ("accuracy", f"{result['accuracy']:.1%}"),
        ("macro F1", f"{result['macro_f1']:.3f}"),
        ("calibration error", f"{result['ece']:.3f}"),
        ("faces", f"{result['n']:,}"),
    )
    tiles = "".join(f"<div><b>{value}</b><span>{html.escape(name)}</span></div>" for name, value in figures)
    body = "".join(_section(section, folder) for section in sections)
    return _TEMPLATE.format(title=html.escape(run.name), usage=html.escape(usage), tiles=tiles, body=body)


def _section(section: Section, folder: Path) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>"]
    if section.figure is not None:
        picture = base64.b64encode((folder / section.file_name).read_bytes()).decode("ascii")
        parts.append(f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,{picture}">')
    if section.table:
        head, *rows = section.table
        parts.append(f"<table>{_row(head, 'th')}{''.join(_row(row, 'td') for row in rows)}</table>")
    return f"<section>{''.join(parts)}</section>"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: training report</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #22303c; background: #f5f7f8; margin: 0 }}
main {{ max-width: 70rem; margin: 0 auto; padding: 2rem 1rem }}
h1 {{ margin: 0 }} h2 {{ margin: 0 0 .3rem; font-size: 1.15rem }} p {{ margin: .2rem 0 .8rem; color: #4a5a68 }}
section {{ background: #fff; border: 1px solid #e3e8ec; border-radius: 10px; padding: 1.2rem; margin: 1rem 0 }}
img {{ max-width: 100%; height: auto }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 }}
.tiles div {{ background: #fff; border: 1px solid #e3e8ec; border-radius: 10px }}
.tiles div {{ padding: .8rem 1.2rem; min-width: 8rem }}
.tiles b {{ display: block; font-size: 1.7rem }} .tiles span {{ color: #6b7a88 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: .25rem .9rem; border-bottom: 1px solid #e3e8ec }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0 }}
</style></head><body><main>
<h1>{title}</h1><p>Apparent facial emotion, judged on {usage}, one crop per face.</p>
<div class="tiles">{tiles}</div>
{body}
<p>This page holds pictures of FER2013, a research data set: keep it where the data set is kept. The network reports
apparent expression, not feelings.</p>
</main></body></html>
"""
