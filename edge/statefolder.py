"""Where what outlives the process is kept."""

import os
from pathlib import Path

from edge.config import SpoolConfig


def state_folder(config: SpoolConfig) -> Path | None:
    """Where events are kept; None is in memory. systemd's StateDirectory= is the default."""
    if config.folder is not None:
        return config.folder
    folders = os.environ.get("STATE_DIRECTORY", "")
    return Path(folders.split(":")[0]) if folders else None


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
