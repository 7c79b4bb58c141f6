"""What people name on the command line: the pictures that are read, and where things are written.

A place is refused before the work, so that nothing is lost: not what is read, not another output, not the work.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import cv2

from edge.errors import InputNotFoundError, UsageError
from edge.files import PICTURE_SUFFIXES
from edge.output import DRAWN_SUFFIXES, naming_file
from edge.videofile import SUFFIXES as VIDEO_SUFFIXES

STILL_SUFFIXES = (
    PICTURE_SUFFIXES
    | {".dib", ".gif", ".jfif", ".jpe", ".pbm", ".pnm"}
    | {suffix for suffix in (".avif", ".jp2") if cv2.haveImageWriter(f"x{suffix}")}  # not built into every OpenCV
)
NO_TABLES = STILL_SUFFIXES | {*VIDEO_SUFFIXES, ".flv", ".m4v", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}

Output = tuple[str, Path]
"""An option as it is typed, and a file that it makes."""


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """The files that names, folders and patterns stand for, each once. A file that is named is taken whatever it is.

    Raises InputNotFoundError for a name that stands for nothing, and UsageError for none.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        if not text:  # a script's variable that is not set; Path would take it for this folder
            raise UsageError("IN: is empty; name a picture, a folder (this one is .) or a pattern")
        path = Path(text)
        if path.is_dir():
            pictures = sorted(
                file for file in path.iterdir() if file.suffix.lower() in STILL_SUFFIXES and not file.is_dir()
            )
            problem = "no pictures in this folder"
        elif path.exists():
            pictures = [path]
        else:
            # Not Path.glob, which takes no absolute pattern.
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
            pictures = [match for match in matches if match.is_file()]
            problem = "no such file or folder" if not glob.has_magic(text) else "no file is named like this"
        if not pictures:
            raise InputNotFoundError(f"{text}: {problem}")
        found.update(dict.fromkeys(pictures))
    return list(found)


def beside(table: Path, word: str) -> Path:
    """The name of a second table: `faces-events.csv` beside `faces.csv`."""
    return table.with_name(f"{table.stem}-{word}{table.suffix}")


def refuse_picture_name(option: str, path: Path) -> None:
    """Raise UsageError unless a picture in colours can be written to a file of this name."""
    _refuse_folder(option, path, "read.png")
    if path.suffix.lower() not in DRAWN_SUFFIXES:
        raise UsageError(f"{option} {path}: must end in {', '.join(sorted(DRAWN_SUFFIXES))}")


def refuse_video_name(option: str, path: Path) -> None:
    """Raise UsageError unless a video can be written to a file of this name."""
    _refuse_folder(option, path, "read.mp4")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"{option} {path}: must end in {', '.join(VIDEO_SUFFIXES)}")


def refuse_table_name(option: str, path: Path) -> None:
    """Raise UsageError for what is no name of a table."""
    _refuse_folder(option, path, "faces.csv")
    if str(path) == "-":
        raise UsageError(f"{option} -: tables go to files, not to standard output; name one, such as faces.csv")
    # `--output-csv *.jpg`, when the table's name was forgotten.
    if path.suffix.lower() in NO_TABLES:
        raise UsageError(f"{option} {path}: is named like a picture or a video; name a table, such as faces.csv")


def _refuse_folder(option: str, path: Path, example: str) -> None:
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file, such as {path / example}")


def refuse_clashes(outputs: Iterable[Output], read: Iterable[Path]) -> None:
    """Raise UsageError for an output that is one of the files that are `read`, by whatever name, or another output."""
    inputs = {_identity(path) for path in read}
    writers: dict[object, str] = {}
    for option, path in outputs:
        identity = _identity(path)
        if identity is None:
            continue
        if identity in inputs:
            raise UsageError(f"{option}: {path} is one of the files that are read; choose another name")
        if identity in writers:
            raise UsageError(f"{option}: {path} is written by {writers[identity]} too; choose another name")
        writers[identity] = option


def _identity(path: Path) -> object:
    """Equal for two names of one file, there or not; None for what several may share: a folder, a device, a pipe."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def try_places(outputs: Iterable[Output]) -> None:
    """Raise OSError, with its name in it, for a file that cannot be written. Nothing is changed."""
    for _, path in outputs:
        with naming_file(path):
            _try(Path(os.path.realpath(path)))


def _try(target: Path) -> None:
    folder = target.parent
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        folder.stat()
        if not os.access(folder, os.W_OK | os.X_OK):
            number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number)) from None
    else:
        if stat.S_ISREG(mode):  # a pipe would wait for its reader
            target.open("ab").close()
