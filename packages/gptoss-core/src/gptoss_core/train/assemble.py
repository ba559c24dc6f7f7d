"""From settings and paths to a run that is ready to step: data, weights, forward pass, trainer.

Everything that can be wrong with the input is found here, before the first step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptoss_core.device import choose_device
from gptoss_core.model import Transformer
from gptoss_core.train.batches import BatchMaker
from gptoss_core.train.documents import split
from gptoss_core.train.forward import Forward
from gptoss_core.train.induction import write_induction_heads
from gptoss_core.train.initial import initial_weights
from gptoss_core.train.packing import Packer
from gptoss_core.train.parameters import Parameters
from gptoss_core.train.rename import Renamer, make_renamer
from gptoss_core.train.settings import Settings
from gptoss_core.train.sources import Part, open_documents, open_parts
from gptoss_core.train.trainer import Trainer
from gptoss_core.train.vocabulary import ActiveRows, Ids, read_rows
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import parse_config
from gptoss_harmony.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a run reads and writes; exactly one of `init` and `checkpoint` is given."""

    data: Path
    out: Path
    init: Path | None = None
    checkpoint: str | None = None
    held: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that is ready to step."""

    config: ModelConfig
    settings: Settings
    trainer: Trainer
    batches: BatchMaker
    held: BatchMaker
    held_renamed: BatchMaker | None
    device: torch.device


def assemble(paths: Paths, settings: Settings) -> Run:
    """Read everything and build the run.

    Raises:
        UsageError: paths, data and settings that do not fit together.
        CheckpointError: a checkpoint or config that is not one.
    """
    device = choose_device(settings.device)
    parts, held = _parts(paths, settings)
    config, weights = _weights(paths, settings, device)
    rows = _rows(settings, config, [*parts, *held])
    active = ActiveRows(rows, size=config.vocab_size, candidates=_candidates(settings))
    parameters = Parameters(weights, active, settings, device=device)
    del weights
    forward = Forward(
        config,
        experts=settings.experts,
        flex=settings.compile and device.type == "cuda",
        compile=settings.compile,
        checkpointing=settings.checkpointing,
    )
    renamer = _renamer(settings, rows)
    count = max(1, settings.tokens_per_step // settings.context)

    def maker(data: list[Part], share: float) -> BatchMaker:
        packer = Packer(data, context=settings.context, rows=count, seed=settings.seed)
        return BatchMaker(
            packer,
            active,
            renamer=renamer,
            share=share,
            seed=settings.seed,
            pin=device.type == "cuda",
        )

    return Run(
        config=config,
        settings=settings,
        trainer=Trainer(forward, parameters, settings),
        batches=maker(parts, settings.rename),
        held=maker(held, 0.0),
        held_renamed=maker(held, 1.0) if settings.rename else None,
        device=device,
    )


def _parts(paths: Paths, settings: Settings) -> tuple[list[Part], list[Part]]:
    """Training and held-out documents; read at once only where a split needs them all."""
    if paths.held is not None:
        held = open_documents(paths.held, replace(settings, shards=0))
        return open_parts(paths.data, settings), [lambda: held]
    documents, held = split(
        open_documents(paths.data, settings), settings.held_out, seed=settings.seed
    )
    return [lambda: documents], [lambda: held]


def _weights(
    paths: Paths, settings: Settings, device: torch.device
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and every weight, experts dense."""
    if (paths.init is None) == (paths.checkpoint is None):
        raise UsageError("give either --init CONFIG.json or --checkpoint FILE, and not both")
    if paths.checkpoint is not None:
        dtype = getattr(torch, settings.dtype)
        model = Transformer.from_checkpoint(
            paths.checkpoint, device=device, dtype=dtype, experts="dense"
        )
        return model.config, {name: p.detach() for name, p in model.named_parameters()}
    assert paths.init is not None
    try:
        config = parse_config(json.loads(paths.init.read_text("utf-8")), str(paths.init))
    except (OSError, ValueError) as error:
        raise UsageError(f"{paths.init} is not a config.json: {error}") from error
    weights = initial_weights(config, tail=settings.tail, seed=settings.seed)
    if settings.start == "induction":
        if settings.tail != "codes":
            raise UsageError("start = induction needs tail = codes: the heads copy codes")
        write_induction_heads(weights, config)
    return config, weights


def _rows(settings: Settings, config: ModelConfig, parts: list[Part]) -> Ids:
    """The trained ids: of the file, else those that occur."""
    if settings.rows:
        return read_rows(Path(settings.rows), config.vocab_size)
    occurring = reduce(np.union1d, (np.unique(part().tokens) for part in parts)).astype(np.int64)
    if occurring[-1] >= config.vocab_size:
        raise UsageError(
            f"the data holds token id {occurring[-1]}, but the model has only "
            f"{config.vocab_size} rows: data and model use different vocabularies"
        )
    return np.union1d(occurring, [0])  # 0 pads rows


def _candidates(settings: Settings) -> int:
    """Frozen rows per step: none where every id that occurs is trained."""
    return settings.tail_candidates if settings.rows else 0


def _renamer(settings: Settings, rows: Ids) -> Renamer | None:
    if not settings.rename:
        return None
    if not settings.rows:
        raise UsageError("rename needs rows: new names are drawn from a fixed set of ids")
    avoid = np.load(settings.avoid) if settings.avoid else np.zeros(0, dtype=np.int64)
    return make_renamer(rows, avoid.astype(np.int64))
