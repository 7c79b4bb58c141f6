"""The benchmarks as commands, run really and briefly; no figure of time is judged here, only form and honesty."""

import importlib.util
import inspect
import json
import sysconfig
import time
import tracemalloc
import venv
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_made import write_csv

from benchmarks import accuracy, cli, clips, contenders, daemon, events, faces, flicker, growth, people
from benchmarks.dashboard import delays_ms
from benchmarks.measure import in_turn, interleaved, table
from benchmarks_made import measured, run, write_short_clip
from conftest import ROOT, mosquitto
from convert import golden
from edge import clip
from edge.classifier import TfliteClassifier
from edge.config import Config, HaarConfig, MqttConfig
from edge.errors import EmotiondError, ServiceUnavailableError
from edge.haar import HaarDetector
from edge.labels import EMOTIONS
from edge.pipeline import Sight
from edge.preprocess import as_grey
from edge.records import Frame


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_short_clip(tmp_path_factory.mktemp("clips") / "middle.avi")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """The portrait's face as a picture of FER2013, (48, 48) grey."""
    image = next(image for at_s, image in clip.frames() if at_s >= 4)
    faces_found = HaarDetector(HaarConfig()).detect(Frame(image, 0, 0.0, datetime.now(timezone.utc), 0.0))
    box = max(faces_found, key=lambda face: face.confidence).box
    x, y, w, grey = box.x, box.y, box.w, as_grey(image)
    m = w // 6  # of what is around it, without which Haar does not know a face
    return cv2.resize(grey[y - m : y + w + m, x - m : x + w + m], (48, 48), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def fer(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    """FER2013's form with the portrait's face in it: right in four rows of six."""
    top = EMOTIONS.index(TfliteClassifier().classify([portrait])[0].top[0])
    other = (top + 1) % len(EMOTIONS)
    blank = np.full((48, 48), 128, np.uint8)
    rows = [(label, portrait, "PublicTest") for label in (top, top, top, top, other)]
    return write_csv(tmp_path_factory.mktemp("fer") / "fer2013.csv", [*rows, (top, blank, "PublicTest")])


@pytest.mark.parametrize("part", cli.PARTS)
def test_every_part_takes_the_options_that_it_offers_and_is_described(part: str) -> None:
    given = {cli.OPTIONS[option].get("dest", option) for option in cli.PARTS[part][1].split()}
    takes = inspect.signature(importlib.import_module(f"benchmarks.{part}").run).parameters
    assert given <= set(takes)
    assert {name for name, one in takes.items() if one.default is one.empty} <= given
    assert f"| `{part}` |" in (ROOT / "docs" / "benchmarks.md").read_text()


def test_inference_has_a_row_for_every_contender(tmp_path: Path) -> None:
    result = measured(tmp_path / "r.json", "inference", "--rounds", 1, "--no-keras")
    rows = {(row["runtime"], row["model"], row["threads"]): row for row in result["rows"]}
    assert set(result["rows"][0]) == {"runtime", "model", "threads", "median_ms", "p95_ms", "fps"}
    ratio = rows["litert", "int8", 1]["fps"] / rows["litert", "float32", 1]["fps"]
    assert result["int8_over_float32"] == pytest.approx(ratio)
    assert result["machine"]["cores"] >= 1
    assert str(ROOT) not in json.dumps(result)


def test_people_measures_pictures_and_videos(tmp_path: Path, short_clip: Path) -> None:
    options = ("--clip", short_clip, "--rounds", 1, "--limit", 12)
    result = measured(tmp_path / "r.json", "people", *options)
    assert result["image"]["pictures"] == 12
    assert result["image"]["faces"] >= 12
    assert result["image"]["pictures_per_s"] > 0
    assert result["image"]["start_s"] > 0
    (row,) = result["clips"]
    assert row["over_decode"] == pytest.approx(row["video_fps"] / row["decode_fps"])
    assert row["copy_over_decode"] == pytest.approx(row["copy_fps"] / row["decode_fps"])
    assert row["codec"]
    assert str(tmp_path) not in json.dumps(result)


def write_numbered(path: Path, frames: int) -> Path:
    """A clip whose frames are as bright as four times their number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for number in range(frames):
        writer.write(np.full((240, 320, 3), 4 * number, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("count", "expected"),
    [(6, [0, 10, 20, 30, 40, 50]), (40, [round(1.5 * n) for n in range(40)]), (1, [0]), (65, [*range(60), *range(5)])],
)
def test_pictures_are_spread_over_all_of_a_clip(tmp_path: Path, count: int, expected: list[int]) -> None:
    path = write_numbered(tmp_path / "numbered.avi", 60)
    assert [round(image.mean() / 4) for image in people.evenly(path, count)] == expected


def test_no_clip_is_held_in_memory_for_its_pictures(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "numbered.avi", 60)
    tracemalloc.start()
    try:
        for count in (6, 65):
            assert sum(1 for _ in people.evenly(path, count)) == count
        assert tracemalloc.get_traced_memory()[1] < 10 * 320 * 240 * 3  # of 60 frames
    finally:
        tracemalloc.stop()


def test_every_clip_gives_as_many_pictures_as_the_others(tmp_path: Path) -> None:
    chosen = [clips.Clip(str(number), write_numbered(tmp_path / f"{number}.avi", 60)) for number in range(3)]
    folder = people.write_pictures(tmp_path / "pictures", chosen, 4)
    means = [round(cv2.imread(str(file)).mean() / 4) for file in sorted(folder.iterdir())]
    assert means == [0, 30, 0, 0]


def test_pipeline_measures_the_file_the_stream_and_the_start(tmp_path: Path, short_clip: Path) -> None:
    options = ("--clip", short_clip.parent, "--rounds", 1, "--seconds", 1, "--starts", 1)
    result = measured(tmp_path / "r.json", "pipeline", *options)
    (row,) = result["clips"]
    assert row["clip"] == "middle"
    expected = {"fps", "naive_fps", "decode_fps", "latency_ms", "cpu_ms_per_frame", "decode_cpu_ms_per_frame"}
    assert expected | {"rss_mb", "cold_start_s"} <= set(row)
    assert row["fps"] > 0
    if contenders.has_keras():
        assert row["over_naive"] == pytest.approx(row["fps"] / row["naive_fps"])
    assert row["faces"] > 0.5
    assert set(row["latency_ms"]) == {"p50", "p95", "p99"}
    assert row["over_decode"] == pytest.approx(row["fps"] / row["decode_fps"])
    assert row["rss_mb"] > 10
    assert row["cold_start_s"] > 0
    assert str(tmp_path) not in json.dumps(result)


def test_accuracy_is_of_the_faces_found(tmp_path: Path, fer: Path) -> None:
    result = measured(tmp_path / "r.json", "accuracy", "--data", fer, EMOTIOND_CACHE=str(tmp_path))
    assert (result["n"], result["n_found"]) == (6, 5)  # nobody is found in a grey square
    assert result["found"] == pytest.approx(5 / 6)
    assert result["direct"] == pytest.approx(4 / 5)
    assert 0 <= result["deployed"] <= 1
    assert result["direct_ci95"][0] < result["direct"] < result["direct_ci95"][1]


def test_the_paper_says_what_the_figures_of_accuracy_are() -> None:
    # The network on the bare picture and on the daemon's crop, and the pipeline's smoothed scores.
    figures = accuracy.summary([(True, False, True), (True, True, True), (True, False, False)], asked=4)
    assert [round(3 * figures[name]) for name in ("direct", "deployed", "told", "lost")] == [3, 1, 2, 2]
    paper = (ROOT / "docs/benchmarks.md").read_text().partition("**accuracy.**")[2].partition("\n\n")[0]
    named = {key for key in figures if not key.endswith("_ci95") and key not in ("n", "n_found")}
    assert named == {key for key in named if f"`{key}`" in paper}


def test_detection_and_flicker_on_a_face_that_stays(tmp_path: Path, short_clip: Path) -> None:
    detection = measured(tmp_path / "d.json", "detection", "--clip", short_clip)
    assert detection["clips"][0]["faces"] == 1
    assert detection["total"]["recall"] > 0.8
    assert detection["total"]["id_switches"] == 0
    haar, mtcnn = detection["detectors"]
    assert (haar["detector"], haar["recall"]) == ("haar", 1.0)
    if importlib.util.find_spec("mtcnn") is None:
        assert (mtcnn["detector"], mtcnn["recall"]) == ("mtcnn: not installed, pip install '.[mtcnn]'", None)
    else:
        assert mtcnn["recall"] > 0.5
        assert mtcnn["frames"] == haar["frames"] >= 3
    flicker = measured(tmp_path / "f.json", "flicker", "--clip", short_clip)
    assert 1 < flicker["total"]["face_s"] <= 2
    assert flicker["change"]["of"] == "made scores"
    assert flicker["change"]["second_never_told"] == 0
    assert flicker["change"]["delay_s"]["p50"] > 0


def test_the_interval_of_what_is_lost_is_one_of_pairs() -> None:
    right, lost, won = (True, True, True), (True, False, True), (False, True, True)
    assert accuracy.summary([right], asked=1)["lost_ci95"] is None
    for count in (2, 3, 100):  # that no pair differs does not mean that none ever would
        low, high = accuracy.summary([right] * count, asked=count)["lost_ci95"]
        assert -1 < low < 0 < high < 1
    assert high < 0.03
    # By hand: shares of 11 and 5 of 102, and 1.96 times the root of (0.1569 - 0.0588**2) / 102.
    found = accuracy.summary([right] * 86 + [lost] * 10 + [won] * 4, asked=100)["lost_ci95"]
    assert found == pytest.approx([-0.0172, 0.1348], abs=1e-4)
    low, high = accuracy.summary([lost] * 2, asked=2)["lost_ci95"]
    assert low < 1 == high


def test_an_interval_is_printed_as_one() -> None:
    result = accuracy.summary([(True, True, True)] * 2, asked=2)
    shown = cli.show({"rows": [{"lost": [-0.6, 0.61]}], **result}).splitlines()
    assert shown[1].strip() == "-0.6 to 0.61"
    assert "lost_ci95: -0.693 to 0.693" in shown
    assert "lost_ci95" not in cli.show(accuracy.summary([(True, True, True)], asked=1))


def test_clips_of_one_name_have_a_column_each() -> None:
    rows = [{"clip": "a", **{f"figure{number}": value for number in range(12)}} for value in (1, 2)]
    assert cli.show({"clips": rows}).splitlines()[:2] == ["          a  a", "figure0   1  2"]


def test_only_faces_that_are_read_rightly_and_surely_stand_for_an_emotion(
    tmp_path: Path, short_clip: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTIOND_CACHE", str(tmp_path))
    made = golden.pictures()
    angry, doubtful = made[11], made[1]  # read as angry with 0.88, as sad with 0.56
    content = [("happy", portrait), ("happy", portrait), ("angry", portrait), ("angry", angry), ("sad", doubtful)]
    path = write_csv(tmp_path / "f.csv", [(EMOTIONS.index(name), image, "PublicTest") for name, image in content])
    # One from angry to happy and one back: a happy face labelled angry is none of either.
    assert flicker.run([short_clip], data=path)["change"]["sequences"] == 2


def test_growth_counts_faces_and_minutes(tmp_path: Path, short_clip: Path) -> None:
    result = measured(tmp_path / "r.json", "growth", "--clip", short_clip, "--minutes", 0.1, "--rounds", 1)
    assert {row["faces"]: row["found"] for row in result["faces"]["rows"]}[4] == 4
    assert len(result["time"]["rows"]) == 8
    assert result["time"]["rows"][-1]["minute"] == pytest.approx(0.1, abs=0.01)


def test_growth_over_time_does_not_count_the_start(short_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begins_late(config: Config) -> Iterator[Sight]:
        time.sleep(3)  # as long as loading the network may take on a busy machine
        yield from sights(config)

    sights = clips.sights
    monkeypatch.setattr(clips, "sights", begins_late)
    result = growth.run([short_clip], minutes=0.05, rounds=1, counts=(1, 2))
    assert result["time"]["rows"][0]["mean_ms"] < 100  # of eleven frames


def test_events_arrive_once_each_and_are_timed(tmp_path: Path) -> None:
    result = measured(tmp_path / "r.json", "events", "--rate", 40, "--seconds", 2)
    assert [row["spool"] for row in result["rows"]] == ["disk", "memory"]
    for row in result["rows"]:
        assert (row["lost"], row["repeats"]) == (0, 0)
        assert 0 < row["events"] <= 120
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["cpu_ms_per_event"] > 0


@pytest.mark.soak
def test_recovery_is_of_the_camera_and_of_the_broker(tmp_path: Path) -> None:
    mosquitto()
    result = measured(tmp_path / "r.json", "recovery", "--cycles", 1, "--away", 0.5)
    assert [(row["lost"], row["away_s"], row["cycles"]) for row in result["rows"]] == [
        ("camera", 0.5, 1),
        ("broker", 0.5, 1),
    ]
    assert all(0 <= row["median_s"] == row["max_s"] for row in result["rows"])


def test_an_empty_room_is_hardly_searched(tmp_path: Path) -> None:
    idle = measured(tmp_path / "r.json", "idle", "--seconds", 2)["idle"]
    assert idle["fps"] > 0
    assert idle["still_frames"] > 0
    assert idle["sweeps"] <= 3  # of 30 frames
    assert idle["core_percent"] > 0
    assert idle["reading_core_percent"] > 0


TOLD = (("angry", 50), ("angry", 60), ("surprise", 200), ("fear", 210))  # and the grey level of the picture
FACEX = """
class Classifier:
    def predict(self, image):
        assert image.ndim == 3
        return [{"bbox": (0, 0, 9, 9), "emot": self.detect_emotion(image[..., 0])}] * 2

    def detect_emotion(self, grey):
        assert grey.ndim == 2
        return {"happy": 0.1, "anger" if grey[0, 0] < 100 else "surprised": 0.9}


class PoolManager:
    def __init__(self, pool_size):
        pass

    def get_classifier(self):
        return Classifier()
"""


def test_a_peer_of_another_environment_is_measured_and_understood(tmp_path: Path, short_clip: Path) -> None:
    """A package of facex's form, which is too large to be installed here; its words for emotions are not ours."""
    venv.create(tmp_path / "peer")
    [packages] = (tmp_path / "peer").glob("lib/python*/site-packages")
    (packages / "opencv.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "facex.py").write_text(FACEX)
    (packages / "facex-7.dist-info").mkdir()
    (packages / "facex-7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: facex\nVersion: 7\n")
    rows = [(EMOTIONS.index(name), np.full((48, 48), level, np.uint8), "PublicTest") for name, level in TOLD]
    data = write_csv(tmp_path / "fer2013.csv", rows)
    python, output = tmp_path / "peer" / "bin" / "python", tmp_path / "result.json"
    run("peers", "--python", python, "--clip", short_clip, "--data", data, "--rounds", 1, "--json", output)
    result = json.loads(output.read_text())
    assert result["versions"] == {"facex": "7"}
    assert result["clips"][0]["facex faces"] == 2
    assert result["clips"][0]["over facex"] > 0
    right = {row["package"]: row["accuracy"] for row in result["pictures"]}
    assert right["facex"] == 0.75  # a frightened face is none that it names


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("detection", "--clip", "/nowhere.mkv"), 66, "--clip: /nowhere.mkv: no such file or folder"),
        (("pipeline", "--clip", "README.md"), 65, "--clip: README.md: not a video that OpenCV can read"),
        (("flicker", "--clip", "edge/assets"), 66, "--clip: edge/assets: holds no video"),
        (("accuracy", "--data", "/nowhere"), 66, "/nowhere: not found"),
        (("accuracy",), 65, "no data set"),
        (("growth", "--set", "emotion.dwel_s=1"), 78, "did you mean dwell_s?"),
        (("inference", "--json", "/nowhere/r.json"), 74, "/nowhere/r.json: cannot be written: No such file"),
        (("inference", "--python", "/nowhere/python"), 66, "--python: /nowhere/python: cannot be started"),
        (("inference", "--python", "/bin/true"), 65, "--python: /bin/true: tflite ended with 0: without a word"),
        (("trend", "--out", "/nowhere/t.png"), 74, "/nowhere/t.png: cannot be written: No such file"),
        (("compare", "a.json", "b.json", "c.json"), 2, "compare takes two files at most"),
        (("peers",), 66, "no peer is installed there"),
        (("compare", "/nowhere.json", "/nowhere.json"), 66, "/nowhere.json: No such file"),
    ],
)
def test_a_wrong_input_is_told_in_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(*arguments, code=code, EMOTIOND_DATA="")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("benchmarks: ")
    assert said in done.stderr


