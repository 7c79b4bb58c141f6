"""The audit of dependencies finds what the advisory service knows, and goes on without one."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import ROOT, free_port

pytest.importorskip("pip_audit", reason="pip-audit is not installed")


def audit(port: int) -> tuple[int, list[str]]:
    url = f"http://127.0.0.1:{port}/v1/query"
    command = [sys.executable, ROOT / "tests/audit.py", "-s", "osv", "--osv-url", url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def advisories() -> Iterator[int]:
    """The port of a service that speaks like osv.dev, and knows one thing of every version of PyYAML."""
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}
    package = {"name": "pyyaml", "ecosystem": "PyPI"}
    hole = {"id": "PYSEC-1", "summary": "", "details": "", "affected": [{"package": package, "ranges": [fixed]}]}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": [hole]} if asked["package"]["name"] == "pyyaml" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_known_vulnerability_fails_the_audit(advisories: int) -> None:
    code, lines = audit(advisories)
    assert code == 1
    assert lines[0].startswith("audit: pyyaml ")
    assert lines[0].endswith(": PYSEC-1, mended in 99")
    assert lines[1].endswith(" packages, 1 known vulnerabilities")


def test_without_a_service_it_says_so_in_a_line_and_goes_on() -> None:
    code, lines = audit(free_port())
    assert (code, len(lines)) == (0, 1)
    assert lines[0].startswith("audit: not audited: ")
