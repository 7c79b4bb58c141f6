"""The Debian package, built for this machine, and its life: installed, run, upgraded, removed, purged."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import edge
from conftest import ROOT, plain, wait_for

RELEASES = {"3.11": "12", "3.13": "13"}


def system_python() -> str:
    """The version of Debian's own Python, for which the package is made: 3.11."""
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(["/usr/bin/python3", "-c", show], capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("this is not a Debian")
    release = RELEASES.get(system_python())
    if release is None:
        pytest.skip(f"no package is made for this system's Python {system_python()}")
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()
    folder = tmp_path_factory.mktemp("deb")
    # Fast and large; xz takes a minute.
    quick = {"DPKG_DEB_COMPRESSOR_TYPE": "zstd", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    command = [ROOT / "packaging/deb", release, arch, folder]
    done = subprocess.run(command, env={**os.environ, **quick}, capture_output=True, text=True)
    if done.returncode and re.search("NewConnectionError|name resolution|Read timed out", done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    (package,) = folder.glob("*.deb")
    assert package.name == f"emotiond_{edge.__version__}+deb{release}_{arch}.deb"
    return package


class System:
    """A system's files in a folder, with dpkg's real installing, and no rights needed."""

    def __init__(self, folder: Path) -> None:
        self.root, self._database = folder / "root", folder / "dpkg"
        self.root.mkdir()
        for name in ("info", "updates", "triggers"):
            (self._database / name).mkdir(parents=True)
        for name in ("status", "available"):
            (self._database / name).touch()

    def dpkg(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        # Python itself is this machine's, so the packages that it asks for are missing here.
        force = "--force-not-root,script-chrootless,depends,bad-path"
        command = [
            "dpkg",
            force,
            f"--instdir={self.root}",
            f"--admindir={self._database}",
            "--log=/dev/null",
            *arguments,
        ]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    def do(self, *arguments: object) -> None:
        done = self.dpkg(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_the_package_says_what_it_needs_and_holds_all_the_rest(deb: Path) -> None:
    def field(name: str) -> str:
        return subprocess.run(["dpkg-deb", "--field", deb, name], capture_output=True, text=True).stdout.strip()

    version = system_python()
    assert f"python3 (>= {version}), python3 (<< 3.{int(version[2:]) + 1})" in field("Depends")
    assert 100_000 < int(field("Installed-Size")) < 400_000  # kB
    assert deb.stat().st_size < 200_000_000
    listing = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True).stdout.splitlines()
    names = [line.split(maxsplit=5)[5].partition(" -> ")[0].removeprefix("./") for line in listing]
    site = f"opt/emotiond/lib/python{version}/site-packages"
    assert {
        "etc/emotiond/config.yaml",
        "opt/emotiond/bin/emotiond",
        "usr/bin/emotiond",
        "usr/lib/systemd/system/emotiond.service",
        f"{site}/edge/models/int8.tflite",
        f"{site}/cv2/__init__.py",
    } <= set(names)
    assert {line.split()[1] for line in listing} == {"root/root"}
    assert not [line for line in listing if line[0] != "l" and line[8] == "w"], "others may write"
    assert not [name for name in names if re.search("__pycache__|site-packages/(tensorflow|keras|pip|tests)/", name)]


def test_the_unit_and_the_settings_are_those_of_the_repository(deb: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tmp_path / "raw"], check=True)
    for packed, source in (
        ("usr/lib/systemd/system/emotiond.service", "systemd/emotiond.service"),
        ("etc/emotiond/config.yaml", "config.yaml"),
    ):
        assert (tmp_path / "raw" / packed).read_bytes() == (ROOT / source).read_bytes()
    assert (tmp_path / "raw/DEBIAN/conffiles").read_text() == "/etc/emotiond/config.yaml\n"
    assert subprocess.run(["md5sum", "--quiet", "-c", "DEBIAN/md5sums"], cwd=tmp_path / "raw").returncode == 0


def test_it_is_installed_runs_keeps_its_settings_and_leaves_nothing(
    deb: Path, system: System, broker, subscribe
) -> None:
    system.do("--install", deb)
    assert [name for name in system.files() if name.endswith("multi-user.target.wants/emotiond.service")]
    subscriber = subscribe(broker.port)
    command = [system.root / "opt/emotiond/bin/python", system.root / "opt/emotiond/bin/emotiond", "run"]
    settings = ["--config", system.root / "etc/emotiond/config.yaml", "--max-frames", "60"]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*command, *settings, *plain(broker.port)], cwd=system.root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: [e["type"] for e in subscriber.events()][-1:] == ["end"], "events at the broker")
    assert subscriber.events()[0]["device"] == "pi"

    config = system.root / "etc/emotiond/config.yaml"
    config.write_text("camera: {source: 0}\n")
    system.do("--install", deb)  # an upgrade, as far as dpkg and the package's scripts are concerned
    assert config.read_text() == "camera: {source: 0}\n"
    system.do("--remove", "emotiond")
    assert config.exists()
    assert not [name for name in system.files() if name.startswith(("opt/", "usr/"))]
    waiting = system.root / "var/lib/private/emotiond/events.sqlite"
    waiting.parent.mkdir(parents=True)
    waiting.touch()
    edited = system.root / "etc/systemd/system/emotiond.service.d/override.conf"  # by `systemctl edit`, as the docs say
    edited.parent.mkdir()
    edited.write_text("[Service]\nLoadCredential=mqtt-password:/etc/emotiond/mqtt-password\n")
    system.do("--purge", "emotiond")
    assert system.files() == []


@pytest.mark.parametrize("options", [[], ["--without-pip"]], ids=["whole", "broken off"])
def test_it_is_not_mixed_with_an_installation_from_a_checkout(deb: Path, system: System, options: list[str]) -> None:
    subprocess.run(["/usr/bin/python3", "-m", "venv", *options, system.root / "opt/emotiond"], check=True)
    before = system.files()
    done = system.dpkg("--install", deb)
    assert done.returncode != 0
    assert "run systemd/uninstall there" in done.stderr
    assert system.files() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["11", "arm64"], "Debian 11: not known"),
        (["12", "mips"], "mips: not known"),
        (["13", "armhf"], "no runtime for TFLite has a wheel for armhf and Python 3.13"),
    ],
)
def test_a_package_that_cannot_be_made_is_refused_in_a_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "packaging/deb", *arguments, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
