"""Coverage-guided fuzzing of what reads other people's bytes: `python tests/fuzz.py config|command|dataset [-runs=N]`.

Needs atheris. Whatever an input does other than being taken or refused with the error that is meant for it ends the
run, and leaves the input in a file crash-...
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge", "training", "yaml"]):
    from edge.commands import NotACommandError, parse
    from edge.configfile import load
    from edge.errors import EmotiondError
    from training import data

# In memory where there is such a folder: a million files are written.
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
SEEDS = {
    "config": (Path(__file__).parent.parent / "config.yaml").read_bytes(),
    "command": b"\0pause\0off",
    "dataset": b"emotion,pixels,Usage\n3," + b" ".join([b"128"] * 48 * 48) + b",Training\n",
}


def config(content: bytes) -> None:
    """A settings file."""
    path = FOLDER / "c.yaml"
    path.write_bytes(content)
    try:
        load(path)
    except EmotiondError as error:
        assert "\n" not in str(error)


def command(content: bytes) -> None:
    """The first byte says whether it is retained; then the topic's last level, NUL, and the payload."""
    name, _, payload = content[1:].partition(b"\0")
    try:
        parse(name.decode("utf-8", errors="surrogateescape"), payload, content[:1] == b"\1")
    except NotACommandError as error:
        assert str(error).isprintable()


def dataset(content: bytes) -> None:
    """FER2013's CSV."""
    path = FOLDER / "fer2013.csv"
    path.write_bytes(content)
    try:
        data.load(path)
    except EmotiondError as error:
        assert "\n" not in str(error)


TARGETS: dict[str, Callable[[bytes], None]] = {"config": config, "command": command, "dataset": dataset}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(TARGETS)} [-runs=N] [other options of libFuzzer]")
    name = sys.argv.pop(1)
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEEDS[name])
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
