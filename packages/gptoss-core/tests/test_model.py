from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptoss_core import ops
from gptoss_core.cache import DenseCache, RingCache
from gptoss_core.errors import ShapeError
from gptoss_core.model import Transformer
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import ContextOverflow
from gptoss_harmony.layout import Layout
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import require


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 512, shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(actual: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    """Within `bound` of the largest logit; 1e-5 is what equal means on a CPU in float32."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound * float(expected.abs().max()))


def test_parameters_carry_the_checkpoint_s_names(
    tiny_folder: Path, tiny_model: Transformer
) -> None:
    stored = {name: t.shape for name, t in Checkpoint.open(tiny_folder).tensors.items()}
    assert {name: tuple(t.shape) for name, t in tiny_model.state_dict().items()} == stored


@torch.no_grad()
def test_shapes(tiny_model: Transformer) -> None:
    assert tiny_model(random_tokens(7)).shape == (7, 512)
    assert tiny_model(random_tokens(2, 7)).shape == (2, 7, 512)
    assert tiny_model(random_tokens(7), last_only=True).shape == (1, 512)
    assert tiny_model(random_tokens(2, 7), last_only=True).shape == (2, 1, 512)
    assert tiny_model(random_tokens(7)).dtype == torch.float32


@torch.no_grad()
def test_last_only_is_the_last_row(tiny_model: Transformer) -> None:
    tokens = random_tokens(20)
    assert_equal(tiny_model(tokens, last_only=True), tiny_model(tokens)[-1:])


@torch.no_grad()
def test_batched_equals_single(tiny_model: Transformer) -> None:
    tokens = random_tokens(3, 140)
    batched = tiny_model(tokens)
    for row in range(3):
        assert_equal(batched[row], tiny_model(tokens[row]))


@torch.no_grad()
def test_ragged_prefill_and_decode_equal_single(tiny_model: Transformer) -> None:
    """A fresh prompt, a decoded token and a continued prompt in one pass, in both caches."""
    texts = [random_tokens(150, seed=1), random_tokens(201, seed=2), random_tokens(300, seed=3)]
    news = [150, 1, 140]
    caches = [DenseCache(tiny_model.config), RingCache(tiny_model.config)]
    caches.append(RingCache(tiny_model.config))
    for text, new, cache in zip(texts, news, caches, strict=True):
        if new < len(text):
            tiny_model(text[:-new], cache=cache, last_only=True)
    tokens = torch.cat([text[-new:] for text, new in zip(texts, news, strict=True)])
    forks = [cache.fork(cache.length) for cache in caches]
    last = tiny_model.forward_ragged(tokens, news, caches)
    every = tiny_model.forward_ragged(tokens, news, forks, last_only=False)
    assert last.shape == (3, 512)
    start = 0
    for row, (text, new) in enumerate(zip(texts, news, strict=True)):
        expected = tiny_model(text)
        assert_equal(last[row], expected[-1])
        assert_equal(every[start : start + new], expected[-new:])
        start += new
    assert [cache.length for cache in caches] == [150, 201, 300]


@torch.no_grad()
def test_the_attention_seam_is_used_in_every_layer(tiny_folder: Path) -> None:
    windows: list[int | None] = []

    def counted(
        q: Tensor, k: Tensor, v: Tensor, *, window: int | None, offset: int
    ) -> tuple[Tensor, Tensor]:
        windows.append(window)
        return ops.attention(q, k, v, window=window, offset=offset)

    model = Transformer.from_checkpoint(tiny_folder, dtype=torch.float32, attention=counted)
    model(random_tokens(5))
    assert windows == [128, None, 128, None]


def test_tokens_past_the_context_are_refused(tiny: ModelConfig) -> None:
    short = replace(tiny, initial_context_length=4, rope_scaling_factor=2.0, num_hidden_layers=1)
    model = Transformer(short, dtype=torch.float32)
    with torch.no_grad():
        assert model(random_tokens(8)).shape == (8, 512)
        with pytest.raises(ContextOverflow, match="position 8 lies past the context of 8"):
            model(random_tokens(9))


def test_inputs_that_do_not_fit_are_named(tiny_model: Transformer) -> None:
    cache = DenseCache(tiny_model.config)
    with pytest.raises(ShapeError, match="forward_ragged"):
        tiny_model(random_tokens(2, 3), cache=cache)
    with pytest.raises(ShapeError, match="T >= 1"):
        tiny_model(random_tokens(0))
    with pytest.raises(ShapeError, match="do not fit together"):
        tiny_model.forward_ragged(random_tokens(5), [2, 2], [cache, cache])
    with pytest.raises(ShapeError, match="at least one new token"):
        tiny_model.forward_ragged(random_tokens(2), [2, 0], [cache, cache])
    assert cache.length == 0


def test_gradients_reach_every_dense_parameter(tiny: ModelConfig) -> None:
    torch.manual_seed(0)
    model = Transformer(replace(tiny, num_hidden_layers=2), dtype=torch.float32, experts="dense")
    for name, parameter in model.named_parameters():
        if name.endswith(("sinks", "bias")):
            torch.nn.init.normal_(parameter)
    model(random_tokens(2, 40)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


@torch.no_grad()
def test_bf16_stays_near_float32(tiny_folder: Path, tiny_model: Transformer) -> None:
    tokens = random_tokens(200)
    model = Transformer.from_checkpoint(tiny_folder)
    assert model.embedding.weight.dtype == torch.bfloat16
    expected, logits = tiny_model(tokens), model(tokens)
    errors = (logits - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.median()) < 0.02  # the median: rounding may send a few tokens elsewhere


def transformers_logits(folder: Path, tokens: Tensor) -> Tensor:
    """Hugging Face's eager float32 model over the same files."""
    from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

    config = AutoConfig.from_pretrained(folder)
    config.pad_token_id = config.eos_token_id = None  # outside the tiny vocabulary
    packed = getattr(config, "quantization_config", None) is not None
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        attn_implementation="eager",
        **({"quantization_config": Mxfp4Config(dequantize=True)} if packed else {}),
    )
    logits = model(tokens[None], use_cache=False).logits[0]
    assert isinstance(logits, Tensor)
    return logits


