"""systemd/install, into a folder in place of the system's, with pip and `python3 -m venv` as they are."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

SOURCES = ("systemd", "edge", "training", "convert")
FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "config.yaml")


class System:
    """A checkout and a system's files in a folder. systemctl is none, and this user is taken for root."""

    def __init__(self, folder: Path) -> None:
        self.root, self.checkout, self._programs = folder / "root", folder / "checkout", folder / "programs"
        self.venv = self.root / "opt/emotiond"
        for name in SOURCES:
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.checkout)
        script = self.checkout / "systemd/install"
        script.write_text(re.sub(r"/(opt|etc)/(?=emotiond|systemd)", rf"{self.root}/\1/", script.read_text()))
        (self.root / "etc/systemd/system").mkdir(parents=True)
        (self.root / "opt").mkdir()
        self._programs.mkdir()
        for program, answer in (("dpkg", "echo arm64"), ("id", "echo 0"), ("systemctl", 'test "$1" != --quiet')):
            (self._programs / program).write_text(f"#!/bin/sh\n{answer}\n")
            (self._programs / program).chmod(0o755)

    def install(self, umask: int = 0o022, **env: str) -> subprocess.CompletedProcess[str]:
        # Without what it needs of other packages, which takes minutes.
        env = {**os.environ, "PATH": f"{self._programs}:{os.environ['PATH']}", "PIP_NO_DEPS": "1", **env}
        command = [self.checkout / "systemd/install"]
        done = subprocess.run(command, env=env, umask=umask, capture_output=True, text=True)
        if done.returncode and re.search("NewConnectionError|name resolution|Read timed out", done.stderr):
            pytest.skip("the package index cannot be reached")
        return done

    def works(self) -> bool:
        command = [self.venv / "bin/emotiond", "--version"]
        return subprocess.run(command, cwd=self.root, capture_output=True).returncode == 0

    def files_of_the_checkout(self) -> set[str]:
        return {str(path.relative_to(self.checkout)) for path in self.checkout.rglob("*")}


@pytest.fixture
def system(tmp_path: Path) -> System:
    show = "import ensurepip, venv"
    if shutil.which("dpkg") is None or subprocess.run(["/usr/bin/python3", "-c", show], capture_output=True).returncode:
        pytest.skip("this is not a Debian with python3-venv")
    return System(tmp_path)


def test_the_service_can_read_what_a_root_with_a_tight_umask_installs(system: System) -> None:
    # The environment was made under it too, as by the installer before.
    subprocess.run(["/usr/bin/python3", "-m", "venv", system.venv], umask=0o077, check=True)
    subprocess.run(["mkdir", "-p", system.venv / "models/1-0123456789ab-abcdefgh"], umask=0o077, check=True)
    done = system.install(umask=0o077)
    assert done.returncode == 0, done.stderr
    assert system.works()
    modes = {path: path.lstat().st_mode for path in (system.root, *system.root.rglob("*"))}
    assert not [path for path, mode in modes.items() if mode & 0o005 != mode >> 6 & 0o005]


def test_the_checkout_stays_as_it_is_and_what_an_earlier_build_left_is_not_installed(
    system: System, tmp_path: Path
) -> None:
    gone = system.checkout / "build/lib/edge/gone.py"
    gone.parent.mkdir(parents=True)
    gone.touch()
    before = system.files_of_the_checkout()
    (tmp_path / "temporary").mkdir()
    assert system.install(TMPDIR=str(tmp_path / "temporary")).returncode == 0
    assert not list((tmp_path / "temporary").iterdir())
    assert system.files_of_the_checkout() == before
    installed = {path.name for path in system.venv.rglob("edge/*.py")}
    assert "cli.py" in installed and "gone.py" not in installed


@pytest.mark.parametrize("broken", ["while it was made", "by an upgrade of Debian", "for want of its Python"])
def test_an_environment_that_does_not_work_is_made_anew_and_the_models_stay(system: System, broken: str) -> None:
    model = system.venv / "models/1/model.tflite"
    model.parent.mkdir(parents=True)
    model.touch()
    make = ["/usr/bin/python3", "-m", "venv", system.venv]
    if broken == "while it was made":
        subprocess.run([*make, "--without-pip"], check=True)
    elif broken == "by an upgrade of Debian":
        subprocess.run(make, check=True)
        (of_this_python,) = (system.venv / "lib").iterdir()
        of_this_python.rename(of_this_python.with_name("python3.2"))
    else:
        subprocess.run([*make, "--system-site-packages"], check=True)  # for picamera2
        (system.venv / "bin/python3").unlink()
        (system.venv / "bin/python3").symlink_to("/usr/bin/python3.2")
    done = system.install()
    assert done.returncode == 0, done.stderr
    assert system.works()
    assert model.exists()
    assert not (system.venv / "lib/python3.2").exists()
    sees_others = str(broken == "for want of its Python").lower()
    assert f"include-system-site-packages = {sees_others}" in (system.venv / "pyvenv.cfg").read_text()


def test_a_missing_python3_venv_is_told_in_a_line_and_nothing_is_begun(system: System, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")  # Debian's python3 without it has none
    done = system.install(PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "apt-get install python3-venv" in done.stderr
    assert not system.venv.exists()
    assert system.install().returncode == 0
    assert system.works()
