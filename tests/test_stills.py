"""`emotiond image` as people call it: what it finds, draws and writes, and what it says to bad pictures."""

import csv
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import PATIENCE_S, ROOT, as_ordinary_user, wait_for
from edge.labels import EMOTIONS
from edge.picturefile import decode, load
from edge.places import find_pictures
from edge.stills import FACES_HEADER

PORTRAIT = ROOT / "edge/assets/portrait.jpg"
GOLDEN = ROOT / "tests/golden/portrait.jpg"

LONG_S = 300.0  # for dozens of pictures on a busy machine
PROGRESS = re.compile(r"/s(, \d+:\d\d left)?$")


def image(
    *arguments: object,
    cwd: Path = ROOT,
    memory_mb: int | None = None,
    file_bytes: int | None = None,
    before: Sequence[str] = (),
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[str]:
    """`emotiond image`, perhaps with no more than this memory for data or room in a file, started by a program, or
    with another encoding of what it prints.
    """

    def limit() -> None:
        if memory_mb is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20,) * 2)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes,) * 2)

    done = subprocess.run(
        [*before, sys.executable, "-m", "edge", "image", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        encoding="utf-8",
        cwd=cwd,
        preexec_fn=limit,
    )
    # On a busy machine it also says how far it has come.
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if not PROGRESS.search(line))
    return done


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def picture(path: Path, pixels: np.ndarray | None = None, *options: int) -> Path:
    assert cv2.imwrite(str(path), np.full((120, 160, 3), 90, np.uint8) if pixels is None else pixels, list(options))
    return path


def test_one_picture_gives_a_drawing_and_two_tables(tmp_path: Path) -> None:
    drawn, table = tmp_path / "drawn.png", tmp_path / "faces.csv"
    done = image(PORTRAIT, "--output-image", drawn, "--output-csv", table)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{PORTRAIT}: happy 9")
    (face,) = rows(table)
    assert tuple(face) == FACES_HEADER
    assert (face["picture"], face["face"], face["emotion"]) == (str(PORTRAIT), "1", "happy")
    assert sum(float(face[emotion]) for emotion in EMOTIONS) == pytest.approx(1, abs=0.05)
    assert abs(int(face["x"]) + int(face["w"]) / 2 - 224) < 10
    assert (face["picture_width"], face["picture_height"]) == ("512", "512")
    frequencies = {row["emotion"]: (row["faces"], row["share"]) for row in rows(tmp_path / "faces-frequencies.csv")}
    assert frequencies == {**dict.fromkeys((*EMOTIONS, "uncertain"), ("0", "0.0")), "happy": ("1", "1.0")}
    # Made by this command and looked at. JPEG and the versions of OpenCV differ by a little.
    difference = np.abs(cv2.imread(str(drawn)).astype(int) - cv2.imread(str(GOLDEN)))
    assert difference.mean() < 3
    assert (difference > 60).mean() < 0.005


def test_people_some_metres_away_are_found_in_a_large_picture(tmp_path: Path) -> None:
    group = np.full((2600, 4000, 3), 120, np.uint8)
    person = cv2.resize(cv2.imread(str(PORTRAIT)), (800, 800))
    places = [(100, 100), (1600, 1700), (3100, 400)]
    for x, y in places:
        group[y : y + 800, x : x + 800] = person  # whose face is 150 px wide
    done = image(picture(tmp_path / "group.png", group), "--json")
    assert done.returncode == 0
    found = [(x + w / 2, y + h / 2) for x, y, w, h in (face["box"] for face in json.loads(done.stdout)["faces"])]
    for x, y in places:
        assert any(abs(at[0] - x - 350) < 30 and abs(at[1] - y - 178) < 30 for at in found)


