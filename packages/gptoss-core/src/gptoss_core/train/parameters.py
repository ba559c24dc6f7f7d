"""Master weights, and the weights that one step computes with.

Masters are float32. What the forward pass sees is an expression of them: LoRA pairs merged, experts
rounded to MXFP4 and vocabulary rows to int8 once the run is quantisation-aware, everything cast to
the compute dtype, the step's candidate rows appended to the two vocabulary tables.

    parameters = Parameters(full, active, settings, device=device)
    weights = parameters.weights(candidates, quantised=True)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gptoss_core.train import lora, quantize
from gptoss_core.train.forward import Weights
from gptoss_core.train.settings import Settings
from gptoss_core.train.vocabulary import ActiveRows

TABLES = ("embedding.weight", "unembedding.weight")
EXPERTS = (".mlp1_weight", ".mlp2_weight")


class Parameters:
    """All weights of a run, trained and frozen.

    Args:
        full: every weight under its `original/` name, experts dense, any dtype; kept as given where
            frozen.
        active: the trained vocabulary rows.
        settings: of the run.
        device: where to train.

    Attributes:
        trained: float32 masters by name; `NAME.lora_a` and `NAME.lora_b` for adapters.
        frozen: the other weights in the compute dtype; for the two tables all rows.
    """

    def __init__(
        self,
        full: dict[str, Tensor],
        active: ActiveRows,
        settings: Settings,
        *,
        device: torch.device,
    ) -> None:
        self.dtype = getattr(torch, settings.dtype)
        self.lora_scale = settings.lora_alpha / max(1, settings.lora_rank)
        self.int8_rows = active.candidates > 0
        self.trained: dict[str, nn.Parameter] = {}
        self.frozen: dict[str, Tensor] = {}
        self.rows = torch.from_numpy(active.rows).to(device)
        generator = torch.Generator().manual_seed(settings.seed)
        for name, weight in full.items():
            weight = weight.detach().to(device)
            if settings.lora_rank:
                self.frozen[name] = weight.to(self.dtype)
                if lora.is_target(name, settings.lora_targets):
                    pair = lora.adapter(weight, settings.lora_rank, generator)
                    for letter, matrix in zip("ab", pair, strict=True):
                        self.trained[f"{name}.lora_{letter}"] = nn.Parameter(matrix)
            elif name in TABLES:
                self.frozen[name] = weight.to(self.dtype)
                self.trained[name] = nn.Parameter(weight[self.rows].float())
            else:
                self.trained[name] = nn.Parameter(weight.float())

    def weights(self, candidates: Tensor, *, quantised: bool) -> Weights:
        """The weights of one step, in the compute dtype.

        Args:
            candidates: (P,) ids whose frozen rows follow the trained ones in both tables.
            quantised: round experts to MXFP4 (and int8 rows) with straight-through gradients.
        """
        result = {}
        for name in self._names():
            weight = self._merged(name, quantised=quantised)
            if name in TABLES:
                weight = torch.cat([weight, self.frozen[name][candidates]])
            result[name] = weight
        return result

    def matrices(self) -> Iterator[nn.Parameter]:
        """Trained hidden matrices: Muon's share. Router, tables, gains and biases are AdamW's."""
        for name, weight in self.trained.items():
            if name.endswith((*EXPERTS, ".qkv.weight", ".out.weight")):
                yield weight

    def others(self) -> Iterator[nn.Parameter]:
        """Trained weights that `matrices` leaves."""
        chosen = {id(weight) for weight in self.matrices()}
        return (weight for weight in self.trained.values() if id(weight) not in chosen)

    @torch.no_grad()
    def full(self, *, quantised: bool) -> Iterator[tuple[str, Tensor]]:
        """Every weight as it would be saved, all vocabulary rows included, one at a time."""
        for name in self._names():
            weight = self._merged(name, quantised=quantised)
            if name in TABLES:
                table = self.frozen[name].clone()
                table[self.rows] = weight
                weight = table
            yield name, weight

    def _names(self) -> list[str]:
        """Names of the model's weights, adapters left out."""
        return [
            *self.frozen,
            *(n for n in self.trained if n not in self.frozen and "lora" not in n),
        ]

    def _merged(self, name: str, *, quantised: bool) -> Tensor:
        """One weight in the compute dtype; of a table the trained rows only."""
        weight = self.trained.get(name)
        expert = name.endswith(EXPERTS)
        if weight is None:
            frozen = self.frozen[name]
            if name in TABLES:
                return frozen[self.rows]
            if f"{name}.lora_a" not in self.trained:
                return frozen
            a, b = self.trained[f"{name}.lora_a"], self.trained[f"{name}.lora_b"]
            merged = lora.merge(frozen, a, b, scale=self.lora_scale)
        else:
            merged = weight
        if quantised and expert:
            merged = quantize.straight_through(merged, quantize.mxfp4(merged.detach()))
        elif quantised and name in TABLES and self.int8_rows:
            merged = quantize.straight_through(merged, quantize.int8_rows(merged.detach()))
        return merged.to(self.dtype)
