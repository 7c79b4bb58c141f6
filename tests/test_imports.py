"""The device path stays light, and imports point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

EDGE = sorted((ROOT / "edge").glob("*.py"))
WORKSTATION = {"tensorflow", "keras", "torch", "jax", "matplotlib", "training", "convert", "benchmarks"} | {
    "nicegui",
    "fastapi",
}
# From DESIGN: the contract, then what adapts the world to it, then what composes.
LAYERS = [
    {"labels", "errors", "address", "console", "backoff", "commands", "quantization", "records", "quiet"}
    | {"outbox", "givenfile", "heap", "splice"},
    {"preprocess", "settings", "cameraconfig", "config", "contract", "configfile", "clip", "eventfile", "spool"}
    | {"motion", "minisign", "beside", "waiting", "clock", "statefolder", "upkeep", "trouble", "eventfolder", "rates"}
    | {"tls", "look"},
    {"pipeline", "policy", "tracker", "messages", "connection", "search", "pace", "discovery", "hearing", "snapshot"}
    | {"picamera", "picturefile", "delivery", "signature"},
    {"luma", "haar", "mtcnn", "classifier", "sinks", "mqtt", "broker", "health", "watch"}
    | {"draw", "output", "videofile", "metrics"},
    {"capture", "files", "golden", "channel", "forget", "timeline", "sound", "fleet_devices", "fleet_reader"},
    {"camera", "places", "videocopy"},
    {"loop", "app", "plan"},
    {"daemon"},
    {"check", "stills", "fleet", "bundle", "video", "preview", "web"},
    {"fleet_commands", "people_commands"},
    {"cli"},
    {"__main__"},
]


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" if node.module == "edge" else node.module for alias in node.names}
    return names


def test_a_fresh_interpreter_that_runs_the_daemon_loads_no_workstation_package() -> None:
    code = (
        "import sys, edge.daemon, edge.check, edge.cli\n"
        "from edge.classifier import TfliteClassifier\n"
        "TfliteClassifier()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & WORKSTATION == set()
    assert "cv2" in done.stdout


def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edge.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *sorted({'numpy', 'cv2', 'pydantic', 'yaml', 'paho', 'ai_edge_litert'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded:\n")


@pytest.mark.parametrize("path", EDGE, ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    if path.stem == "__init__":
        return
    level = next(index for index, layer in enumerate(LAYERS) if path.stem in layer)
    for name in imported_by(path):
        assert name.partition(".")[0] not in WORKSTATION
        if name.startswith("edge."):
            other = name.split(".")[1]
            if other == "__version__":
                continue
            their_level = next(index for index, layer in enumerate(LAYERS) if other in layer)
            # The lower layers may use each other; adapters may not.
            allowed = their_level < level or (their_level == level and level < 3)
            assert allowed, f"{path.stem} imports {other}"


def test_the_runtime_is_imported_in_one_place() -> None:
    naming = [
        path.stem for path in EDGE if "ai_edge_litert" in path.read_text() or "tflite_runtime" in path.read_text()
    ]
    assert naming == ["classifier"]