@pytest.mark.parametrize("seed", [6, 13, 20])
def test_what_only_one_cascade_takes_for_a_face_in_a_large_picture_is_none(tmp_path: Path, seed: int) -> None:
    random, shapes = np.random.default_rng(seed), np.full((3000, 4000), 128, np.uint8)
    for _ in range(4000):
        centre = (int(random.integers(4000)), int(random.integers(3000)))
        axes = (int(random.integers(8, 120)), int(random.integers(8, 120)))
        cv2.ellipse(shapes, centre, axes, float(random.integers(180)), 0, 360, int(random.integers(256)), -1)
    shapes = cv2.GaussianBlur(shapes, (0, 0), 4)
    done = image(picture(tmp_path / "shapes.png", shapes), "--json")
    assert (done.returncode, json.loads(done.stdout)["faces"]) == (0, [])


def test_many_pictures_in_their_order_with_a_summary(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    portrait = cv2.imread(str(PORTRAIT))
    for number in range(6):
        picture(folder / f"{number}.png", portrait if number % 2 else None)
    (folder / "notes.txt").write_text("no picture")
    done = image(folder, str(tmp_path / "in" / "*.png"), "--output-image", tmp_path / "new" / "out")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.rsplit("/", 1)[1][:6] for line in lines[:-1]] == [f"{number}.png:"[:6] for number in range(6)]
    assert [line.endswith("no face found") for line in lines[:-1]] == [True, False] * 3
    assert lines[-1] == "pictures: 6, faces: 3 (happy 3)"
    assert sorted(file.name for file in (tmp_path / "new" / "out").iterdir()) == [f"{n}.png" for n in range(6)]
    assert (cv2.imread(str(tmp_path / "new/out/1.png")) != portrait).any()


def test_files_are_finished_when_nobody_reads_the_lines_any_more(tmp_path: Path) -> None:
    folder, table = tmp_path / "in", tmp_path / "faces.csv"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02d}.jpg").symlink_to(PORTRAIT)
    (folder / "damaged.jpg").write_text("no picture")
    arguments = [folder, "--json", "--output-csv", table, "--output-image", tmp_path / "drawn"]
    command = [sys.executable, "-m", "edge", "image", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)
    child.stdout.close()
    child.stderr.close()
    assert child.wait(LONG_S) == 65
    assert [Path(row["picture"]).name for row in rows(table)] == [f"{number:02d}.jpg" for number in range(60)]
    assert {row["emotion"]: row["faces"] for row in rows(tmp_path / "faces-frequencies.csv")}["happy"] == "60"
    assert len(list((tmp_path / "drawn").iterdir())) == 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_the_rows_of_what_was_read(tmp_path: Path, number: signal.Signals) -> None:
    folder, table, drawn = tmp_path / "in", tmp_path / "faces.csv", tmp_path / "drawn"
    folder.mkdir()
    for index in range(5000):
        (folder / f"{index:04d}.jpg").symlink_to(PORTRAIT)
    command = [sys.executable, "-m", "edge", "image", folder, "--output-csv", table, "--output-image", drawn]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (drawn / "0009.jpg").exists(), "pictures are read", LONG_S)
    child.send_signal(number)
    said = child.communicate(timeout=LONG_S)[1]
    assert child.returncode == 130
    assert [line for line in said.splitlines() if not PROGRESS.search(line)] == []
    assert 2 < len(rows(table)) < 5000


