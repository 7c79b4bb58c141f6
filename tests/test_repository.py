"""What stands beside the code: the unit, the README's promises, and what must never be committed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = (ROOT / "systemd/emotiond.service").read_text()
    (tmp_path / "emotiond.service").write_text(unit.replace("/opt/emotiond/bin/emotiond", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / "emotiond.service"], capture_output=True, text=True)
    assert "emotiond.service" not in done.stderr, done.stderr
    assert done.returncode == 0


def test_the_unit_is_exposed_to_little_and_says_what_it_leaves_open(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "emotiond.service"
    unit.write_text((ROOT / "systemd/emotiond.service").read_text())
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks only at running services")
    exposure = float(re.search(r"Overall exposure level for emotiond.service: ([\d.]+)", done.stdout)[1])
    assert exposure <= 1.5
    reasons = unit.read_text().partition("# What is left open, and why")[2]
    for name in re.findall(r"^✗ (\w+)=", done.stdout, re.M):
        assert name in reasons, f"{name} is left open without a word"


def test_the_unit_does_not_restart_on_what_the_settings_have_wrong_and_leaves_proc_readable() -> None:
    unit = (ROOT / "systemd/emotiond.service").read_text()
    assert "Type=notify" in unit
    assert "RestartPreventExitStatus=65 66 78" in unit
    assert not re.search("^ProcSubset", unit, re.M)


def test_the_installer_sends_32_bit_boards_to_the_package(tmp_path: Path) -> None:
    # Nor is it root there: an installer that does not refuse must not install here.
    for program, answer in (("dpkg", "armhf"), ("id", "1000")):
        (tmp_path / program).write_text(f"#!/bin/sh\necho {answer}\n")
        (tmp_path / program).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "systemd/install"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make deb DEB='12 armhf'" in done.stderr


def test_an_environment_that_failed_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    # Without python3-venv, Python leaves an environment with an interpreter and without pip.
    python = tmp_path / "python3"
    venv = f"mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python && test -e python3-venv"
    python.write_text(f'#!/bin/sh\n[ "$2" != venv ] || {{ {venv}; }}\n')
    python.chmod(0o755)
    make = ["make", f"PYTHON={python}", ".venv/bin/python"]
    assert subprocess.run(make, cwd=tmp_path, capture_output=True).returncode
    assert not (tmp_path / ".venv/bin/python").is_symlink()
    (tmp_path / "python3-venv").touch()
    subprocess.run(make, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / ".venv/bin/python").is_symlink()


def _make(folder: Path, python: Path, target: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return subprocess.run(["make", f"PYTHON={python}", target], cwd=folder, capture_output=True, text=True)


def test_an_old_python_is_told_in_a_line_and_leaves_no_environment(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\n[ "$1" != -c ]\n')
    python.chmod(0o755)
    done = _make(tmp_path, python, ".venv/bin/python")
    assert done.returncode
    way_out = "emotiond takes 3.10 to 3.13; name one: make PYTHON=python3.13 ..."
    assert done.stderr.startswith(f"make: Python 3.9.2: {way_out}\n")
    assert not (tmp_path / ".venv").exists()


PYTHON3 = """#!/bin/sh
case $1 in
  -V) echo Python 3.12.1 ;;
  -m) [ $2 != venv ] || { mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo made >&2; } ;;
