"""Model bundles: only what the key's owner signed and this device proves is installed, whole, and can be undone."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conftest import ROOT, Daemon, plain, wait_for
from edge.bundle import FILES

MODELS = ROOT / "edge/models"
SHIPPED = hashlib.sha256((MODELS / "int8.tflite").read_bytes()).hexdigest()[:12]


@dataclass
class Signer:
    """Signs as minisign does; that it does so is what the last test but one proves."""

    secret: Ed25519PrivateKey
    id: bytes

    @property
    def public(self) -> str:
        return base64.b64encode(b"Ed" + self.id + self.secret.public_key().public_bytes_raw()).decode()

    def sign(self, path: Path, comment: str = "from the tests", hashed: bool = True) -> None:
        content = path.read_bytes()
        signature = self.secret.sign(hashlib.blake2b(content).digest() if hashed else content)
        whole = self.secret.sign(signature + comment.encode())
        first, last = base64.b64encode((b"ED" if hashed else b"Ed") + self.id + signature), base64.b64encode(whole)
        text = f"untrusted comment: x\n{first.decode()}\ntrusted comment: {comment}\n{last.decode()}\n"
        path.with_name(path.name + ".minisig").write_text(text)


@pytest.fixture
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate(), os.urandom(8))


@pytest.fixture
def make(tmp_path: Path, signer: Signer) -> Callable[..., Path]:
    """Makes a signed bundle with the workstation's command; each version has a network file of its own."""

    def bundle(version: int, *, golden_off: float = 0.0, own_golden: bool = True) -> Path:
        folder = tmp_path / f"made{version}"
        shutil.copytree(MODELS, folder)
        # Behind a flatbuffer's end nobody reads: the same network, another hash.
        (folder / "int8.tflite").write_bytes((MODELS / "int8.tflite").read_bytes() + bytes([version % 256]) * 8)
        with np.load(folder / "golden.npz") as arrays:
            sha256 = hashlib.sha256((folder / "int8.tflite").read_bytes()).hexdigest() if own_golden else "0" * 64
            off = {"int8_scores": arrays["int8_scores"] + golden_off, "int8_sha256": np.array(sha256)}
            changed = {**arrays, **off}
        np.savez(folder / "golden.npz", **changed)
        out = tmp_path / f"{version}.bundle"
        command = ["-m", "convert.bundle", "--models", folder, "--version", str(version), "--out", out]
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT, capture_output=True)
        signer.sign(out)
        return out

    return bundle


@pytest.fixture
def model(start: Callable[..., Daemon], tmp_path: Path, signer: Signer) -> Callable[..., tuple[int, str, str]]:
    """Runs `emotiond model ...` with a folder and the key in its settings."""

    def run(*arguments: object, key: str | None = None) -> tuple[int, str, str]:
        options = ["--set", f"model.folder={tmp_path / 'store'}", "--set", f"model.public_key={key or signer.public}"]
        return start("model", *map(str, arguments), *options).finish(timeout=60)

    return run


@pytest.fixture
def used(start: Callable[..., Daemon], tmp_path: Path) -> Callable[[], str]:
    """The model that a real run's events name."""

    def run() -> str:
        options = ["--set", f"model.folder={tmp_path / 'store'}", "--set", "mqtt.broker=null"]
        arguments = ["--set", "camera.realtime=false", "--max-frames", "60", "--events", "-"]
        code, out, err = start("run", *arguments, *options).finish(timeout=60)
        assert code == 0, err
        (model_id,) = {json.loads(line)["model"] for line in out.splitlines()}
        return model_id

    return run


