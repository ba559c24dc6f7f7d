"""The same work by Hugging Face Transformers, on the same card: `--peer transformers`.

It runs in a process of its own after the engine has given its memory back, with random bf16
weights of the same shapes: its MXFP4 kernels come from a hub that a benchmark should not need. So
it moves four times the bytes, and the table says so.

    python -m gptoss_triton.bench.peer '{"size": "20b", "batch": [1], "context": [1024], ...}'
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch

from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import hugging_face_config_json
from gptoss_triton.bench.ceilings import dense_weights
from gptoss_triton.bench.row import Row

LONGEST = 8192  # tokens: attention without a fused kernel needs their square
NEW_TOKENS = 33
NOTE = "transformers, bf16 weights, eager attention"


def run_peer(
    config: ModelConfig, *, device: str, batch: list[int], context: list[int], prompt: list[int]
) -> tuple[list[Row], list[str]]:
    """Measure in a process of its own.

    Args:
        config: sizes.
        device: where.
        batch: sequences to decode.
        context: tokens of each.
        prompt: tokens to read.

    Returns:
        Rows, and what was left out and why.
    """
    if find_spec("transformers") is None:
        return [], ["peer: Transformers is not installed; `pip install transformers accelerate`"]
    need, free = 2 * weights(config), memory(device)
    if need > 0.9 * free:
        return [], [
            f"peer: {need / 1e9:.0f} GB of bf16 weights do not fit into {free / 1e9:.0f} GB"
        ]
    work = {
        "config": hugging_face_config_json(config, packed=False),
        "device": device,
        "batch": batch,
        "context": context,
        "prompt": prompt,
    }
    command = [sys.executable, "-m", "gptoss_triton.bench.peer", json.dumps(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return [], [f"peer: it ended with status {done.returncode}; its words are above"]
    answer = json.loads(done.stdout.splitlines()[-1])
    return [Row(**row) for row in answer["rows"]], answer["left_out"]


def weights(config: ModelConfig) -> int:
    """How many weights a model has, biases left aside."""
    expert = 3 * config.hidden_size * config.intermediate_size
    layer = dense_weights(config) + config.num_experts * expert
    return config.num_hidden_layers * layer + 2 * config.vocab_size * config.hidden_size


def memory(device: str) -> int:
    """Free bytes of a GPU, or as good as unlimited where the caller knows."""
    if not device.startswith("cuda"):
        return 1 << 60
    return torch.cuda.mem_get_info(torch.device(device))[0]


class Peer:
    """A Transformers model with random weights.

    Args:
        config: its config.json.
        device: where.
    """

    def __init__(self, config: dict[str, Any], device: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.device = torch.device(device)
        known = AutoConfig.for_model(**config)
        kind = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(kind)
        try:
            with self.device:
                model = AutoModelForCausalLM.from_config(known, attn_implementation="eager")
        finally:
            torch.set_default_dtype(before)
        self.model: Any = model.eval()
        self.vocabulary: int = known.vocab_size

    def seconds(self, batch: int, tokens: int, new: int) -> float:
        """Time to read `tokens` in each of `batch` rows and to say `new` more."""
        prompt = torch.randint(0, self.vocabulary, (batch, tokens), device=self.device)
        self._sync()
        start = time.perf_counter()
        self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=False,
        )
        self._sync()
        return time.perf_counter() - start

    def _sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def decode(self, batch: int, context: int) -> Row:
        """Tokens per second after the prompt has been read."""
        self.seconds(batch, context, 2)
        reading, both = self.seconds(batch, context, 1), self.seconds(batch, context, NEW_TOKENS)
        rate = batch * (NEW_TOKENS - 1) / max(both - reading, 1e-9)
        return Row(what="decode", batch=batch, context=context, rate=rate, note=NOTE, engine="peer")

    def prefill(self, tokens: int) -> Row:
        """Tokens per second until the first token."""
        self.seconds(1, tokens, 1)
        seconds = sorted(self.seconds(1, tokens, 1) for _ in range(3))[1]
        note = f"{NOTE}; first token after {seconds * 1e3:.1f} ms"
        return Row(
            what="prefill", batch=1, context=tokens, rate=tokens / seconds, note=note, engine="peer"
        )


def measure(work: dict[str, Any]) -> tuple[list[Row], list[str]]:
    """Everything that fits; see `run_peer`."""
    rows: list[Row] = []
    left_out: list[str] = []
    peer = Peer(work["config"], work["device"])
    for what, batch, tokens in _cases(work):
        name = f"peer: {what}, batch {batch}, {tokens} tokens"
        if tokens > LONGEST:
            left_out.append(f"{name}: its attention would need more memory than there is")
            continue
        try:
            rows.append(peer.decode(batch, tokens) if what == "decode" else peer.prefill(tokens))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            left_out.append(f"{name}: out of memory")
    return rows, left_out


def _cases(work: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """What, batch, tokens."""
    for batch in work["batch"]:
        for context in work["context"]:
            yield "decode", batch, context
    for prompt in work["prompt"]:
        yield "prefill", 1, prompt


def main() -> None:
    """Do the work described by the only argument; the last line of the output is the answer."""
    with torch.inference_mode():
        rows, left_out = measure(json.loads(sys.argv[1]))
    sys.stdout.write(
        json.dumps({"rows": [asdict(row) for row in rows], "left_out": left_out}) + "\n"
    )


if __name__ == "__main__":
    main()
