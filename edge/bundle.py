"""Model bundles: a network with its labels, golden set and card in one signed file, installed whole or not at all.

A bundle is a tar of `FILES` and `manifest.json`. `python -m convert.bundle` makes one, minisign signs it. In the
folder of `model.folder` each installed one has a folder of its own; `current` and `previous` are links to two of them.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.classifier import INSTALLED, NETWORK, TfliteClassifier, is_link
from edge.config import ModelConfig
from edge.errors import BadDataError, ConfigError, InputNotFoundError, UsageError
from edge.golden import NAME as GOLDEN
from edge.golden import prove
from edge.labels import EMOTIONS
from edge.minisign import PublicKey
from edge.output import naming_file
from edge.statefolder import sync_folder

log = logging.getLogger(__name__)

MANIFEST, CARD = "manifest.json", "README.md"
FILES = (NETWORK, GOLDEN, CARD)
FORMAT = 1
BUNDLE_MAX = 64 * 1024 * 1024  # bytes; the shipped network has 1.6 million
SIGNATURE_MAX = 4096
SHIPPED = "the network that comes with emotiond"
PREVIOUS = "previous"
MADE = re.compile(r"\d+-[0-9a-f]{12}-\w{8}")  # names of the folders that `install` makes


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds. `version` is a whole number that grows; `files` are their names and contents."""

    name: str
    version: int
    files: dict[str, bytes]

    @property
    def model_id(self) -> str:
        """What events call the network."""
        return hashlib.sha256(self.files[NETWORK]).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} {self.version} (model {self.model_id})"


def verify(path: Path, config: ModelConfig, unsigned: bool) -> tuple[Bundle, str]:
    """A bundle whose signature holds, which is whole, and whose network gives its golden scores on this device; and
    the signature's trusted comment. unsigned: take one without a signature.

    Raises InputNotFoundError, BadDataError, ConfigError.
    """
    content = _read(path, BUNDLE_MAX)
    comment = "unsigned"
    if not unsigned:
        if config.public_key is None:
            raise ConfigError("model.public_key: not set; without it only --unsigned bundles can be taken")
        signature = path.with_name(path.name + ".minisig")
        text = _read(signature, SIGNATURE_MAX).decode(errors="replace")
        comment = PublicKey.parse(config.public_key).verify(content, text, str(signature))
    # What was verified is what is unpacked: the file is not read again.
    bundle = unpack(content, str(path))
    with tempfile.TemporaryDirectory() as folder:
        _write(bundle, Path(folder))
        _prove(Path(folder), config, str(path))
    return bundle, comment


def unpack(content: bytes, name: str) -> Bundle:
    """The files of a bundle, checked against its manifest. Raises BadDataError."""
    try:
        files = _files_of(content, name)
        manifest: dict[str, Any] = json.loads(files[MANIFEST])
        if manifest["format"] != FORMAT:
            raise BadDataError(
                f"{name}: format {manifest['format']}: made for another emotiond; this one knows {FORMAT}"
            )
        if manifest["labels"] != list(EMOTIONS):
            raise BadDataError(f"{name}: labels {manifest['labels']}: must be {list(EMOTIONS)}")
        for each in FILES:
            if manifest["sha256"][each] != hashlib.sha256(files[each]).hexdigest():
                raise BadDataError(f"{name}: {each}: damaged: not what the manifest says")
        title, version = manifest["name"], manifest["version"]
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadDataError(f"{name}: not a model bundle: {error}") from None
    if not (isinstance(title, str) and title.isprintable() and type(version) is int and version > 0):
        raise BadDataError(f"{name}: the manifest's version must be a whole number from 1, its name a text")
    return Bundle(title, version, files)


