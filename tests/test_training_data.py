"""Loading FER2013: both forms, FER+ votes, the cache, splits without leaks, and bad rows by number."""

import gzip
import lzma
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_made import FER2013, pattern, rows, write_csv, write_votes

from conftest import ROOT
from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from training import checks, data
from training.dataset import USAGES, Dataset, clear_majority, emotion_votes, soft_targets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMOTIOND_CACHE", str(folder))
    monkeypatch.delenv("EMOTIOND_DATA", raising=False)
    return folder


def test_a_csv_keeps_pixels_labels_usages_and_row_numbers(tmp_path: Path) -> None:
    content = rows(14, 7, 7)
    dataset = data.load(write_csv(tmp_path / "f.csv", content))
    assert dataset.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.images, np.stack([image for _, image, _ in content]))
    assert dataset.labels.tolist() == [label for label, _, _ in content]
    assert [USAGES[usage] for usage in dataset.usages] == [usage for _, _, usage in content]
    assert dataset.rows.tolist() == list(range(28))


@pytest.mark.parametrize(("suffix", "compress"), [("xz", lzma.compress), ("gz", gzip.compress)])
def test_compressed_csv_in_a_folder_is_found(tmp_path: Path, suffix: str, compress: object) -> None:
    plain = write_csv(tmp_path / "plain.csv", rows(7, 0))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f"fer2013.csv.{suffix}").write_bytes(compress(plain.read_bytes()))
    assert len(data.load(tmp_path / "d")) == 7


def test_the_environment_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTIOND_DATA", str(write_csv(tmp_path / "f.csv", rows(7, 0))))
    assert len(data.load()) == 7


def test_the_cache_is_used_and_follows_the_content(tmp_path: Path, cache: Path) -> None:
    path = write_csv(tmp_path / "f.csv", rows(7, 0))
    first = data.load(path)
    (kept,) = cache.iterdir()
    os.utime(kept, (1, 1))
    again = data.load(path)
    np.testing.assert_array_equal(first.images, again.images)
    assert (again.total, kept.stat().st_mtime) == (7, 1)
    assert len(data.load(write_csv(path, rows(14, 0)))) == 14


def test_a_damaged_cache_is_replaced(tmp_path: Path, cache: Path) -> None:
    path = write_csv(tmp_path / "f.csv", rows(7, 0))
    data.load(path)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:3000])
    assert len(data.load(path)) == 7
    assert kept.stat().st_size > 7 * 48 * 48


def test_a_cache_serves_every_user(tmp_path: Path, cache: Path) -> None:
    before = os.umask(0o022)
    try:
        data.load(write_csv(tmp_path / "f.csv", rows(7, 0)))
    finally:
        os.umask(before)
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o644


