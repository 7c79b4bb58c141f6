"""Where what outlives the process is kept, for nobody else to read: it says who was in view, and when."""

import os
from contextlib import suppress
from pathlib import Path

from edge.config import SpoolConfig


def state_folder(config: SpoolConfig) -> Path | None:
    """Where events are kept; None is in memory. systemd's StateDirectory= is the default."""
    if config.folder is not None:
        return config.folder
    folders = os.environ.get("STATE_DIRECTORY", "")
    return Path(folders.split(":")[0]) if folders else None


def make_folder(folder: Path) -> None:
    """Make a private folder, with those above it. One that is there keeps its mode. Raises OSError."""
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path) -> None:
    """Make a private file, empty, if there is none. Raises OSError."""
    # sqlite gives its log and its journal the mode of the database. One that is there is not even opened: closing it
    # would take away the locks that this process may have on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def keep_private(*paths: Path) -> None:
    """As `make_file` makes them: files that were made before it did. Another user's are left as they are."""
    for path in paths:
        with suppress(OSError):
            path.chmod(0o600)


def sync_folder(folder: Path) -> None:
    """Return when the medium has the names of new files, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leads_to(path: Path, status: os.stat_result) -> bool:
    """Whether a path is still the name of the file that had this status, and neither of another file nor of none."""
    try:
        return os.path.samestat(path.stat(), status)
    except (FileNotFoundError, NotADirectoryError):
        return False