def test_json_has_an_object_a_picture(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    done = image("--json", PORTRAIT, empty, picture(tmp_path / "nobody.png"))
    assert done.returncode == 65
    portrait, broken, nobody = map(json.loads, done.stdout.splitlines())
    assert portrait["size"] == [512, 512]
    assert portrait["faces"][0]["emotion"] == "happy"
    assert list(portrait["faces"][0]["scores"]) == list(EMOTIONS)
    assert broken == {"v": 1, "picture": str(empty), "problem": "the file is empty"}
    assert nobody["faces"] == []


def test_nobody_in_it_is_said_and_fine(tmp_path: Path) -> None:
    done = image(picture(tmp_path / "nobody.png"), "--output-csv", tmp_path / "faces.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/nobody.png: no face found\n"
    assert (tmp_path / "faces.csv").read_text().strip() == ",".join(FACES_HEADER)


def test_exif_rotation_is_honoured(tmp_path: Path) -> None:
    sideways = cv2.imencode(".jpg", cv2.rotate(cv2.imread(str(PORTRAIT)), cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    # One EXIF entry: orientation (0x0112) 6, "turn it 90 degrees clockwise".
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "sideways.jpg"
    path.write_bytes(sideways[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + sideways[2:])
    done = image("--json", path)
    (face,) = json.loads(done.stdout)["faces"]
    assert face["emotion"] == "happy"
    assert abs(face["box"][0] + face["box"][2] / 2 - 224) < 10


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_memory_is_taken_for_it(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(30_000, 30_000, bytes(90_001 * 100)))  # 2.7 GB when decoded
    done = image(bomb, memory_mb=1500)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr == f"emotiond: {bomb}: has too many pixels; make it smaller first\n"


def test_a_very_large_jpeg_is_read_at_half_its_size(tmp_path: Path) -> None:
    large = np.full((7000, 8000, 3), 128, np.uint8)
    large[1500:5500, 2000:6000] = cv2.resize(cv2.imread(str(PORTRAIT)), (4000, 4000))
    done = image("--json", picture(tmp_path / "large.jpg", large))
    message = json.loads(done.stdout)
    assert message["size"] == [4000, 3500]
    assert len(message["faces"]) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.png", b"", "the file is empty"),
        ("text.jpg", b"this is not a picture", "not a picture that OpenCV can read"),
        ("cut.png", png(64, 64, b"")[:40], "not a picture that OpenCV can read"),
    ],
)
def test_what_is_no_picture_is_named_and_the_others_are_read(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = image(name, PORTRAIT, cwd=tmp_path)
    assert done.returncode == 65
    assert done.stderr.splitlines()[-1] == f"emotiond: {name}: {said}"
    assert "happy" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["a.png", ""], 2, "IN: is empty; name a picture, a folder (this one is .) or a pattern"),
        (["a.png", "b.png", "--output-image", ""], 2, "--output-image: is empty; name a folder (this one is .)"),
        (["missing.jpg"], 66, "missing.jpg: no such file or folder"),
        (["*.jpg"], 66, "*.jpg: no file is named like this"),
        (["empty"], 66, "empty: no pictures in this folder"),
        (["a.png", "--output-csv", "none/x.csv"], 74, "none/x.csv: No such file or directory"),
        (["a.png", "--output-csv", "/dev/full"], 74, "/dev/full: No space left on device"),
        (["a.png", "--output-image", "none/x.png"], 74, "none/x.png: No such file or directory"),
        (["a.png", "--output-image", "x.odt"], 2, "--output-image x.odt: must end in .bmp, .jpeg, .jpg, .png"),
        (["a.png", "--output-image", "x.pgm"], 2, "--output-image x.pgm: must end in .bmp, .jpeg, .jpg, .png"),
        (["a.png", "--output-image", "x.exr"], 2, "--output-image x.exr: must end in .bmp, .jpeg, .jpg, .png"),
        (["a.png", "--output-image", "a.png"], 2, "--output-image: a.png is one of the files that are read"),
        (["a.png", "b.png", "--output-image", "."], 2, "--output-image: a.png is one of the files that are read"),
        (["a.png", "b.png", "--output-image", "a.png"], 2, "--output-image a.png: is a file, but several pictures"),
        (["a.png", "--output-image", "link.png"], 2, "--output-image: link.png is one of the files that are read"),
        (["--output-csv", "a.png", "b.png"], 2, "--output-csv a.png: is named like a picture or a video"),
        (["a.png", "--output-csv", "x.mp4"], 2, "--output-csv x.mp4: is named like a picture or a video"),
        (
            ["t.csv", "--output-csv", "t.csv"],
            2,
            "--output-csv: t.csv is one of the files that are read; choose another",
        ),
        (["t-frequencies.csv", "--output-csv", "t.csv"], 2, "--output-csv: t-frequencies.csv is one of the files that"),
        (
            ["a.png", "--output-csv", "t.csv", "--output-image", "t.png"],
            2,
            "--output-csv: t.csv is written by --output-",
        ),
        (["a.png", "--output-csv", "."], 2, "--output-csv .: is a folder; name a file, such as faces.csv"),
        (
            ["a.png", "--output-csv", "empty"],
            2,
            "--output-csv empty: is a folder; name a file, such as empty/faces.csv",
        ),
        (["a.png", "--output-csv", "-"], 2, "--output-csv -: tables go to files, not to standard output"),
        (["a.png", "--output-csv", "a.png/x.csv"], 74, "a.png/x.csv: Not a directory"),
        (["a.png", "--output-csv", f"{'x' * 250}.csv"], 74, f"{'x' * 250}-frequencies.csv: File name too long"),
        (["a.png", "--output-image", "x.odt", "--output-csv", "have.csv"], 2, "--output-image x.odt: must end in"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.png").hardlink_to(tmp_path / "a.png")
    for name in ("t.csv", "t-frequencies.csv", "have.csv"):
        (tmp_path / name).write_text("of yesterday\n")
    (tmp_path / "t.png").symlink_to("t.csv")
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    done = image(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(f"emotiond: {said}")
    assert done.stderr.count("\n") == 1
    after = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before


def test_every_common_kind_of_picture_becomes_eight_bit_colour(tmp_path: Path) -> None:
    portrait = cv2.imread(str(PORTRAIT))
    kinds = {
        "16 bits.png": portrait.astype(np.uint16) * 257,
        "alpha.png": np.dstack([portrait, np.full(portrait.shape[:2], 128, np.uint8)]),
        "grey.jpg": cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY),
        "16 bits.tiff": portrait.astype(np.uint16) * 257,
        "plain.webp": portrait,
    }
    paths = [picture(tmp_path / name, pixels) for name, pixels in kinds.items()]
    for path in paths:
        for grey, shape in ((False, (512, 512, 3)), (True, (512, 512))):
            pixels = decode(load(path), grey)
            assert (pixels.shape, pixels.dtype) == (shape, np.uint8)
    done = image(*paths)
    assert done.stdout.splitlines()[-1] == "pictures: 5, faces: 5 (happy 5)"


def test_a_folder_gives_every_kind_that_is_read_when_it_is_named(tmp_path: Path) -> None:
    portrait = cv2.imread(str(PORTRAIT))
    kinds = [".jpe", ".pnm", *(kind for kind in (".avif", ".jp2") if cv2.haveImageWriter(f"x{kind}"))]
    names = sorted([*(picture(tmp_path / f"a{kind}", portrait).name for kind in kinds), "b.JFIF"])
    (tmp_path / "b.JFIF").write_bytes(PORTRAIT.read_bytes())
    (tmp_path / "sub.png").mkdir()
    done = image("--json", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    read = {Path(still["picture"]).name: len(still["faces"]) for still in map(json.loads, done.stdout.splitlines())}
    assert read == dict.fromkeys(names, 1)


def test_cmyk_palettes_and_animations_are_read(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow, which writes them, comes with the extra `train`")
    portrait = pillow.open(PORTRAIT)
    portrait.convert("CMYK").save(tmp_path / "print.jpg")
    portrait.convert("P").save(tmp_path / "palette.png")
    first, second = portrait.convert("RGB"), pillow.new("RGB", portrait.size)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    done = image(tmp_path)
    assert done.stdout.splitlines()[-1] == "pictures: 3, faces: 3 (happy 3)"


def test_what_is_found_does_not_depend_on_what_is_written(tmp_path: Path) -> None:
    plain = image("--json", PORTRAIT)
    assert plain.stdout == image("--json", PORTRAIT, "--output-image", tmp_path / "drawn.png").stdout
    assert len(json.loads(plain.stdout)["faces"]) == 1


def test_names_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[2J.jpg"))
    odd.write_bytes(PORTRAIT.read_bytes())
    done = image(tmp_path, "--output-csv", tmp_path / "faces.csv", "--output-image", f"{tmp_path}/out/")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_json_has_the_names_that_are_there(tmp_path: Path) -> None:
    # A narrow space as in screenshots' times, a space that does not break, people joined to a family, a line's end.
    names = {"at 9.41\u202fAM.jpg", "a\u00a0b.jpg", "\U0001f468\u200d\U0001f469\u200d\U0001f467.jpg", "two\nlines.jpg"}
    for name in names:
        (tmp_path / name).symlink_to(PORTRAIT)
    (tmp_path / os.fsdecode(b"latin \xe9.jpg")).symlink_to(PORTRAIT)
    for encoding in ("utf-8", "ascii"):
        done = image(tmp_path, "--json", encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        read = {Path(json.loads(line)["picture"]).name for line in done.stdout.split("\n")[:-1]}
        assert read == {*names, "latin \\udce9.jpg"}
    lines = image(tmp_path).stdout.splitlines()
    assert len(lines) == 6  # and for a terminal nothing that steers it


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_knows_few_letters_is_written_to(tmp_path: Path, encoding: str) -> None:
    name = tmp_path / "\u0107\U0001f600.jpg"
    name.symlink_to(PORTRAIT)
    (tmp_path / "\u0142.jpg").write_text("no picture")
    done = image(tmp_path, encoding=encoding)
    assert done.returncode == 65
    assert done.stdout.startswith(f"{tmp_path}/\\u0107\\U0001f600.jpg: happy 9")
    assert done.stderr == f"emotiond: {tmp_path}/\\u0142.jpg: not a picture that OpenCV can read\n"


def test_each_file_is_read_once(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert find_pictures([str(tmp_path), str(path), f"{tmp_path}/**/*.png"]) == [path]


@pytest.mark.parametrize("linked", [False, True])
def test_a_picture_that_cannot_be_written_whole_leaves_the_one_before(tmp_path: Path, linked: bool) -> None:
    keep = picture(tmp_path / "keep.png")
    before = keep.read_bytes()
    target = keep
    if linked:
        target = tmp_path / "link.png"
        target.symlink_to("keep.png")
    names = sorted(tmp_path.iterdir())
    done = image(PORTRAIT, "--output-image", target, file_bytes=5000)  # as on a full disk
    assert (done.returncode, done.stderr) == (74, f"emotiond: {target}: File too large\n")
    assert keep.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == names
    keep.chmod(0o640)
    assert image(PORTRAIT, "--output-image", target).returncode == 0
    assert cv2.imread(str(keep)).shape == (512, 512, 3)
    assert keep.stat().st_mode & 0o777 == 0o640
    assert target.is_symlink() == linked
    assert sorted(tmp_path.iterdir()) == names


def test_a_picture_that_may_not_be_written_stays_as_it_is(tmp_path: Path) -> None:
    user = as_ordinary_user()
    keep, other = picture(tmp_path / "keep.png"), picture(tmp_path / "other.png")
    keep.chmod(0o444)
    before = keep.read_bytes()
    done = image(PORTRAIT, "--output-image", keep, before=user)
    assert (done.returncode, done.stderr) == (74, f"emotiond: {keep}: Permission denied\n")
    assert keep.read_bytes() == before
    tmp_path.chmod(0o555)  # where no file can be made beside it, what may be written still is
    done = image(PORTRAIT, "--output-image", other, before=user)
    tmp_path.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert cv2.imread(str(other)).shape == (512, 512, 3)


def test_a_picture_may_go_to_what_is_no_file(tmp_path: Path) -> None:
    for target, code in (("/dev/null", 0), ("/dev/full", 74)):
        link = tmp_path / f"{code}.png"
        link.symlink_to(target)
        assert image(PORTRAIT, "--output-image", link).returncode == code
        assert link.is_symlink()
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["sh", "-c", 'cat "$0" >read.png', pipe], cwd=tmp_path)
    assert image(PORTRAIT, "--output-image", pipe).returncode == 0
    assert reader.wait(PATIENCE_S) == 0
    assert cv2.imread(str(tmp_path / "read.png")).shape == (512, 512, 3)