HARD_SIZES = [
    tiny_config(vocab_size=512),
    tiny_config(
        vocab_size=512,
        num_hidden_layers=3,
        num_experts=9,
        experts_per_token=3,
        hidden_size=96,
        intermediate_size=64,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
]


@torch.no_grad()
def compare_with_transformers(
    folder: Path, config: ModelConfig, layout: Layout, count: int
) -> None:
    """All three of our ways to read the same weights against Hugging Face's."""
    tokens = random_tokens(count)
    random_checkpoint(folder / "original", config, seed=3)
    random_checkpoint(folder / "hf", config, seed=3, layout=layout)
    expected = transformers_logits(folder / "hf", tokens)
    for source in ("original", "hf"):
        for experts in ("packed", "dense"):
            model = Transformer.from_checkpoint(
                folder / source,
                dtype=torch.float32,
                experts="packed" if experts == "packed" else "dense",
            )
            assert_equal(model(tokens), expected, 1e-4)


@pytest.mark.transformers
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("count", [130, 300])
@pytest.mark.filterwarnings("ignore")  # other people's deprecations
def test_logits_equal_transformers(tmp_path: Path, size: int, count: int) -> None:
    require(_has_transformers(), "transformers is not installed: pip install transformers")
    compare_with_transformers(tmp_path, HARD_SIZES[size], "hf-bf16", count)


@pytest.mark.slow
@pytest.mark.transformers
@pytest.mark.parametrize("layout", ["hf-bf16", "hf-mxfp4"])
@pytest.mark.filterwarnings("ignore")
def test_logits_equal_transformers_past_the_initial_context(tmp_path: Path, layout: Layout) -> None:
    require(_has_transformers(), "transformers is not installed: pip install transformers")
    compare_with_transformers(tmp_path, HARD_SIZES[0], layout, 5000)


def _has_transformers() -> bool:
    from importlib.util import find_spec

    return find_spec("transformers") is not None and find_spec("accelerate") is not None