def test_a_daemon_that_says_nothing_is_told_with_how_long_it_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "PATIENCE_S", 1.0)
    nowhere = MqttConfig(broker="127.0.0.1", port=1)
    with (
        daemon.Daemon("builtin", nowhere, daemon.Inbox(), ["mqtt.broker=null"]) as silent,
        pytest.raises(ServiceUnavailableError, match=r"^the daemon sent no stats within 2 s$"),
    ):
        silent.message("stats", 1.0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("events", "--rate", 1, "--seconds", 1), 2, "events: fewer than two in 1 s at 1 a second"),
        (("events", "--rate", 0.1, "--seconds", 0.5), 2, "--seconds"),
        (("growth", "--set", "detector.min_face=600", "--rounds", 1), 70, "nobody, or always as many, are found"),
        (("events", "--rate", 20, "--seconds", 1, "--json", "/dev/full"), 74, "/dev/full: cannot be written: No space"),
    ],
)
def test_what_measuring_cannot_give_is_told_in_one_line(arguments: tuple[object, ...], code: int, said: str) -> None:
    done = run(*arguments, code=code)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("benchmarks: ")
    assert said in done.stderr
    assert ("p95_ms" in done.stdout) == (code == 74)  # what took its time is shown


def test_events_that_do_not_count_are_no_figure() -> None:
    assert events.counting({"a": 0.0, "b": 1.0, "c": 1.5}, {"b": 1.1, "c": 1.6}) == {"b": 1.0, "c": 1.5}
    with pytest.raises(EmotiondError, match="fewer than two"):
        events.counting({"a": 0.0, "b": 0.999, "c": 1.5}, {"b": 1.1, "c": 1.6})
    with pytest.raises(EmotiondError, match="fewer than two"):
        events.counting({"a": 0.0, "b": 1.0, "c": 1.5}, {"a": 0.1, "b": 1.1})


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, warm_up=1)
    assert "".join(calls) == "ab" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert {name: taken.shape for name, taken in times.items()} == {"a": (6,), "b": (6,)}
    assert "".join(in_turn("abc", 3)) == "abcbcacab"