def test_a_cache_that_belongs_to_another_is_gone_round(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a shared folder where, as in /tmp, each may only remove and replace what is theirs."""
    path = write_csv(tmp_path / "f.csv", rows(7, 0))
    data.load(path)
    (kept,) = cache.iterdir()

    def refused(self: Path, *arguments: object, **named: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        unlinked = Path.unlink
        patch.setattr(Path, "unlink", lambda self, **named: (refused if self == kept else unlinked)(self, **named))
        patch.setattr(
            Path, "open", lambda self, *words, **named: (refused if self == kept else opened)(self, *words, **named)
        )
        assert len(data.load(path)) == 7
    assert list(cache.iterdir()) == [kept]
    assert "will be parsed again next time" in capsys.readouterr().err


def _broken(line: str) -> str:
    good = " ".join(["7", "9"] * 1152)
    return f"emotion,pixels,Usage\n3,{good},Training\n{line.replace('GOOD', good)}\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("7,GOOD,Training", "row 1: emotion is '7', expected 0 to 6"),
        ("x,GOOD,Training", "row 1: emotion is 'x'"),
        ("-1,GOOD,Training", "row 1: emotion is '-1'"),
        ("\x1f1,GOOD,Training", r"row 1: emotion is '\x1f1'"),
        ("3,1 2 3,Training", "row 1: 3 pixels, expected 48x48 = 2304"),
        ("3,GOOD 4,Training", "row 1: 2305 pixels"),
        ("3,GOOD four,Training", "row 1: pixels hold something that is not a whole number"),
        ("3,4.5 GOOD,Training", "row 1: pixels hold something that is not a whole number"),
        ("3,256" + " 1" * 2303 + ",Training", "row 1: pixel values 1 to 256"),
        ("3,GOOD,Trainin", "row 1: Usage is 'Trainin', expected one of Training, PublicTest, PrivateTest"),
        ("3,GOOD", "row 1: 2 fields"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(_broken(line))
    with pytest.raises(BadDataError) as error:
        data.load(path)
    assert str(error.value).startswith(f"{path}: {says}")
    assert error.value.exit_code == 65


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("emotion,Usage\n3,Training\n")
    with pytest.raises(BadDataError, match="no column pixels"):
        data.load(path)


def test_a_cut_off_archive_is_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv.xz"
    path.write_bytes(lzma.compress(write_csv(tmp_path / "f.csv", rows(7, 0)).read_bytes())[:-40])
    with pytest.raises(BadDataError, match="cannot be read as CSV"):
        data.load(path)


def test_empty_and_constant_training_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    flat = np.zeros((48, 48), np.uint8)
    path = write_csv(tmp_path / "f.csv", [*rows(2, 0), (3, flat, "Training"), (4, flat, "PublicTest")])
    path.write_text(path.read_text() + "5,,Training\n")
    dataset = data.load(path)
    assert dataset.skipped.tolist() == [2, 4]
    assert dataset.rows.tolist() == [0, 1, 3]  # the test keeps its flat row, as everyone's figure does
    assert dataset.total == 5


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="EMOTIOND_DATA"):
        data.load()
    with pytest.raises(InputNotFoundError, match="nowhere: not found"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(BadDataError, match="holds neither"):
        data.load(tmp_path)
    with pytest.raises(BadDataError, match="/dev/null: neither a file nor a folder"):
        data.load(Path("/dev/null"))


def _folders(root: Path) -> Path:
    for folder, name, label, count in (
        ("train", "Disgusted", 1, 2),
        ("train", "happy", 3, 1),
        ("test", "fearful", 2, 1),
    ):
        (root / folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            cv2.imwrite(str(root / folder / name / f"{index}.png"), pattern(label, index))
    return root


def test_kaggle_folders_with_other_spellings(tmp_path: Path) -> None:
    dataset = data.load(_folders(tmp_path / "k"))
    assert sorted(dataset.split("Training").labels.tolist()) == [1, 1, 3]
    assert dataset.split("test").labels.tolist() == [2]
    np.testing.assert_array_equal(dataset.split("test").images[0], pattern(2, 0))


def test_pictures_of_another_size_are_scaled(tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    cv2.imwrite(str(root / "test" / "fearful" / "big.png"), np.repeat(np.repeat(pattern(2, 5), 2, 0), 2, 1))
    assert data.load(root).split("test").images.shape == (2, 48, 48)


def test_an_unknown_class_folder_is_named(tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    (root / "train" / "bored").mkdir()
    with pytest.raises(BadDataError, match=r"train/bored: no emotion has this name"):
        data.load(root)


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("validation", r"k/validation: neither train nor test; rename it, or move it elsewhere"),
        (
            "train/happy/more",
            r"train/happy/more: a folder in an emotion's folder; move its pictures up, or it elsewhere",
        ),
    ],
)
def test_a_folder_that_would_not_be_read_is_refused(folder: str, says: str, tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    (root / folder).mkdir()
    cv2.imwrite(str(root / folder / "1.png"), pattern(3, 8))
    with pytest.raises(BadDataError, match=says):
        data.load(root)


def test_folders_may_be_named_in_capitals_and_hidden_ones_are_none(tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    (root / "train").rename(root / "Train")
    (root / "test").rename(root / "TEST")
    (root / ".git").mkdir()
    dataset = data.load(root)
    assert (len(dataset.split("Training")), len(dataset.split("test"))) == (3, 1)


def test_files_that_are_not_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _folders(tmp_path / "k")
    data.load(root)
    assert capsys.readouterr().err == ""
    (root / "README.md").write_text("about")
    (root / "train" / "happy" / "7.gif").write_bytes(b"GIF")
    cv2.imwrite(str(root / "train" / "1.png"), pattern(3, 8))  # of no emotion
    assert len(data.load(root)) == 4
    assert capsys.readouterr().err == (
        f"{root}: files that are not read: 3, README.md say; only .bmp .jpeg .jpg .png in train/<emotion>/ and "
        "test/<emotion>/ are\n"
    )


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    (root / "train" / "happy" / "9.png").write_text("no picture")
    with pytest.raises(BadDataError, match=r"9\.png: not a picture"):
        data.load(root)


def test_a_picture_whose_header_promises_a_wall_is_named(tmp_path: Path) -> None:
    root = _folders(tmp_path / "k")
    header = b"BM" + struct.pack("<IIIIiiHHI", 102, 0, 54, 40, 4, 100_000_000, 1, 24, 0)
    (root / "train" / "happy" / "9.png").write_bytes(header + bytes(76))
    with pytest.raises(BadDataError, match=r"9\.png: not a picture"):
        data.load(root)


def test_a_usage_without_rows_is_refused(tmp_path: Path) -> None:
    dataset = data.load(write_csv(tmp_path / "f.csv", rows(7, 7)))
    with pytest.raises(BadDataError, match=r"usage PrivateTest.*only Training, PublicTest"):
        dataset.split("PrivateTest")
    assert len(dataset.split("test")) == 7


def test_votes_follow_their_rows_past_skipped_ones(tmp_path: Path) -> None:
    content = [(0, np.zeros((48, 48), np.uint8), "Training"), *rows(7, 7)]
    dataset = data.load(write_csv(tmp_path / "f.csv", content), write_votes(tmp_path / "v.csv", content))
    assert clear_majority(dataset.votes).tolist() == dataset.labels.tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:-1], "13 rows do not align with the data set's 14"),
        (lambda lines: [lines[0], *lines[8:], *lines[1:8]], "row 0: Usage is 'PublicTest', but 'Training'"),
        (lambda lines: [*lines[:3], lines[3].replace("10", "ten"), *lines[4:]], "row 2: votes are"),
        (lambda lines: [*lines[:3], lines[3].replace("10", "\x1d10"), *lines[4:]], "row 2: votes are"),
    ],
)
def test_votes_that_do_not_align_are_refused(tmp_path: Path, change: object, says: str) -> None:
    content = rows(7, 7)
    votes = write_votes(tmp_path / "v.csv", content)
    votes.write_text("\n".join(change(votes.read_text().splitlines())) + "\n")
    with pytest.raises(BadDataError, match=says):
        data.load(write_csv(tmp_path / "f.csv", content), votes)


def test_votes_of_shifted_rows_are_refused(tmp_path: Path) -> None:
    content = rows(300, 14)
    csv = write_csv(tmp_path / "f.csv", content)
    whole = write_votes(tmp_path / "v.csv", content).read_text().splitlines(keepends=True)
    shifted = tmp_path / "shifted.csv"
    shifted.write_text("".join([whole[0], whole[300], *whole[1:300], *whole[301:]]))
    with pytest.raises(BadDataError, match="majorities agree with only .% of the labels"):
        data.load(csv, shifted)
    assert data.load(csv, tmp_path / "v.csv").votes is not None


def test_a_damaged_archive_is_bad_data(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(write_csv(tmp_path / "f.csv", rows(7, 7)).read_bytes()))
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    (tmp_path / "f.csv.gz").write_bytes(whole)
    with pytest.raises(BadDataError, match="f.csv.gz: "):
        data.load(tmp_path / "f.csv.gz")


def test_a_csv_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "f.csv", rows(7, 7))
    path.write_text("\ufeff" + path.read_text() + "\n\n", encoding="utf-8")
    assert len(data.load(path)) == 14


def test_an_export_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "f.csv", rows(7, 7))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from training.__main__ import main\n"
        f"sys.exit(main(['data', '--data', {str(csv)!r}, '--export-folders', {str(tmp_path / 'out')!r}]))"
    )
    env = {**os.environ, "EMOTIOND_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 74
    assert "training: " in done.stderr
    assert "00000.png: cannot be written: File too large" in done.stderr


def test_votes_are_found_beside_a_csv_only(tmp_path: Path) -> None:
    content = rows(7, 7)
    path, votes = write_csv(tmp_path / "fer2013.csv", content), write_votes(tmp_path / "fer2013new.csv", content)
    assert data.find_votes(path) == data.find_votes(tmp_path) == votes
    assert data.find_votes(_folders(tmp_path / "k")) is None


def _with_votes(counts: list[list[int]], labels: list[int]) -> Dataset:
    number = len(labels)
    zeros = np.zeros(number, np.int64)
    images = np.stack([pattern(label, index) for index, label in enumerate(labels)])
    return Dataset(images, np.array(labels), zeros, zeros, zeros[:0], number, np.array(counts, np.float32))


def test_soft_targets_blend_label_and_votes() -> None:
    # Six see anger, two sadness, and two something that has no place among the seven.
    dataset = _with_votes([[0, 0, 0, 2, 6, 0, 0, 1, 1, 0], [0] * 7 + [5, 5, 0]], [EMOTIONS.index("fear")] * 2)
    assert emotion_votes(dataset.votes)[0].tolist() == [6, 0, 0, 0, 2, 0, 0]
    targets = soft_targets(dataset, label_share=0.7, smoothing=0.0)
    np.testing.assert_allclose(targets[0], [0.3 * 0.75, 0, 0.7, 0, 0.3 * 0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(targets[1], np.eye(7)[2], atol=1e-6)  # nobody saw one of the seven: the label stands
    np.testing.assert_allclose(soft_targets(dataset, 0.7, 0.1).sum(axis=1), 1, atol=1e-6)
    # Not one tagger saw fear: the label may be one of the wrong ones, and loses half of its weight.
    doubted = soft_targets(dataset, 0.7, 0.0, doubt=0.5)
    np.testing.assert_allclose(doubted[0], [0.65 * 0.75, 0, 0.35, 0, 0.65 * 0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(doubted[1], targets[1])


def test_votes_can_stand_for_the_labels_that_such_faces_get() -> None:
    # Of the faces that all taggers call neutral, FER2013 labels a quarter sad; those called happy, happy.
    neutral, happy = [10] + [0] * 9, [0, 10] + [0] * 8
    labels = [EMOTIONS.index(name) for name in ["sad"] * 100 + ["neutral"] * 300 + ["happy"] * 400]
    dataset = _with_votes([neutral] * 400 + [happy] * 400, labels)
    targets = soft_targets(dataset, label_share=0, smoothing=0.0, votes_as="labelled")
    np.testing.assert_allclose(targets[0], targets[399], atol=1e-6)  # the votes alone decide
    assert abs(targets[0][EMOTIONS.index("sad")] - 0.25) < 0.02
    assert targets[400][EMOTIONS.index("happy")] > 0.97
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_a_majority_is_more_than_half_of_all_taggers() -> None:
    votes = np.array([[0, 6, 0, 0, 0, 0, 0, 0, 4, 0], [0, 5, 0, 0, 0, 0, 0, 0, 5, 0]], np.float32)
    assert clear_majority(votes).tolist() == [EMOTIONS.index("happy"), -1]


def test_copies_never_train_and_evaluate_at_once(tmp_path: Path) -> None:
    content = rows(140, 14)
    content += [(1, content[0][1], "Training"), (2, content[150][1], "Training"), (3, content[145][1], "PublicTest")]
    dataset = data.load(write_csv(tmp_path / "f.csv", content))
    found = checks.find_duplicates(dataset)
    assert (found.within, found.conflicting, found.across) == ({"Training": 1, "PublicTest": 1}, 2, 1)
    assert np.flatnonzero(found.redundant).tolist() == [154, 155]
    learned, validation = data.training_and_validation(dataset, 0.1, seed=3)
    evaluated = set(checks.fingerprints(dataset.split("test").images)) | set(checks.fingerprints(validation.images))
    assert not evaluated & set(checks.fingerprints(learned.images))
    assert len(learned) + len(validation) == 140


def test_the_validation_split_is_stratified_and_follows_the_seed(tmp_path: Path) -> None:
    dataset = data.load(write_csv(tmp_path / "f.csv", rows(210, 7)))
    _, first = data.training_and_validation(dataset, 0.1, seed=1)
    _, again = data.training_and_validation(dataset, 0.1, seed=1)
    _, other = data.training_and_validation(dataset, 0.1, seed=2)
    assert first.class_counts().tolist() == [3] * 7
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()


def test_the_class_table_counts_each_usage(tmp_path: Path) -> None:
    table = checks.class_table(data.load(write_csv(tmp_path / "f.csv", rows(8, 7))))
    assert table.splitlines()[1].split() == ["angry", "2", "1"]
    assert table.splitlines()[-1].split() == ["all", "8", "7"]


def test_importing_the_data_module_loads_no_framework() -> None:
    heavy = "{'keras', 'tensorflow', 'torch'}"
    code = f"import sys, training.data, training.__main__; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not FER2013.is_dir(), reason="FER2013 is not here (EMOTIOND_SHARED)")
def test_the_real_csv_loads_whole_and_again_the_same_from_the_cache() -> None:
    dataset = data.load(FER2013, data.find_votes(FER2013))
    again = data.load(FER2013)
    assert len(dataset.split("PublicTest")) == 3589
    assert len(dataset.split("Training")) + len(dataset.skipped) == 28535
    seen = clear_majority(dataset.votes)
    assert (seen == dataset.labels)[seen >= 0].mean() > 0.65  # far more than if the rows were misaligned
    np.testing.assert_array_equal(dataset.images, again.images)
