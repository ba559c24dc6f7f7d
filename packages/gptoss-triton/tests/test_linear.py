import pytest
import torch

from gptoss_triton.launch import Launch
from gptoss_triton.linear import linear, linear_many


@pytest.mark.parametrize("tokens", [1, 2, 8])
@pytest.mark.parametrize("columns", [64, 128])
def test_linear_equals_torch(place, tokens, columns):
    x, weight = place.random(tokens, 192), place.random(100, 192)
    bias = place.random(100)
    expected = x.double() @ weight.double().T
    pairs = 1 if tokens == 1 else 8
    launch = Launch(rows=16, pairs=pairs, columns=columns)
    out = place.poisoned(tokens, 100, dtype=torch.float32)
    linear(x, weight, None, out, launch=launch)
    place.close(out, expected)
    linear(x, weight, bias, out, launch=launch)
    place.close(out, expected + bias.double())


def test_tiles_of_tokens_do_not_change_a_row(place):
    x, weight = place.random(21, 96), place.random(40, 96)
    launch = Launch(rows=16, pairs=8, columns=64)
    out, alone = (place.poisoned(n, 40, dtype=torch.float32) for n in (21, 1))
    linear(x, weight, None, out, launch=launch)
    place.close(out, x.double() @ weight.double().T)
    linear(x[20:].contiguous(), weight, None, alone, launch=launch)
    assert torch.equal(out[20:], alone)


def test_linear_many_writes_wide_logits(place):
    x, weight = place.random(40, 64), place.random(96, 64)
    out = place.poisoned(40, 96, dtype=torch.float32)
    linear_many(x, weight, None, out)
    place.close(out, x.double() @ weight.double().T)
