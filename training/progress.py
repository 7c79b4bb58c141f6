"""What happens around an epoch, whoever computes it: validation, checkpoint, progress, early stopping."""

import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge.errors import EmotiondError
from training.console import say
from training.evaluate import Predict
from training.run import Average, Run


class DivergedError(EmotiondError):
    """Training has run away; the checkpoint of the epoch before is kept."""

    exit_code = 65


class Progress:
    """Times a run's epochs, ends each of them, and tells about it."""

    def __init__(self, run: Run, writes: bool = True) -> None:
        self._run, self._writes = run, writes
        self._epoch_started = self._run_started = time.monotonic()
        self._done_before = len(run.history)

    def begin_epoch(self) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()
        self._run.batches.seconds = 0.0

    def step(self, batch: int, loss: float) -> None:
        """Show where the epoch is."""
        if not self._writes or batch % 10:
            return
        share = (batch + 1) / len(self._run.batches)
        done = len(self._run.history)
        left = self._minutes_left(done + share)
        text = f"\repoch {done + 1}/{self._run.config.epochs} [{'#' * round(20 * share):20}] loss {loss:.3f}, "
        say(f"{text}{left:.0f} min left in all ", end="", only_terminal=True)

    def end_epoch(
        self,
        logs: dict[str, float],
        predict: Predict,
        state: Sequence[npt.NDArray[np.float32]],
        average: Average,
    ) -> dict[str, float]:
        """Validate the averaged weights, which `run.deployed` holds, and write the checkpoint.

        logs: `loss`, `accuracy` and `learning_rate`. Returns them with what the validation found.
        Raises DivergedError or OutputError.
        """
        run = self._run
        logs = {**logs, **run.validate(predict), "augment_s": run.batches.seconds}
        logs["seconds"] = time.monotonic() - self._epoch_started
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            raise DivergedError(
                f"epoch {len(run.history) + 1}: the loss is no longer finite; train with a smaller learning_rate than "
                f"{run.config.learning_rate:g}"
            )
        run.history.append({"epoch": len(run.history) + 1, **logs})
        if self._writes:
            run.save(state, average)
            self._tell()
        if run.config.patience and run.epochs_without_gain >= run.config.patience:
            say(f"no better validation loss for {run.config.patience} epochs: stopping early")
        return logs

    def _minutes_left(self, epochs_done: float) -> float:
        pace = (time.monotonic() - self._run_started) / max(epochs_done - self._done_before, 1e-3)
        return (self._run.config.epochs - epochs_done) * pace / 60

    def _tell(self) -> None:
        entry, done = self._run.history[-1], len(self._run.history)
        majority = "" if math.isnan(entry["val_majority"]) else f" majority {entry['val_majority']:.1%}"
        say(
            f"\repoch {done}/{self._run.config.epochs}  loss {entry['loss']:.3f}  validation: loss "
            f"{entry['val_loss']:.3f} accuracy {entry['val_accuracy']:.1%}{majority}"
            f"{' *' if self._run.epochs_without_gain == 0 else ''}  {entry['seconds']:.0f} s "
            f"(augmentation {entry['augment_s']:.1f} s), {self._minutes_left(done):.0f} min left"
        )