def _files_of(content: bytes, name: str) -> dict[str, bytes]:
    """What a tar holds, by name. Raises BadDataError if that is not what a bundle does, and what tarfile raises."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        members = archive.getmembers()
        if sorted(member.name for member in members) != sorted((MANIFEST, *FILES)):
            raise BadDataError(f"{name}: not a model bundle: it must hold {', '.join((MANIFEST, *FILES))}, no more")
        files = {}
        for member in members:
            part = archive.extractfile(member) if member.isfile() else None
            if part is None:
                raise BadDataError(f"{name}: {member.name}: not a plain file")
            files[member.name] = part.read()
        return files


def pack(bundle: Bundle) -> bytes:
    """A bundle as a file; the same bundle gives the same bytes."""
    manifest = {
        "format": FORMAT,
        "name": bundle.name,
        "version": bundle.version,
        "labels": EMOTIONS,
        "sha256": {name: hashlib.sha256(bundle.files[name]).hexdigest() for name in FILES},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        text = json.dumps(manifest, indent=1).encode()
        for name, content in [(MANIFEST, text), *((name, bundle.files[name]) for name in FILES)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Store:
    """The installed bundles of a folder."""

    def __init__(self, config: ModelConfig) -> None:
        if config.folder is None:
            raise ConfigError("model.folder: not set; it says where bundles are installed, e.g. /opt/emotiond/models")
        if config.path is not None:
            raise ConfigError("model.path: set, so an installed bundle would not be used; remove it")
        self._folder, self._config = config.folder, config

    def current(self) -> Bundle | None:
        """The installed bundle; None: the network that comes with emotiond. Raises BadDataError for a damaged one."""
        return self._bundle(INSTALLED)

    def install(self, bundle: Bundle, downgrade: bool) -> None:
        """Make it the one that the daemon takes at its next start. The one before is kept for `rollback`.

        Raises UsageError if it is not newer; downgrade: take it all the same.
        """
        with self._locked():
            previous = self._target(INSTALLED)
            try:
                current = self.current()
            except BadDataError as error:
                log.warning("%s", error)
                current, previous = None, self._target(PREVIOUS)
            if current is not None and bundle.version <= current.version and not downgrade:
                raise UsageError(f"{bundle}: not newer than what is installed, {current}; --downgrade takes it")
            place = Path(tempfile.mkdtemp(prefix=f"{bundle.version}-{bundle.model_id}-", dir=self._folder))
            try:
                _write(bundle, place)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)  # a full disk needs the room
                raise
            self._point(place.name, previous)

    def rollback(self) -> Bundle | None:
        """Change `current` and `previous` about; returns what is current then.

        Raises UsageError if nothing was installed, BadDataError if what is kept from before cannot be used any more.
        """
        with self._locked():
            current, previous = self._target(INSTALLED), self._target(PREVIOUS)
            if current is None and previous is None:
                raise UsageError(f"{self._folder}: nothing was installed: there is nothing to roll back")
            if previous is not None:  # it lay there for long: a start with a damaged one would end the service
                self._bundle(PREVIOUS)
                _prove(self._folder / PREVIOUS, self._config, str(self._folder / PREVIOUS))
            self._point(previous, current)
        return self.current()

    def _point(self, current: str | None, previous: str | None) -> None:
        if current is not None and MADE.fullmatch(current):
            _open_up(self._folder / current)
        # In this order: whatever is interrupted, `current` is one of the two, and whole.
        self._link(PREVIOUS, previous)
        self._link(INSTALLED, current)
        sync_folder(self._folder)
        for other in self._folder.iterdir():
            # Of one's own alone: somebody may have named a folder in which other things lie.
            if MADE.fullmatch(other.name) and other.name not in (current, previous):
                shutil.rmtree(other)

    def _link(self, name: str, target: str | None) -> None:
        if target is None:
            (self._folder / name).unlink(missing_ok=True)
            return
        new = self._folder / f"{name}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(self._folder / name)

    def _target(self, name: str) -> str | None:
        link = self._folder / name
        return link.readlink().name if is_link(link) else None

    def _bundle(self, name: str) -> Bundle | None:
        place = self._folder / name
        if not is_link(place):
            return None
        try:
            manifest = json.loads((place / MANIFEST).read_bytes())
            files = {each: (place / each).read_bytes() for each in FILES}
            return Bundle(str(manifest["name"]), int(manifest["version"]), files)
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = error.strerror if isinstance(error, OSError) else "its manifest is damaged"
            raise BadDataError(f"{place}: what is installed cannot be read: {what}; install a bundle over it") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            before = os.umask(0o022)  # the daemon is another user
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            finally:
                os.umask(before)
            with (self._folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{self._folder}: another install is under way") from None
                yield
        except OSError as error:
            advice = "; as root?" if isinstance(error, PermissionError) else ""
            raise ConfigError(f"model.folder: {error.filename or self._folder}: {error.strerror}{advice}") from None


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputNotFoundError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise BadDataError(f"{path}: larger than {most} bytes: not what it should be")
    return content


def _write(bundle: Bundle, folder: Path) -> None:
    for name, content in bundle.files.items():
        with naming_file(folder / name), (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _open_up(place: Path) -> None:
    """The daemon is another user. Earlier versions heeded root's umask."""
    place.chmod(0o755)
    for file in place.iterdir():
        file.chmod(0o644)


def _prove(folder: Path, config: ModelConfig, name: str) -> None:
    try:
        prove(TfliteClassifier(folder / NETWORK, config.runtime, config.threads))
    except ConfigError as error:
        told = str(error).replace(f"{folder}/", "").removeprefix("model.path: ")
        raise BadDataError(f"{name}: {told}") from None
