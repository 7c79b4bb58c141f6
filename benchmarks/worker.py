"""A contender in a process of its own: its threads, its memory and its interpreter are nobody else's.

The parent sends a line of JSON for each turn and gets one back. The child's standard output is kept for that: what a
library prints there goes to standard error.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from edge.errors import EmotiondError

END_TIMEOUT_S = 5.0


class WorkerError(EmotiondError):
    """A contender ended, or said why it cannot take part."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Worker:
    """Starts a contender, and waits until it is built. A context manager: it ends when that is left.

    kind: a key of `benchmarks.contenders.KINDS`. script: a file to run instead of this module, for interpreters that
    know nothing of emotiond.
    """

    def __init__(self, kind: str, python: Path | None = None, script: Path | None = None, **options: Any) -> None:
        self._called = f"--python: {python}: {kind}" if python else kind
        self._failure = 65 if python else 70  # an environment that lacks something is no bug
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with this object
        # Isolated: a script's own folder would come before the packages that it is there for.
        program = ["-I", str(script)] if script else ["-m", "benchmarks.worker"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if script:
            environment.pop("PYTHONPATH")
        try:
            self._child = subprocess.Popen(
                [str(python or sys.executable), *program, kind, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"--python: {python}: cannot be started: {error.strerror}", 66) from None
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def turn(self, **wishes: Any) -> Any:
        """One turn; returns what the contender measured. Raises WorkerError."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then its last words are read
            self._child.stdin.write(json.dumps(wishes) + "\n")
            self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            last = said[-1] if said else "without a word"
            raise WorkerError(f"{self._called} ended with {code}: {last}", self._failure)
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(answer["error"], answer["exit_code"])
        return answer

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._child.communicate(timeout=END_TIMEOUT_S)
        if self._child.poll() is None:
            self._child.kill()
            self._child.communicate()
        self._errors.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def main() -> None:
    """The child: build a contender, then take turns until the parent has seen enough."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    from benchmarks.contenders import KINDS

    try:
        about, take_turn = KINDS[sys.argv[1]](**json.loads(sys.argv[2]))
        answer(about)
        for line in sys.stdin:
            answer(take_turn(**json.loads(line)))
    except EmotiondError as error:
        answer({"error": str(error), "exit_code": error.exit_code})


if __name__ == "__main__":
    main()
