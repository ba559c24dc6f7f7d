"""Scores against a log softmax of every row."""

from __future__ import annotations

import pytest
import torch

from gptoss_core.logprobs import score


def test_rows_get_as_many_alternatives_as_they_ask_for() -> None:
    logits = torch.randn(5, 40) * 4
    tokens, wanted = [3, 39, 0, 7, 7], [2, None, 0, 20, 40]
    reference = torch.log_softmax(logits.double(), -1)
    scores = score(logits, tokens, wanted)
    assert scores[1] is None
    for row, count in enumerate(wanted):
        if count is None:
            continue
        given = scores[row]
        assert given is not None
        assert given.token == tokens[row]
        assert given.logprob == pytest.approx(reference[row, tokens[row]].item(), abs=1e-5)
        best, ids = reference[row].topk(count)
        assert [token for token, _ in given.top] == ids.tolist()
        assert [value for _, value in given.top] == pytest.approx(best.tolist(), abs=1e-5)


def test_nobody_asks_and_a_vocabulary_smaller_than_the_wish() -> None:
    logits = torch.zeros(2, 3)
    assert score(logits, [0, 1], [None, None]) == [None, None]
    (given,) = score(logits[:1], [0], [20])
    assert given is not None
    assert len(given.top) == 3


def test_a_certain_token_is_never_more_than_certain() -> None:
    logits = torch.full((1, 1000), -50.0)
    logits[0, 5] = 50.0
    (given,) = score(logits, [5], [0])
    assert given is not None
    assert given.logprob == 0.0
