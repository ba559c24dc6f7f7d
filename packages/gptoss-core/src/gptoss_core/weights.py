"""Weights from a checkpoint of any layout to a model on any device, and back.

The model is first made without memory (`meta`), so that what it will need is known and compared
with what is free before a byte is read. Tensors are then read one at a time:

stored as     wanted     what happens
MXFP4         packed     the bytes are taken as they are (mapped on a CPU)
MXFP4         dense      each expert is sent packed and expanded where it will live
bf16          dense      each expert is sent and turned to (rows, columns)
bf16          packed     each expert is sent and rounded to MXFP4 where it will live

So the host never holds more than a few experts beyond the weights that stay on it. Under tensor
parallelism each process maps whole files and reads its slices only.

    model = load("gpt-oss-20b/original", device="cuda")
    save(model, "copy")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gptoss_core import mxfp4, ops
from gptoss_core.device import choose_device
from gptoss_core.errors import ParallelError
from gptoss_core.experts import PackedWeight
from gptoss_core.memory import free_bytes
from gptoss_core.model import Experts, Transformer
from gptoss_core.parallel import Plan
from gptoss_core.staging import Stager, map_part
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import CheckpointWriter
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import OutOfMemory
from gptoss_harmony.layout import tensor_specs
from gptoss_harmony.mxfp4 import NAN_SCALE, check_scales

WORKING_BYTES = 1 << 28  # kept free beside the weights: expanded experts, activations, logits
EXPERT_WEIGHTS = ("mlp1_weight", "mlp2_weight")


def load(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    experts: Experts = "packed",
    attention: ops.Attention = ops.attention,
    plan: Callable[[ModelConfig], Plan] = Plan.whole,
) -> Transformer:
    """Read a checkpoint.

    Args:
        path: `nano`, a downloaded hub id, or a folder in any of the three layouts.
        device: where the weights go: cpu, cuda, cuda:1, mps or auto.
        dtype: of everything but norms (float32) and packed experts.
        experts: "packed" keeps 4.25 bits a weight; "dense" expands to `dtype` and can be trained.
        attention: the implementation for every layer.
        plan: gives this process's share of a model of these sizes.

    Returns:
        The model; its parameters ask for gradients only where `experts` is "dense".

    Raises:
        CheckpointError: not a checkpoint, damaged, or a scale of 255.
        OutOfMemory: it will not fit; said before anything is read.
        UsageError: no such device here.
    """
    device = choose_device(device)
    checkpoint = Checkpoint.open(path)
    model = Transformer(
        checkpoint.config,
        device="meta",
        dtype=dtype,
        experts=experts,
        attention=attention,
        plan=plan(checkpoint.config),
    )
    check_memory(model, checkpoint, device)
    loader = _Loader(checkpoint, model, device, dtype)
    try:
        loader.run()
    finally:
        loader.close()
    return model.requires_grad_(experts == "dense")


def check_memory(model: Transformer, checkpoint: Checkpoint, device: torch.device) -> None:
    """Compare what the weights will take with what the device has free.

    Raises:
        OutOfMemory: with both numbers and what to do.
    """
    tensors = [*model.parameters(), *(b for b in model.buffers() if b.dtype == torch.uint8)]
    needed = sum(tensor.nbytes for tensor in tensors) + WORKING_BYTES
    free = free_bytes(device)
    if free is not None and needed > free:
        dense = any(name.endswith(EXPERT_WEIGHTS) for name, _ in model.named_parameters())
        remedy = "take packed experts, " if dense else ""
        raise OutOfMemory(
            f"{checkpoint.path} needs {needed / 1e9:.1f} GB on {device} and {free / 1e9:.1f} GB "
            f"are free: {remedy}close other programs, take a smaller model, or split it over "
            "several devices with torchrun"
        )


class _Loader:
    """Fills one model, tensor by tensor."""

    def __init__(
        self, checkpoint: Checkpoint, model: Transformer, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.checkpoint = checkpoint
        self.model = model
        self.device = device
        self.dtype = dtype
        self.tables = mxfp4.tables(dtype, device)
        self.stager = Stager(device) if device.type == "cuda" else None

    def run(self) -> None:
        """Read everything; the order is the file's."""
        names = dict.fromkeys(
            name.removesuffix(".blocks").removesuffix(".scales") for name in self.checkpoint.tensors
        )
        for name in names:
            if name.endswith(EXPERT_WEIGHTS):
                self._place(name, self._expert_weight(name))
            else:
                self._place(name, self._plain(name))
        if self.stager is not None:
            self.stager.finish()
        self._check_scales()

    def close(self) -> None:
        """Stop the copying threads."""
        if self.stager is not None:
            self.stager.close()

    def _place(self, name: str, value: nn.Parameter | PackedWeight) -> None:
        """Put a weight where its name says, in place of the one without memory."""
        owner, _, leaf = name.rpartition(".")
        setattr(self.model.get_submodule(owner), leaf, value)

    def _source(self, name: str) -> Tensor:
        """This process's slice of a stored tensor, on the host, mapped where that is possible."""
        parts = [map_part(part) for part in self.checkpoint.tensors[name].parts]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.model.plan.cut(name, whole)

    def _plain(self, name: str) -> nn.Parameter:
        """A tensor that is not an expert matrix, in the dtype that the model gave it."""
        wanted = self.model.get_parameter(name)
        source = self._source(name)
        assert source.shape == wanted.shape  # the header was checked against the same config
        if self.stager is not None and source.dtype == wanted.dtype:
            return nn.Parameter(self.stager.send(source))
        return nn.Parameter(source.to(self.device, wanted.dtype))

    def _expert_weight(self, name: str) -> nn.Parameter | PackedWeight:
        """Expert matrices, kept, expanded, turned or packed as the table above says."""
        owner, _, leaf = name.rpartition(".")
        wanted = getattr(self.model.get_submodule(owner), leaf)
        packed = f"{name}.blocks" in self.checkpoint.tensors
        if isinstance(wanted, PackedWeight):
            blocks, scales = self._packed_as_stored(name) if packed else self._packed_now(name)
            return PackedWeight(blocks, scales, dtype=self.dtype, tables=self.tables)
        value = torch.empty(wanted.shape, dtype=self.dtype, device=self.device)
        for expert, matrix in enumerate(self._unpacked(name) if packed else self._source(name)):
            value[expert] = matrix.to(self.device)
        return nn.Parameter(value)

    def _packed_as_stored(self, name: str) -> tuple[Tensor, Tensor]:
        """Blocks and scales, byte for byte."""
        blocks, scales = (self._source(f"{name}.{kind}") for kind in ("blocks", "scales"))
        if self.stager is not None:
            return self.stager.send(blocks), self.stager.send(scales)
        return blocks.to(self.device), scales.to(self.device)

    def _packed_now(self, name: str) -> tuple[Tensor, Tensor]:
        """Blocks and scales rounded from bf16."""
        pairs = [mxfp4.pack(matrix.to(self.device)) for matrix in self._source(name)]
        return torch.stack([blocks for blocks, _ in pairs]), torch.stack([s for _, s in pairs])

    def _unpacked(self, name: str) -> Iterator[Tensor]:
        """One expert's matrix after the other, expanded on the device."""
        blocks, scales = (self._source(f"{name}.{kind}") for kind in ("blocks", "scales"))
        self._refuse_nan(f"{name}.scales", scales)
        for some_blocks, some_scales in zip(blocks, scales, strict=True):
            yield mxfp4.unpack(
                some_blocks.to(self.device), some_scales.to(self.device), self.tables
            )

    def _check_scales(self) -> None:
        """Refuse scales that mean NaN; read where they lie, on the device."""
        for name, buffer in self.model.named_buffers():
            if name.endswith(".scales"):
                self._refuse_nan(name, buffer)

    def _refuse_nan(self, name: str, scales: Tensor) -> None:
        """Raise with the first place, counted in the file's own rows."""
        if int(scales.max()) == NAN_SCALE:
            check_scales(self.checkpoint.read(name), where=f"{self.checkpoint.path}: {name}")


