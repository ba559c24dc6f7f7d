import json

from gptoss_harmony.answer_stats import AnswerStats, peak_resident_bytes
from gptoss_harmony.engine import TokenOutput


def test_a_rate_needs_two_tokens() -> None:
    stats = AnswerStats(prompt_tokens=3)
    assert "first token" not in stats.sentence()
    stats.count(TokenOutput(1))
    assert stats.tokens_per_second is None
    stats.count(TokenOutput(2, finish_reason="length"))
    assert stats.tokens_per_second is not None
    assert stats.generated_tokens == 2
    assert "ended by length" in stats.sentence()


def test_an_output_without_a_token_counts_none() -> None:
    stats = AnswerStats(prompt_tokens=3)
    stats.count(TokenOutput(None, finish_reason="cancelled"))
    assert (stats.generated_tokens, stats.time_to_first_token) == (0, None)
    assert json.loads(json.dumps(stats.as_dict()))["finish_reason"] == "cancelled"


def test_this_process_holds_some_memory() -> None:
    peak = peak_resident_bytes()
    assert peak == 0 or 2**20 < peak < 2**40