@pytest.mark.parametrize(
    ("given", "out", "code", "says"),
    [
        (("--version", "0"), "b.bundle", 65, "b.bundle: the manifest's version must be a whole number from 1"),
        (("--version", "-1"), "b.bundle", 65, "b.bundle: the manifest's version must be a whole number from 1"),
        (("--version", "1", "--name", "a\nb"), "b.bundle", 65, "b.bundle: the manifest's version must be"),
        (("--version", "1"), "/dev/full", 74, "/dev/full: cannot be written: No space left on device"),
    ],
)
def test_a_bundle_that_no_device_would_take_is_not_made(
    given: tuple[str, ...], out: str, code: int, says: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "convert.bundle", "--models", MODELS, *given, "--out", tmp_path / out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert says in done.stderr
    assert not (tmp_path / "b.bundle").exists()


def test_a_converted_network_without_a_card_is_told_what_is_missing_and_whose_it_is(tmp_path: Path) -> None:
    for name in ("int8.tflite", "golden.npz"):
        shutil.copy(MODELS / name, tmp_path)
    command = [sys.executable, "-m", "convert.bundle", "--models", tmp_path, "--version", "1", "--out", tmp_path / "b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    card = f"{tmp_path}/README.md: No such file or directory; the network's card, which you write\n"
    assert (done.returncode, done.stderr) == (66, f"convert.bundle: {card}")


def network_id(bundle: Path) -> str:
    with tarfile.open(bundle) as archive:
        return hashlib.sha256(archive.extractfile("int8.tflite").read()).hexdigest()[:12]


def test_install_and_rollback_change_what_the_daemon_runs(make, model, used, start, tmp_path: Path) -> None:
    one, two, three = make(1), make(2), make(3)
    code, out, err = model("verify", one)
    assert (code, err) == (0, "")
    assert network_id(one) in out and "from the tests" in out
    assert used() == SHIPPED
    assert model("install", one)[0] == 0
    assert used() == network_id(one)
    assert model("install", two)[0] == 0
    assert used() == network_id(two)
    code, out, _ = model("rollback")
    assert (code, used()) == (0, network_id(one))
    assert model("rollback")[0] == 0
    assert used() == network_id(two)
    assert model("install", three)[0] == 0
    # The one before is kept, the one before that is not.
    kept = [path.name for path in (tmp_path / "store").iterdir() if path.is_dir() and not path.is_symlink()]
    assert sorted(name.split("-")[0] for name in kept) == ["2", "3"]
    code, out, _ = start("check", "--set", f"model.folder={tmp_path / 'store'}", "--set", "mqtt.broker=null").finish(60)
    assert network_id(three) in out and "gives the scores that it must" in out


def test_nothing_else_in_the_folder_is_touched(make, model, tmp_path: Path) -> None:
    theirs = tmp_path / "store/bin/python"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("not ours")
    for version in (1, 2, 3):
        assert model("install", make(version))[0] == 0
    assert model("rollback")[0] == 0
    assert theirs.read_text() == "not ours"


def test_a_running_daemon_takes_it_when_it_is_told_to_reload(make, model, broker, subscribe, start, tmp_path) -> None:
    bundle, subscriber = make(1), subscribe(broker.port)
    settings = {"model.folder": str(tmp_path / "store"), "mqtt.stats_interval_s": 0.2}
    daemon = start("run", *plain(broker.port, **settings))

    def told() -> list[str]:
        # Not of its events: where nothing changes in a face, the next one is its end.
        return [json.loads(text)["model"] for text in subscriber.texts("emotiond/pi/stats")]

    wait_for(lambda: SHIPPED in told(), "figures of the shipped network")
    assert model("install", bundle)[0] == 0
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: told()[-1] == network_id(bundle), "figures of the installed one", 120)


def test_rolling_the_first_one_back_leads_to_the_shipped_network(make, model, used) -> None:
    assert model("rollback")[0] == 2
    assert model("install", make(7))[0] == 0
    code, out, _ = model("rollback")
    assert (code, "comes with emotiond" in out, used()) == (0, True, SHIPPED)


def test_no_downgrade_without_a_flag(make, model, used) -> None:
    old, new = make(4), make(5)
    assert model("install", new)[0] == 0
    for again in (old, new):
        code, _, err = model("install", again)
        assert (code, err.count("\n"), "--downgrade" in err) == (2, 1, True)
    assert used() == network_id(new)
    assert model("install", old, "--downgrade")[0] == 0
    assert used() == network_id(old)


def test_a_sound_bundle_can_be_installed_over_a_damaged_one(make, model, used, tmp_path: Path) -> None:
    one, two, three = make(1), make(2), make(3)
    assert model("install", one)[0] == 0
    assert model("install", two)[0] == 0
    (tmp_path / "store/current/manifest.json").write_text("{")
    code, _, err = model("install", three)
    assert (code, err.count("\n"), "manifest is damaged" in err) == (0, 1, True)
    assert used() == network_id(three)
    assert model("rollback")[0] == 0
    assert used() == network_id(one), "the damaged one is not what to go back to"
    shutil.rmtree((tmp_path / "store/current").resolve())
    code, _, err = model("install", three)
    assert (code, "No such file" in err) == (0, True)
    assert used() == network_id(three)


def test_a_damaged_bundle_is_not_rolled_back_to(make, model, used, tmp_path: Path) -> None:
    one, two = make(1), make(2)
    assert model("install", one)[0] == 0
    assert model("install", two)[0] == 0
    kept = (tmp_path / "store/previous").resolve()
    network = (kept / "int8.tflite").read_bytes()
    for damage in (network[:-1], network[:1000] + bytes(1000) + network[2000:], b""):
        (kept / "int8.tflite").write_bytes(damage)
        code, out, err = model("rollback")
        assert (code, out, err.count("\n")) == (65, "", 1)
        assert err.startswith(f"emotiond: {tmp_path}/store/previous: int8.tflite: ")
    shutil.rmtree(kept)
    code, _, err = model("rollback")
    assert (code, f"{tmp_path}/store/previous: " in err, "No such file" in err) == (65, True, True)
    assert used() == network_id(two), "what was sound goes on"


def test_nothing_unsigned_without_a_flag(make, model, used, signer: Signer) -> None:
    bundle = make(1)
    signature = bundle.with_name(bundle.name + ".minisig")
    signature.unlink()
    assert model("install", bundle)[0] == 66
    signature.write_text("not a signature\n")
    assert model("install", bundle)[0] == 65
    signer.sign(bundle)
    code, _, err = model("install", bundle, key=Signer(Ed25519PrivateKey.generate(), os.urandom(8)).public)
    assert (code, "not with model.public_key" in err) == (65, True)
    # The right id, another key: what a forger would do.
    Signer(Ed25519PrivateKey.generate(), signer.id).sign(bundle)
    code, _, err = model("install", bundle)
    assert (code, "does not hold" in err) == (65, True)
    assert model("install", bundle, key="RWnonsense")[0] == 78
    assert used() == SHIPPED
    assert model("install", bundle, "--unsigned")[0] == 0
    assert used() == network_id(bundle)


def test_a_changed_byte_or_comment_is_noticed(make, model, signer: Signer) -> None:
    bundle = make(1)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    code, _, err = model("verify", bundle)
    assert (code, err.count("\n"), "does not hold" in err) == (65, 1, True)
    code, _, err = model("verify", bundle, "--unsigned")
    assert (code, "damaged" in err) == (65, True)
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    signature = bundle.with_name(bundle.name + ".minisig")
    signature.write_text(signature.read_text().replace("from the tests", "from a friend"))
    assert model("verify", bundle)[0] == 65


def test_a_network_that_is_not_sound_here_is_not_installed(make, model, used) -> None:
    code, _, err = model("install", make(1, golden_off=0.2))
    assert (code, err.count("\n"), "off by 0.2" in err) == (65, 1, True)
    code, _, err = model("install", make(2, own_golden=False))
    assert (code, err.count("\n"), "not the network of the golden.npz" in err) == (65, 1, True)
    assert used() == SHIPPED


def rebuilt(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with tarfile.open(bundle) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    change(files)
    with tarfile.open(bundle, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def manifest(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["manifest.json"] = json.dumps({**json.loads(files["manifest.json"]), **changes}).encode()

    return change


@pytest.mark.parametrize(
    "change",
    [
        manifest(labels=["happy", "sad"]),
        manifest(format=2),
        manifest(version="9"),
        manifest(version=0),
        manifest(sha256={}),
        lambda files: files.pop("README.md"),
        lambda files: files.update({"../../outside": b"x"}),
        lambda files: files.update({"manifest.json": b"["}),
    ],
    ids=["labels", "format", "text version", "version 0", "no hashes", "no card", "a path outside", "no JSON"],
)
def test_what_is_not_a_bundle_is_refused_even_if_it_is_signed(make, model, signer: Signer, change) -> None:
    bundle = make(1)
    rebuilt(bundle, change)
    signer.sign(bundle)
    code, _, err = model("install", bundle)
    assert (code, err.count("\n"), "Traceback" in err) == (65, 1, False), err


def test_a_link_in_a_bundle_is_refused(make, model, signer: Signer) -> None:
    bundle = make(1)
    with tarfile.open(bundle) as archive:
        manifest_text = archive.extractfile("manifest.json").read()
    with tarfile.open(bundle, "w") as archive:
        for name in ("manifest.json", *FILES):
            member = tarfile.TarInfo(name)
            if name == "int8.tflite":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = 0 if member.issym() else len(manifest_text)
            archive.addfile(member, io.BytesIO(manifest_text))
    signer.sign(bundle)
    assert model("verify", bundle)[0] == 65


def test_signatures_of_minisign_itself_are_taken(make, model, tmp_path: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not installed (tests/system_packages.sh installs it)")
    key, secret, bundle = tmp_path / "key.pub", tmp_path / "key.sec", make(1)
    subprocess.run(["minisign", "-G", "-W", "-p", key, "-s", secret], check=True, capture_output=True)
    public = key.read_text().splitlines()[1]
    for legacy in ([], ["-l"]):
        sign = ["minisign", "-S", *legacy, "-s", secret, "-m", bundle, "-t", "release 1"]
        subprocess.run(sign, check=True, capture_output=True)
        code, out, err = model("verify", bundle, key=public)
        assert (code, "release 1" in out) == (0, True), err


def test_what_root_installs_under_a_strict_umask_is_for_the_daemon_to_read(make, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = tmp_path / "opt/models"
    command = [
        sys.executable,
        "-m",
        "edge",
        "model",
        "install",
        make(1),
        "--unsigned",
        "--set",
        f"model.folder={store}",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, env=env, umask=0o077, capture_output=True)
    for path in (store.parent, store, *(store / "current").resolve().iterdir()):
        assert path.stat().st_mode & 0o055 == (0o055 if path.is_dir() else 0o044), path


def test_what_was_closed_to_the_daemon_is_opened_by_the_rollback_to_it(make, model, tmp_path: Path) -> None:
    for version in (1, 2):
        assert model("install", make(version))[0] == 0
    place = (tmp_path / "store/previous").resolve()
    for path in (place, *place.iterdir()):  # as an earlier version made it under root's umask 077
        path.chmod(path.stat().st_mode & 0o700)
    assert model("rollback")[0] == 0
    assert (tmp_path / "store/current").resolve() == place
    for path in (place, *place.iterdir()):
        assert path.stat().st_mode & 0o055 == (0o055 if path.is_dir() else 0o044), path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """With room for one bundle, and not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_told_with_its_file_and_nothing_is_left_on_it(make, start, small_disk: Path) -> None:
    one, two = make(1), make(2)
    options = ["--unsigned", "--set", f"model.folder={small_disk / 'store'}"]
    assert start("model", "install", str(one), *options).finish()[0] == 0
    before = sorted(path.name for path in (small_disk / "store").iterdir())
    code, out, err = start("model", "install", str(two), *options).finish()
    assert (code, out) == (78, "")
    assert re.fullmatch(f"emotiond: model.folder: {small_disk}/store/2-.*/int8.tflite: No space left on device\\n", err)
    assert sorted(path.name for path in (small_disk / "store").iterdir()) == before
    code, _, err = start("model", "verify", str(two), "--unsigned", env={"TMPDIR": str(small_disk)}).finish()
    assert (code, [path.name for path in small_disk.iterdir()]) == (74, ["store"])
    assert re.fullmatch(f"emotiond: {small_disk}/.*/int8.tflite: No space left on device\\n", err)


def test_links_that_a_copy_made_folders_of_are_told(make, model, start, tmp_path: Path) -> None:
    """Else the device would go back to the network that came with emotiond without a word."""
    assert model("install", make(1))[0] == 0
    current = tmp_path / "store/current"
    whole = current.resolve()
    current.unlink()
    shutil.copytree(whole, current)
    said = f"emotiond: model.folder: {current}: is a folder and no link, as after a copy that follows links; remove it"
    options = ["--set", f"model.folder={tmp_path / 'store'}", "--set", "mqtt.broker=null"]
    for code, _, err in (start("run", *options).finish(), model("install", make(2)), model("rollback")):
        assert (code, err) == (78, f"{said}, and install the bundle anew\n")


def test_a_folder_that_cannot_be_one_is_named_with_its_key(make, model, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    code, _, err = model("install", make(1))
    assert (code, err) == (78, f"emotiond: model.folder: {tmp_path / 'store'}: File exists\n")


def test_settings_that_contradict_are_told(make, start, tmp_path: Path) -> None:
    bundle = make(1)
    code, _, err = start("model", "install", str(bundle), "--unsigned").finish()
    assert (code, "model.folder" in err) == (78, True)
    options = ["--set", f"model.folder={tmp_path / 's'}", "--set", f"model.path={MODELS / 'int8.tflite'}"]
    code, _, err = start("model", "install", str(bundle), "--unsigned", *options).finish()
    assert (code, "model.path" in err) == (78, True)
    code, _, err = start("model", "verify", str(bundle)).finish()
    assert (code, "model.public_key" in err) == (78, True)