def save(model: Transformer, folder: str | os.PathLike[str]) -> None:
    """Write a model as an `original/` folder that every engine loads.

    Dense experts are rounded to MXFP4, expert by expert; packed ones are written as they are;
    everything else is rounded to bf16.

    Args:
        model: whole, not one process's share.
        folder: must not exist, or be empty.

    Raises:
        ParallelError: the model is one share of several.
        CheckpointError: the folder is taken or not writable, the disk too small, a weight not
            finite.
    """
    if model.plan.size > 1:
        raise ParallelError(
            f"this process holds one of {model.plan.size} shares; load the model in one process to "
            "save it"
        )
    with CheckpointWriter(folder, model.config, layout="original") as writer:
        for spec in tensor_specs(model.config, "original"):
            name, _, kind = spec.name.rpartition(".")
            if name.endswith(EXPERT_WEIGHTS):
                if kind == "blocks":
                    _append_experts(writer, name, _weight(model, name))
                continue
            writer.append(spec.name, _bf16_bits(model.get_parameter(spec.name)))


def _weight(model: Transformer, name: str) -> nn.Parameter | PackedWeight:
    """The expert matrices that a name stands for."""
    owner, _, leaf = name.rpartition(".")
    weight = getattr(model.get_submodule(owner), leaf)
    assert isinstance(weight, nn.Parameter | PackedWeight)
    return weight


def _append_experts(
    writer: CheckpointWriter, name: str, weight: nn.Parameter | PackedWeight
) -> None:
    """Write one layer's blocks and scales, an expert at a time."""
    for expert in range(weight.shape[0]):
        if isinstance(weight, PackedWeight):
            blocks, scales = weight.blocks[expert], weight.scales[expert]
        else:
            blocks, scales = mxfp4.pack(weight[expert].detach())
        writer.append(f"{name}.blocks", blocks[None].cpu().numpy())
        writer.append(f"{name}.scales", scales[None].cpu().numpy())


def _bf16_bits(parameter: Tensor) -> NDArray[Any]:
    """A parameter rounded to bf16, as uint16 bits."""
    bits = parameter.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
    return bits.numpy().view("uint16")
