"""One run's moving state: masters, optimizers and the step number; one call is one step.

trainer = Trainer(forward, parameters, settings)
loss = trainer.step(batch)          # mean nats over the batch's targets
trainer.state(); trainer.restore(state)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from gptoss_core.train.batches import Batch
from gptoss_core.train.forward import Forward
from gptoss_core.train.loss import cross_entropy
from gptoss_core.train.muon import Muon
from gptoss_core.train.parameters import Parameters
from gptoss_core.train.schedule import rate
from gptoss_core.train.settings import Settings
from gptoss_harmony.errors import UsageError

# Settings that a resumed run may change: they do not alter what has been computed.
FREE = frozenset({"max_seconds", "log_every", "eval_every", "save_every", "device", "compile"})


class Trainer:
    """Steps of one run.

    Args:
        forward: the forward pass.
        parameters: masters; updated in place.
        settings: of the run.

    Attributes:
        done: steps taken.
    """

    def __init__(self, forward: Forward, parameters: Parameters, settings: Settings) -> None:
        self.forward = forward
        self.parameters = parameters
        self.settings = settings
        self.done = 0
        self._optimizers = self._make_optimizers()
        self._rates = [[g["lr"] for g in o.param_groups] for o in self._optimizers]

    @property
    def quantised(self) -> bool:
        """Whether the present step trains the rounded weights."""
        return self.done >= self.settings.quantize_from * self.settings.steps

    def step(self, batch: Batch) -> Tensor:
        """Learn from one batch; returns its mean loss in nats, still on the device."""
        settings, parameters = self.settings, self.parameters
        weights = parameters.weights(batch.candidates, quantised=self.quantised)
        states, balance = self.forward.hidden(weights, batch.tokens, batch.documents)
        chosen = states.flatten(0, 1)[batch.positions]  # (L, N)
        total, _ = cross_entropy(chosen, weights["unembedding.weight"], batch.targets)
        loss = total / max(1, len(batch.targets))
        (loss + settings.balance * balance).backward()  # type: ignore[no-untyped-call]
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(list(parameters.trained.values()), settings.clip)
        factor = rate(self.done, settings.steps, warmup=settings.warmup, decay=settings.decay)
        for optimizer, rates in zip(self._optimizers, self._rates, strict=True):
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.done,
            "trained": {name: p.detach() for name, p in self.parameters.trained.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "settings": dataclasses.asdict(self.settings),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: the state belongs to a run with other settings or weights.
        """
        mine = dataclasses.asdict(self.settings)
        changed = [k for k, v in state["settings"].items() if k not in FREE and mine.get(k) != v]
        if changed:
            listed = ", ".join(f"{k} {state['settings'][k]!r} -> {mine.get(k)!r}" for k in changed)
            raise UsageError(
                f"cannot resume with other settings ({listed}); start a new run instead"
            )
        shapes = {name: tuple(p.shape) for name, p in self.parameters.trained.items()}
        if {name: tuple(p.shape) for name, p in state["trained"].items()} != shapes:
            raise UsageError("cannot resume: the state was written for another model or other data")
        with torch.no_grad():
            for name, weight in state["trained"].items():
                self.parameters.trained[name].copy_(weight)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = int(state["step"])

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        settings, parameters = self.settings, self.parameters
        others = list(parameters.trained.values())
        optimizers: list[torch.optim.Optimizer] = []
        if settings.optimizer == "muon":
            matrices = list(parameters.matrices())
            others = list(parameters.others())
            if matrices:
                optimizers.append(
                    Muon(
                        matrices,
                        lr=settings.matrix_learning_rate,
                        weight_decay=settings.weight_decay,
                    )
                )
        if others:
            optimizers.append(
                torch.optim.AdamW(
                    others,
                    lr=settings.learning_rate,
                    betas=(0.9, 0.95),
                    weight_decay=settings.weight_decay,
                    fused=others[0].is_cuda,
                )
            )
        return optimizers