esac
"""


def test_an_environment_that_was_moved_or_is_for_another_python_is_made_anew(tmp_path: Path) -> None:
    folder, python = tmp_path / "Mein Häuschen & Co", tmp_path / "python3"
    folder.mkdir()
    python.write_text(PYTHON3)
    python.chmod(0o755)
    assert _make(folder, python, "setup").stderr == "made\n"
    assert _make(folder, python, "setup").stderr == ""
    folder = folder.rename(tmp_path / "moved")
    moved = _make(folder, python, "setup")
    assert (moved.stderr, "is made anew" in moved.stdout) == ("made\n", True)
    (folder / ".venv/bin/python").write_text(PYTHON3.replace("3.12.1", "3.13.0"))
    assert _make(folder, python, "setup").stderr == "made\n"
    (folder / ".venv/ready").unlink()  # broken off behind venv's first files
    (folder / ".venv/bin/python").write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    assert _make(folder, python, "setup").stderr == "made\n"
    assert _make(folder, python, "setup").stderr == ""


def test_a_python_too_old_for_training_is_told_before_pip_says_it_in_its_way(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(
        PYTHON3.replace("3.12.1", "3.10.6").replace("  -m)", '  -c) case $2 in *"3, 11"*) exit 1 ;; esac ;;\n  -m)')
    )
    python.chmod(0o755)
    done = _make(tmp_path, python, "train-setup")
    assert done.returncode
    way_out = "training takes 3.11 or newer; make clean, then make PYTHON=python3.13 ..."
    assert done.stderr.splitlines()[:2] == ["made", f"make: Python 3.10.6 in .venv: {way_out}"]


APT_GET = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
  *update*) exit 100 ;;
  *minisign* | *fonts*) echo "E: Unable to locate package" >&2; exit 100 ;;
  -s*) ;;
  *install*) echo "$@" >>"$INSTALLED" ;;
esac
"""
DPKG_QUERY = """#!/bin/sh
for package; do :; done
grep -qsw -e "$package" "$INSTALLED" && echo "install ok installed"
"""


def test_a_package_that_cannot_be_had_keeps_no_test_and_no_other_package_away(tmp_path: Path) -> None:
    for program, text in (("apt-get", APT_GET), ("dpkg-query", DPKG_QUERY), ("id", "#!/bin/sh\necho 0\n")):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env |= {"CALLS": str(tmp_path / "calls"), "INSTALLED": str(tmp_path / "installed")}
    done = subprocess.run(["sh", ROOT / "tests/system_packages.sh"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "not installed: minisign fonts-dejavu-core"
    assert "nats-server mosquitto" in (tmp_path / "installed").read_text()
    calls = (tmp_path / "calls").read_text()
    assert calls.count("install -q -y") == 1, calls  # what can be had is had at once


def test_every_file_that_the_papers_name_is_there() -> None:
    for paper in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", paper.read_text()):
            assert (paper.parent / link).exists(), f"{paper.name} links to {link}"


def test_every_make_target_and_setting_that_the_readme_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text() + (ROOT / "docs/install.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", readme)) | {"run", "train-setup"} <= targets
    settings = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, key in re.findall(r"(?:--set |`)(camera|mqtt|model|emotion|detector|tracker)\.(\w+)", readme):
        assert key in settings[section], f"{section}.{key}"


def test_nothing_large_and_no_data_set_is_committed() -> None:
    for path in tracked():
        # float32.tflite is the largest thing that has a reason to be here.
        assert path.stat().st_size < 7_000_000, path
        assert path.suffix not in {".csv", ".xz", ".mkv", ".gif", ".keras"}, path


def test_pictures_in_the_repository_are_the_portrait_or_made_of_it() -> None:
    pictures = {str(path.relative_to(ROOT)) for path in tracked() if path.suffix in {".png", ".jpg", ".jpeg"}}
    assert pictures <= {
        "edge/assets/portrait.jpg",
        "docs/working.png",
        "docs/timeline.png",
        "docs/dashboard.png",
        "docs/tryit.png",
        "benchmarks/results/trend.png",
        "tests/golden/portrait.jpg",
    }


def test_modules_stay_small_enough_to_hold_in_the_head() -> None:
    for path in (ROOT / "edge").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_no_file_holds_the_marks_of_a_merge() -> None:
    marked = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if re.search(rb"^(<{7}|>{7}) ", path.read_bytes(), flags=re.MULTILINE)
    ]
    assert marked == []
