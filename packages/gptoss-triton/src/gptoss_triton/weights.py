"""The weights on the GPU: a checkpoint's bytes in the kernels' layout, or random ones for benches.

Expert bytes go from the file through page-locked buffers to the GPU and are reordered there, layer
by layer: nothing is expanded, nothing is quantised again, and the peak is the weights plus one
layer. Expanded (bf16) experts are not packed behind the user's back: that is `gptoss convert`.

Dense weights become float16. That keeps all bits of a bf16 number from 2^-14 to 65,504 and rounds
smaller ones to multiples of 2^-24; what is gained are activations with eight times the precision,
since a product's operands must be of one type. Values without a bound of their own (the residual
stream and what is added to it) stay float32.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gptoss_core.staging import Stager, map_part
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import tensor_specs
from gptoss_triton.mxfp4 import LARGEST_SCALE, PackedMatrix, interleave_gate_up, pack_panels

DTYPE = torch.float16  # on a GPU, of everything but the packed experts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer; names and shapes of the checkpoint except for the packed experts."""

    attention_norm: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    sinks: Tensor
    out_weight: Tensor
    out_bias: Tensor
    mlp_norm: Tensor
    gate_weight: Tensor
    gate_bias: Tensor
    up: PackedMatrix  # gates and ups in groups of eight, see `interleave_gate_up`
    down: PackedMatrix


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """All weights of a model on one device."""

    config: ModelConfig
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    unembedding: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of everything but the packed experts."""
        return self.embedding.dtype


class Source(Protocol):
    """Where weights come from: tensors by the checkpoint's names, on the device."""

    def __call__(self, names: Sequence[str]) -> list[Tensor]:
        """The named tensors in the checkpoint's shapes; bf16 or uint8."""
        ...


def load_weights(
    checkpoint: Checkpoint, device: torch.device, *, dtype: torch.dtype = DTYPE
) -> ModelWeights:
    """Read a checkpoint.

    Args:
        checkpoint: `original/` or Hugging Face with packed experts.
        device: where to.
        dtype: of the dense weights; the interpreter needs float32.

    Raises:
        CheckpointError: expanded experts, or a weight or scale that is NaN or out of range.
    """
    if checkpoint.layout == "hf-bf16":
        raise CheckpointError(
            f"{checkpoint.path} has expanded bf16 experts; the Triton engine runs packed MXFP4: "
            "use the published MXFP4 checkpoint, or `--engine torch`"
        )
    with closing(Stager(device)) as stager:

        def read(names: Sequence[str]) -> list[Tensor]:
            parts = [[map_part(part) for part in checkpoint.tensors[name].parts] for name in names]
            sent = [stager.send(part[0] if len(part) == 1 else torch.cat(part)) for part in parts]
            stager.finish()
            return sent

        return build_weights(checkpoint.config, read, dtype=dtype, origin=str(checkpoint.path))


def build_weights(
    config: ModelConfig, read: Source, *, dtype: torch.dtype, origin: str
) -> ModelWeights:
    """Assemble the weights, one layer of raw tensors at a time.

    Args:
        config: sizes.
        read: gives the tensors.
        dtype: of the dense weights.
        origin: what error messages call the source.
    """
    layers = []
    for index in range(config.num_hidden_layers):
        prefix = f"block.{index}."
        dense = read([prefix + name for name in _DENSE.values()])
        packed = []
        for name in ("mlp1", "mlp2"):
            names = [f"{prefix}mlp.{name}_{part}" for part in _PACKED]
            blocks, scales, bias = read(names)
            _check_scales(f"{origin}: {names[1]}", scales)
            bias = _narrow(f"{origin}: {names[2]}", bias, dtype)
            packed.append(pack_matrix(blocks, scales, bias, fused=name == "mlp1"))
        fields = {
            field: _narrow(f"{origin}: {prefix}{name}", tensor, dtype)
            for (field, name), tensor in zip(_DENSE.items(), dense, strict=True)
        }
        layers.append(LayerWeights(**fields, up=packed[0], down=packed[1]))
    names = ["embedding.weight", "norm.scale", "unembedding.weight"]
    embedding, norm, unembedding = (
        _narrow(f"{origin}: {name}", tensor, dtype)
        for name, tensor in zip(names, read(names), strict=True)
    )
    return ModelWeights(
        config=config,
        embedding=embedding,
        layers=tuple(layers),
        norm=norm,
        unembedding=unembedding,
    )


