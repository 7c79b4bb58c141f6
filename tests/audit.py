"""Fails for known vulnerabilities in what is installed; says in one line what could not be asked, and goes on.

python tests/audit.py [options of pip-audit]
"""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format", "json"]
QUIETLY = ["--progress-spinner", "off", "--timeout", "5"]  # s, of each request
WHOLE_S = 120


def main(options: list[str]) -> int:
    """0: nothing is known, or nothing could be asked; 1: vulnerabilities, each in a line."""
    try:
        done = subprocess.run([*COMMAND, *QUIETLY, *options], capture_output=True, text=True, timeout=WHOLE_S)
        packages = [each for each in json.loads(done.stdout)["dependencies"] if each["name"] != "emotiond"]
    except subprocess.TimeoutExpired:
        return _say(f"no answer within {WHOLE_S} s")
    except ValueError:
        if done.returncode == 2:  # the options are wrong
            sys.exit(done.stderr)
        # It ends with a traceback if there is no network.
        return _say((done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1][:200])
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    holes = [(package, hole) for package in packages for hole in package.get("vulns", [])]
    for package, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {hole['id']}, mended in {mended}")
    if skipped:
        # Mirrors of PyPI often keep no advisories.
        _say(f"{len(skipped)} of {len(packages)} packages are unknown to the advisory service ({skipped[0]}, ...)")
    if len(skipped) < len(packages):
        print(f"audit: {len(packages) - len(skipped)} packages, {len(holes)} known vulnerabilities")
    return 1 if holes else 0


def _say(problem: str) -> int:
    print(f"audit: not audited: {problem}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
