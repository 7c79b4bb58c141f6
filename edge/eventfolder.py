"""The place of the events' file: what is found there is opened, put aside where it is damaged, and kept there."""

import logging
from pathlib import Path

from edge.eventfile import NAME, DamagedError, EventFile
from edge.statefolder import keep_private

log = logging.getLogger(__name__)


def open_or_begin(folder: Path, behind: int = 0) -> EventFile:
    """The folder's file; one that is damaged is put aside, and a new one begun."""
    try:
        file = EventFile(folder, behind)
    except DamagedError as error:
        log.error("%s is damaged (%s): put aside as %s, a new one is begun", folder, error, put_aside(folder))
        return EventFile(folder, behind)
    if file.count:
        log.info("events of an earlier run that wait in %s: %d", folder, file.count)
    return file


def kept_in_place(file: EventFile, behind: int) -> EventFile:
    """The file; where it was deleted or replaced under this process, another with its rows that is in its place.

    What is found in that place comes behind the number `behind`, which is not below the file's highest.
    """
    if not file.has_its_name():
        successor = open_or_begin(file.path.parent, behind)
        try:
            successor.take(file)
        except BaseException:
            successor.close()
            raise
        file.close()
    elif not file.log_has_its_name():
        successor = file
        file.renew_log()
    else:
        return file
    log.error("%s was deleted or replaced under this process; written anew with the events that wait", file.path)
    return successor


def put_aside(folder: Path) -> Path:
    """Rename a damaged database, over one that was put aside before, and return its new name."""
    aside = folder / f"{NAME}.damaged"
    for suffix in ("", "-wal"):
        if (folder / f"{NAME}{suffix}").exists():
            keep_private((folder / f"{NAME}{suffix}").replace(f"{aside}{suffix}"))
    return aside