_DENSE = {
    "attention_norm": "attn.norm.scale",
    "qkv_weight": "attn.qkv.weight",
    "qkv_bias": "attn.qkv.bias",
    "sinks": "attn.sinks",
    "out_weight": "attn.out.weight",
    "out_bias": "attn.out.bias",
    "mlp_norm": "mlp.norm.scale",
    "gate_weight": "mlp.gate.weight",
    "gate_bias": "mlp.gate.bias",
}
_PACKED = ("weight.blocks", "weight.scales", "bias")


def _narrow(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert; refuse what is not finite afterwards."""
    narrow = tensor.to(dtype)
    if not bool(narrow.isfinite().all()):
        raise CheckpointError(
            f"{name} has a value that is no number or beyond what {dtype} holds; download the "
            "checkpoint again, or use `--engine torch`"
        )
    return narrow


def _check_scales(name: str, scales: Tensor) -> None:
    """Refuse scales that are NaN or that the decoder cannot represent."""
    largest = int(scales.max())
    if largest == 255:
        raise CheckpointError(f"{name} has a NaN scale; download the checkpoint again")
    if largest > LARGEST_SCALE:
        raise CheckpointError(
            f"{name} has a scale of 2^{largest - 127}; the Triton engine holds up to "
            f"2^{LARGEST_SCALE - 127}: use `--engine torch`"
        )


def pack_matrix(blocks: Tensor, scales: Tensor, bias: Tensor, *, fused: bool) -> PackedMatrix:
    """Reorder one layer's experts from checkpoint order, a few experts at a time.

    Args:
        blocks: (E, R, K/32, 16) uint8.
        scales: (E, R, K/32) uint8.
        bias: (E, R) in the kernels' dtype.
        fused: rows alternate gate and up.
    """
    experts, rows, groups, _ = blocks.shape
    panels = math.ceil(groups / 2)
    to_blocks = blocks.new_empty((experts, panels, rows * 32))
    to_scales = torch.empty(
        (experts, math.ceil(panels / 2), rows), dtype=torch.int32, device=blocks.device
    )
    for first in range(0, experts, 8):
        part = slice(first, first + 8)
        pair = blocks[part], scales[part]
        if fused:
            pair = interleave_gate_up(pair[0]), interleave_gate_up(pair[1])
        to_blocks[part], to_scales[part] = pack_panels(*pair)
    bias = interleave_gate_up(bias) if fused else bias
    return PackedMatrix(
        blocks=to_blocks, scales=to_scales, bias=bias.contiguous(), columns=groups * 32
    )


class RandomSource:
    """Random tensors of the real shapes, made on the device; activations stay near 1.

    A name always gives the same tensor, so that a reference can be built from the same weights.

    Args:
        config: sizes.
        device: where.
        seed: same seed, same weights on the same kind of device.
    """

    def __init__(self, config: ModelConfig, device: torch.device, *, seed: int = 0) -> None:
        self.device, self.seed = device, seed
        self.shapes = {spec.name: spec.shape for spec in tensor_specs(config, "original")}

    def __call__(self, names: Sequence[str]) -> list[Tensor]:
        """The named tensors."""
        return [self._make(name, self.shapes[name]) for name in names]

    def _make(self, name: str, shape: tuple[int, ...]) -> Tensor:
        key = zlib.crc32(name.encode()) ^ self.seed
        generator = torch.Generator(self.device).manual_seed(key)
        if name.endswith((".blocks", ".scales")):
            middle = 127 + round(math.log2((shape[2] * 32) ** -0.5 / 2.926))
            low, high = (0, 256) if name.endswith(".blocks") else (middle - 1, middle + 2)
            raw = torch.empty(shape, dtype=torch.uint8, device=self.device)
            return raw.random_(low, high, generator=generator)
        values = torch.empty(shape, dtype=torch.bfloat16, device=self.device)
        values.normal_(generator=generator)
        if name.endswith("norm.scale"):
            return values.mul_(0.1).add_(1.0)
        if name.endswith("sinks") or name == "embedding.weight":
            return values
        return values.mul_(0.05 if len(shape) == 1 or name.endswith("_bias") else shape[-1] ** -0.5)


def random_weights(
    config: ModelConfig, device: torch.device, *, seed: int = 0, dtype: torch.dtype = DTYPE
) -> ModelWeights:
    """Weights of `RandomSource` in the kernels' layout."""
    read = RandomSource(config, device, seed=seed)
    return build_weights(config, read, dtype=dtype, origin="random weights")
