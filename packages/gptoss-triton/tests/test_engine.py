"""The engine contract on a tiny model, in the interpreter or on a GPU."""

import random
from contextlib import closing

import pytest
import torch

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.engine import Sampling
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import EngineContract, tokens_of

CUDA = torch.cuda.is_available()
# A minute in the interpreter; what it runs is tested piece by piece in the unmarked tests.
pytestmark = pytest.mark.slow
VOCABULARY = 192


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = tiny_config(
        vocab_size=VOCABULARY, sliding_window=20, initial_context_length=8, num_hidden_layers=2
    )
    return random_checkpoint(tmp_path_factory.mktemp("engine") / "tiny", config, seed=5)


def open_here(checkpoint, **changes):
    from gptoss_triton.build import build_machine
    from gptoss_triton.engine import TritonEngine
    from gptoss_triton.options import TritonOptions

    sizes = {"max_batch": 8, "step_tokens": 64, "context": 256, "gpu_memory": 0.1}
    options = TritonOptions(**(sizes | changes))
    if CUDA:
        return TritonEngine.open(str(checkpoint), options)
    machine = build_machine(Checkpoint.open(checkpoint), torch.device("cpu"), options)
    return TritonEngine(machine)


@pytest.fixture(scope="module")
def engine(checkpoint):
    with closing(open_here(checkpoint)) as engine:
        yield engine


class TestTritonEngine(EngineContract):
    prompt = (100, 28, 108, 13, 107, 100, 73)

    def test_constraint(self, engine):
        from gptoss_harmony.testing import AllowOnly

        constraint = AllowOnly({11, 102})
        sampling = Sampling(temperature=1.0, max_tokens=6, stop_tokens=())
        tokens = tokens_of(self.run(engine, sampling, constraint=constraint))
        assert set(tokens) <= constraint.tokens
        assert constraint.accepted == tokens


def greedy(count, **changes):
    return Sampling(temperature=0.0, max_tokens=count, stop_tokens=(), **changes)


def test_a_second_turn_is_cached_and_answers_as_uncached(engine, checkpoint):
    prompt = [(7 * i) % VOCABULARY for i in range(130)]
    first = engine.generate(prompt, greedy(3))
    said = tokens_of(list(first))
    turn = [*prompt, *said, 5, 6]
    again = engine.generate(turn, greedy(3))
    stranger = engine.generate(turn, greedy(3, cache_salt="other"))
    assert again.cached_tokens == 128
    assert tokens_of(list(again)) == tokens_of(list(stranger))
    assert stranger.cached_tokens == 0


def test_filters_and_penalties_change_only_their_row(engine):
    prompt = [3, 1, 4, 1, 5]
    plain = tokens_of(list(engine.generate(prompt, greedy(4))))
    narrow = Sampling(temperature=1.0, top_k=1, max_tokens=4, stop_tokens=())
    repeat = greedy(4, repetition_penalty=1e9, presence_penalty=2.0, frequency_penalty=1.0)
    running = [engine.generate(prompt, sampling) for sampling in (greedy(4), narrow, repeat)]
    answers = [tokens_of(list(generation)) for generation in running]
    assert answers[0] == answers[1] == plain
    assert len(set(answers[2])) == 4, "a huge repetition penalty still repeated a token"


def test_closing_lets_answers_finish_and_refuses_new_ones(checkpoint):
    from gptoss_harmony.errors import EngineError

    engine = open_here(checkpoint)
    generation = engine.generate([1, 2, 3], greedy(2))
    engine.close()
    engine.close()
    assert len(tokens_of(list(generation))) == 2
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate([1], greedy(1)))


def test_a_failing_constraint_ends_its_own_request_only(engine):
    from gptoss_harmony.errors import EngineError

    class Broken:
        source, done = None, False

        def fill(self, row):
            row[:] = 0
            return True

        def accept(self, token):
            raise AssertionError("nothing was allowed")

        def rollback(self, count):
            raise AssertionError("nothing was accepted")

    bystander = engine.generate([9, 8, 7], greedy(3))
    broken = engine.generate([1, 2, 3], greedy(3), constraint=Broken())
    beside = engine.generate([4, 5, 6], greedy(3))
    assert beside.cached_tokens == 0
    with pytest.raises(EngineError, match="allows no token"):
        next(broken)
    assert len(tokens_of(list(bystander))) == len(tokens_of(list(beside))) == 3


def test_prompt_scores_are_the_same_in_one_chunk_and_in_many(engine, checkpoint):
    prompt = [(11 * i + i // 7) % VOCABULARY for i in range(150)]
    sampling = greedy(2, prompt_logprobs=3, logprobs=3)
    list(engine.generate(prompt, greedy(1)))  # now the prompt is cached, which scoring must not use
    answer = engine.generate(prompt, sampling)
    said = list(answer)
    scores = answer.prompt_logprobs
    assert answer.cached_tokens == 0
    assert [score.token for score in scores[1:]] == prompt[1:]
    # What was answered is scored alike when it is part of a prompt.
    whole = engine.generate([*prompt, *tokens_of(said)], sampling).prompt_logprobs
    assert len(whole) == 152
    for score, output in zip(whole[150:], said, strict=True):
        assert (score.token, [token for token, _ in score.top]) == (
            output.token,
            [token for token, _ in output.top_logprobs],
        )
        assert score.logprob == pytest.approx(output.logprob, abs=1e-4 if not CUDA else 0.05)
    for one, other in zip(scores[1:], whole[1:150], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4 if not CUDA else 0.05)


def test_a_deterministic_engine_answers_alike_in_any_company(checkpoint):
    source = random.Random(3)
    prompts = [[source.randrange(VOCABULARY) for _ in range(n)] for n in (40, 17)]
    sampling = Sampling(temperature=0.8, seed=11, max_tokens=3, stop_tokens=(), logprobs=2)
    with closing(open_here(checkpoint, deterministic=True)) as engine:
        alone = [list(engine.generate(prompt, sampling)) for prompt in prompts]
        first = engine.generate(prompts[0], sampling)
        early = next(first)  # the other comes while it answers
        others = [engine.generate(prompt, sampling) for prompt in prompts[1:]]
        together = [[early, *first], *map(list, others)]
    assert together == alone  # the scores too, to the last bit
