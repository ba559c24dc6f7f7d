"""The loop: step, report, evaluate, save; stop at the end or at a time limit, and resume.

Every report is one line of `log.jsonl`:

```
{"step": 200, "loss": 0.31, "seconds": 41.2}
{"step": 200, "held_out": {"loss": 0.35, "accuracy": 0.97, "first": 0.91, ...}}
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptoss_core.train.assemble import Run
from gptoss_core.train.batches import Batch, BatchMaker
from gptoss_core.train.evaluate import evaluate
from gptoss_core.train.interrupt import Interrupt
from gptoss_core.train.saving import load_state, save_original, save_state
from gptoss_harmony.errors import UsageError

Report = dict[str, Any]


class Loop:
    """Runs a run to its end.

    Args:
        run: what to step.
        out: folder for the log, the state and the checkpoint.
        resume: go on from `out/state.pt`.
        report: called with each report after it is logged.
        progress: called after each step with the number of steps done.

    Raises:
        UsageError: `out` holds another run, or nothing to resume.
    """

    def __init__(
        self,
        run: Run,
        out: Path,
        *,
        resume: bool = False,
        report: Callable[[Report], None] = lambda report: None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.run = run
        self.out = out
        self._report = report
        self._progress = progress
        self._state = out / "state.pt"
        if resume:
            run.trainer.restore(load_state(self._state, run.device))
        elif self._state.exists() or (out / "original").exists():
            raise UsageError(f"{out} holds a run already: add --resume, or choose another --out")
        out.mkdir(parents=True, exist_ok=True)

    def train(self) -> Report:
        """Step until the end or the time limit; save; return the last held-out report.

        Raises:
            KeyboardInterrupt: Ctrl-C; the state after the last whole step is saved first.
            UsageError: the loss is no longer a number.
        """
        settings, trainer = self.run.settings, self.run.trainer
        started = time.monotonic()
        with Interrupt() as interrupt:
            for batch in self.run.batches.batches(trainer.done, settings.steps):
                self._step(batch, started)
                late = settings.max_seconds and time.monotonic() - started > settings.max_seconds
                if (late or interrupt.asked) and trainer.done < settings.steps:
                    reason = "interrupt" if interrupt.asked else "max_seconds"
                    self._log({"step": trainer.done, "stopped": reason})
                    break
            save_state(self._state, trainer.state())
        if interrupt.asked:
            raise KeyboardInterrupt
        if cut := self.run.batches.packer.cut:
            self._log({"documents_cut_at_context": cut})
        last = self.evaluate(final=True)
        weights = trainer.parameters.full(quantised=True)
        save_original(self.out / "original", self.run.config, weights)
        return last

    def evaluate(self, *, final: bool = False) -> Report:
        """Held-out loss and accuracy, as saved; with fresh names too where the run renames."""
        report: Report = {"step": self.run.trainer.done}
        report["held_out"] = self._held_out(self.run.held, final=final)
        if self.run.held_renamed is not None:
            report["held_out_renamed"] = self._held_out(self.run.held_renamed, final=final)
        self._log(report)
        return report

    def _held_out(self, maker: BatchMaker, *, final: bool) -> dict[str, float]:
        rows = maker.packer.all_rows()
        batches = (maker.finish(part, 1_000_000 + number) for number, part in enumerate(rows))
        trainer = self.run.trainer
        quantised = final or trainer.quantised
        every_row = final and self.run.settings.rows != ""
        return evaluate(
            trainer.forward, trainer.parameters, batches, quantised=quantised, every_row=every_row
        )

    def _step(self, batch: Batch, started: float) -> None:
        """One step and whatever is due after it."""
        settings, trainer = self.run.settings, self.run.trainer
        loss = trainer.step(batch.to(self.run.device))
        done = trainer.done
        self._progress(done)
        if done % settings.log_every == 0 or done in (1, settings.steps):
            value = float(loss)
            if not torch.isfinite(loss):
                raise UsageError(
                    f"step {done}: the loss is {value}; lower --learning-rate or "
                    "--matrix-learning-rate"
                )
            self._log(
                {"step": done, "loss": value, "seconds": round(time.monotonic() - started, 2)}
            )
        if settings.eval_every and done % settings.eval_every == 0 and done < settings.steps:
            self.evaluate()
        if settings.save_every and done % settings.save_every == 0 and done < settings.steps:
            save_state(self._state, trainer.state())

    def _log(self, report: Report) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")
        self._report(report)
