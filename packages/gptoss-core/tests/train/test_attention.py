from __future__ import annotations

import pytest
import torch

from gptoss_core import ops
from gptoss_core.train.attention import document_masks, flex_attend, plain_attend


def make(device: str) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 256, 4, 64, generator=generator)
    k, v = (torch.randn(2, 256, 2, 64, generator=generator) for _ in range(2))
    documents = torch.stack([torch.arange(256) // 100, torch.arange(256) // 256])
    return tuple(tensor.to(device) for tensor in (q, k, v, documents))


@pytest.mark.parametrize("window", [None, 50])
def test_one_document_is_ordinary_attention(window: int | None) -> None:
    q, k, v, documents = make("cpu")
    masks = document_masks(documents[1:], window=50, flex=False)
    mask = masks.full if window is None else masks.windowed
    out, lse = plain_attend(q[1:], k[1:], v[1:], mask)
    expected, expected_lse = ops.attention(q[1], k[1], v[1], window=window, offset=0)
    assert torch.allclose(out[0], expected, atol=1e-5)
    assert torch.allclose(lse[0], expected_lse, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("windowed", [False, True])
def test_flex_attention_equals_plain(windowed: bool) -> None:
    q, k, v, documents = (
        tensor.requires_grad_(tensor.is_floating_point()) for tensor in make("cuda")
    )
    results = []
    for attend, flex in ((torch.compile(flex_attend), True), (plain_attend, False)):
        masks = document_masks(documents, window=50, flex=flex)
        out, lse = attend(q, k, v, masks.windowed if windowed else masks.full)
        grads = torch.autograd.grad((out.square().sum() + lse.square().sum()), (q, k, v))
        results.append((out, lse, *grads))
    for fast, plain in zip(*results, strict=True):
        assert torch.allclose(fast, plain, rtol=1e-2, atol=1e-2 * float(plain.abs().max()))