def test_two_networks_that_disagree_are_no_pair() -> None:
    class Other(TfliteClassifier):
        def classify(self, crops):
            return super().classify([255 - np.roll(crop, 20) for crop in crops])

    with pytest.raises(EmotiondError, match="not one network"):
        contenders.check_agreement(TfliteClassifier(), Other(), faces.FACES)
    contenders.check_agreement(TfliteClassifier(), TfliteClassifier(), faces.FACES)


def test_a_network_that_is_off_the_golden_scores_is_not_measured(tmp_path: Path) -> None:
    for name in ("int8.tflite", "golden.npz"):
        (tmp_path / name).write_bytes((ROOT / "edge/models" / name).read_bytes())
    contenders.checked(tmp_path / "int8.tflite", "auto", 1)
    arrays = dict(np.load(tmp_path / "golden.npz"))
    arrays["int8_scores"] = np.roll(arrays["int8_scores"], 1, axis=1)
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(EmotiondError, match="off the golden scores"):
        contenders.checked(tmp_path / "int8.tflite", "auto", 1)


def test_a_table_has_its_columns_under_their_heads() -> None:
    assert table([{"a": 1.0, "name": "x"}, {"a": 22.5, "name": "yy"}]).splitlines() == [
        "a       name",
        "1.000   x   ",
        "22.500  yy  ",
    ]


def test_delays_are_from_each_publishing_to_its_own_showing() -> None:
    published = [(1000.0 + 200 * number, emotion) for number, emotion in enumerate(EMOTIONS * 2)]
    seen = [(at + 100 + number, emotion) for number, (at, emotion) in enumerate(published)]
    assert delays_ms(published, seen) == [100.0 + number for number in range(14)]
    assert delays_ms(published, seen[3:]) == [100.0 + number for number in range(3, 14)]  # not 1.4 s late
    assert delays_ms(published, [(999.0, EMOTIONS[0])]) == []
