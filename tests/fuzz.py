"""Coverage-guided fuzzing of what reads other people's bytes: `python tests/fuzz.py PARSER [-runs=N]`.

Needs atheris. Whatever an input does other than being taken or refused with the error that is meant for it ends the
run, and leaves the input in a file crash-... Inputs are short (a parser in Python takes its time for each character)
and begin near to what is right: one setting each, faces of 2x2 pixels.
"""

import gzip
import json
import lzma
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(1 << 20)  # a header that claims gigapixels is refused at once
os.environ["OPENCV_LOG_LEVEL"] = "OFF"

import atheris
import cv2
import numpy as np

with atheris.instrument_imports(include=["edge", "training", "yaml"]):
    import yaml

    from edge.commands import NotACommandError, parse
    from edge.config import DETECTORS, Config
    from edge.configfile import load
    from edge.errors import EmotiondError
    from training import readers
    from training.data import attach_votes
    from training.dataset import VOTE_COLUMNS, Dataset

# In memory where there is such a folder: a million files are written.
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
LENGTH_MAX = 256  # bytes
SHIPPED = yaml.safe_load((Path(__file__).parent.parent / "config.yaml").read_text(encoding="utf-8"))
KEYS = sorted(
    {f"{section}.{key}" for section, given in SHIPPED.items() if isinstance(given, dict) for key in given}
    | {f"detector.{key}" for detector in DETECTORS.values() for key in detector.model_fields}
    | Config.model_fields.keys()
)
EMPTY = FOLDER / "empty.yaml"
EMPTY.write_text("")
CSV = b"emotion,pixels,Usage\n3,0 1 128 255,Training\n0,1 2 3 4,PublicTest\n"
VOTES = f"Usage,Image name,{','.join(VOTE_COLUMNS)}\n" + "Training,a.png,1,2,3,0,0,0,4,0,0,0\n" * 2
FACES = Dataset(np.zeros((2, 2, 2), np.uint8), *(np.array(rows) for rows in ([0, 1], [0, 0], [0, 1], [])), total=2)


def _refused_well(error: EmotiondError) -> None:
    assert "\n" not in str(error), "one line for people"


def _use(config: Config) -> None:
    """What is worked out of settings that were taken."""
    assert config.mqtt.use_tls in (True, False) and isinstance(config.mqtt.brokers, tuple)


def config(content: bytes) -> None:
    """A settings file."""
    path = FOLDER / "c.yaml"
    path.write_bytes(content)
    try:
        _use(load(path))
    except EmotiondError as error:
        _refused_well(error)


def settings(content: bytes) -> None:
    """Two bytes say which setting; the rest is its value, as the option --set takes it."""
    key = KEYS[int.from_bytes(content[:2], "little") % len(KEYS)]
    try:
        _use(load(EMPTY, [f"{key}={content[2:].decode('utf-8', errors='surrogateescape')}"]))
    except EmotiondError as error:
        _refused_well(error)


def command(content: bytes) -> None:
    """The first byte says whether it is retained; then the topic's last level, NUL, and the payload."""
    name, _, payload = content[1:].partition(b"\0")
    try:
        parse(name.decode("utf-8", errors="surrogateescape"), payload, content[:1] == b"\1")
    except NotACommandError as error:
        assert str(error).isprintable()


def dataset(content: bytes) -> None:
    """FER2013's CSV, plain or compressed."""
    suffix = ".gz" if content.startswith(b"\x1f\x8b") else ".xz" if content.startswith(b"\xfd7zXZ") else ""
    path = FOLDER / f"fer2013.csv{suffix}"
    path.write_bytes(content)
    try:
        faces = readers.read_csv(path)
        assert faces.images.shape == (len(faces), 2, 2) and len(faces) + len(faces.skipped) == faces.total
    except EmotiondError as error:
        _refused_well(error)


def votes(content: bytes) -> None:
    """FER+'s CSV."""
    path = FOLDER / "fer2013new.csv"
    path.write_bytes(content)
    try:
        assert attach_votes(FACES, path).votes.shape == (2, len(VOTE_COLUMNS))
    except EmotiondError as error:
        _refused_well(error)


def picture(content: bytes) -> None:
    """A picture in Kaggle's folders. OpenCV tells the format by the bytes, not by the name."""
    if content.startswith(b"\x89PNG"):
        return  # for each chunk OpenCV takes the memory that its length claims: gigabytes
    (FOLDER / "kaggle/train/happy/1.png").write_bytes(content)
    try:
        assert readers.read_folders(FOLDER / "kaggle").images.shape == (1, 48, 48)
    except EmotiondError as error:
        _refused_well(error)


def _pictures() -> list[bytes]:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return [cv2.imencode(suffix, image)[1].tobytes() for suffix in (".bmp", ".jpg")]


def _settings() -> list[bytes]:
    """Every setting of the shipped file."""
    seeds = []
    for number, key in enumerate(KEYS):
        section, _, name = key.partition(".")
        value = SHIPPED.get(section)
        value = value.get(name) if isinstance(value, dict) and name else value
        seeds.append(number.to_bytes(2, "little") + json.dumps(value).encode()[:LENGTH_MAX])
    return seeds


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "command": (command, lambda: [b"\0pause\0off", b"\1reload\0"]),
    "config": (config, lambda: [yaml.safe_dump({key: value}).encode()[:LENGTH_MAX] for key, value in SHIPPED.items()]),
    "settings": (settings, _settings),
    "dataset": (dataset, lambda: [CSV, gzip.compress(CSV), lzma.compress(CSV)]),
    "votes": (votes, lambda: [VOTES.encode()]),
    "picture": (picture, _pictures),
}


def _words(name: str) -> list[str]:
    """What an input is likely to hold."""
    if name in ("config", "settings"):
        return [*{word for key in KEYS for word in key.split(".")}, "null", "true", ".inf", ".nan", "1e400", "{", "- "]
    return ["Training", "PrivateTest", "255", "-1", "٣", "1e3"]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(TARGETS)} [-runs=N] [other options of libFuzzer]")
    name = sys.argv.pop(1)
    target, seeds = TARGETS[name]
    if name == "dataset":
        readers.FACE_SIZE = 2
    corpus, words = FOLDER / "corpus", FOLDER / "words"
    corpus.mkdir()
    (FOLDER / "kaggle/train/happy").mkdir(parents=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in _words(name))
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    # libFuzzer leaves by _exit: what was written is taken away by the process that waits for it.
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        shutil.rmtree(FOLDER)
        sys.exit(code)
    atheris.Setup([*sys.argv[:1], f"-max_len={LENGTH_MAX + 2}", f"-dict={words}", *sys.argv[1:], str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
