"""The engine torch: the contract, and that company, chunks, caches and cancels change no answer."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gptoss_core.engine import TorchEngine
from gptoss_core.memory import cache_bytes
from gptoss_core.model import Transformer
from gptoss_core.options import TorchOptions
from gptoss_harmony.conversation import user_message
from gptoss_harmony.encoding import Role, load_encoding
from gptoss_harmony.engine import Prompt, Sampling, TokenOutput
from gptoss_harmony.errors import ContextOverflow, EngineError, OutOfMemory, Unsupported
from gptoss_harmony.parse import StreamParser
from gptoss_harmony.random_checkpoint import tiny_config
from gptoss_harmony.testing import AllowOnly, EngineContract, require, tokens_of
from gptoss_harmony.tokens import CALL, END, MESSAGE, RETURN, START

CONTEXT = 4000


@pytest.fixture(scope="module")
def harmony_model() -> Transformer:
    """Random weights with harmony's whole vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer(tiny_config(), dtype=torch.float32).requires_grad_(False)


@pytest.fixture(scope="module")
def engine(harmony_model: Transformer) -> Iterator[TorchEngine]:
    with closing(TorchEngine(harmony_model, TorchOptions(context=CONTEXT))) as engine:
        yield engine


class TestContract(EngineContract):
    """On random weights with the whole vocabulary."""


@pytest.fixture(scope="module")
def tiny_model(tiny_folder: Path) -> Transformer:
    """The shared tiny model, dense for speed."""
    return Transformer.from_checkpoint(tiny_folder, dtype=torch.float32, experts="dense")


@pytest.fixture
def serve(tiny_model: Transformer) -> Iterator[Any]:
    """Open engines on the small model and close them after the test."""
    opened = []

    def open_engine(**options: Any) -> TorchEngine:
        keywords = {name: options.pop(name) for name in ("thermostats", "share") if name in options}
        options = {"context": CONTEXT, **options}
        opened.append(TorchEngine(tiny_model, TorchOptions(**options), **keywords))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def greedy(max_tokens: int, **changes: Any) -> Sampling:
    return Sampling(**{"temperature": 0.0, "max_tokens": max_tokens, "stop_tokens": (), **changes})


def drawn(max_tokens: int, seed: int, **changes: Any) -> Sampling:
    """Draw among three tokens: over a whole vocabulary rounding decides a draw now and then."""
    return greedy(max_tokens, temperature=1.0, top_k=3, seed=seed, **changes)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(512), k=length)


def answer(engine: TorchEngine, prompt: Sequence[int], sampling: Sampling) -> list[int]:
    return tokens_of(list(engine.generate(prompt, sampling)))


def plain_answer(model: Transformer, prompt: Sequence[int], count: int) -> list[int]:
    """Greedy decoding without a cache: the whole text again for every token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor(tokens), last_only=True)[-1].argmax()))
    return tokens[len(prompt) :]


# The model's answer, whatever happens around it.


def test_answers_are_those_of_the_model_without_a_cache(serve, tiny_model) -> None:
    engine = serve(prefill_chunk=50)
    for length in (1, 127, 128, 129, 300):
        prompt = prompt_of(length, seed=length)
        wanted = plain_answer(tiny_model, prompt, 6)
        assert answer(engine, prompt, greedy(6)) == wanted


@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_a_batch_answers_as_one_alone(serve, heat: float) -> None:
    requests = [
        (prompt_of(length, seed=length), drawn(20, length, logprobs=3) if heat else greedy(20))
        for length in (3, 40, 131, 300, 7, 500)
    ]
    single = serve(max_batch=1, prefix_reuse=False)
    alone = [list(single.generate(*request)) for request in requests]
    batched = serve(max_batch=4, prefill_chunk=64, prefix_reuse=False)
    running = [batched.generate(*request) for request in requests]
    for outputs, reference in zip(map(list, running), alone, strict=True):
        assert tokens_of(outputs) == tokens_of(reference)
        for output, other in zip(outputs, reference, strict=True):
            assert [t for t, _ in output.top_logprobs] == [t for t, _ in other.top_logprobs]
            if heat:
                assert output.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_deterministic_gives_the_same_bits_in_company(serve) -> None:
    """Log probabilities, not only tokens, are equal to the last bit."""
    sampling = greedy(20, temperature=1.0, seed=3, logprobs=5)
    prompt = prompt_of(200)
    alone = list(serve(deterministic=True, prefill_chunk=64).generate(prompt, sampling))
    engine = serve(deterministic=True, prefill_chunk=64, max_batch=8)
    others = [engine.generate(prompt_of(90 * i, seed=i), greedy(9)) for i in range(1, 4)]
    again = engine.generate(prompt, sampling)
    repeated = engine.generate(prompt, sampling)
    assert list(again) == alone
    assert list(repeated) == alone
    assert all(list(other) for other in others)


def test_stepwise_logprobs_equal_those_of_one_pass(serve) -> None:
    engine = serve()
    prompt = prompt_of(150)
    outputs = list(engine.generate(prompt, greedy(12, temperature=1.0, seed=1, logprobs=4)))
    whole = engine.generate([*prompt, *tokens_of(outputs)], greedy(0, prompt_logprobs=4))
    scores = whole.prompt_logprobs
    assert scores is not None
    for output, score in zip(outputs, scores[len(prompt) :], strict=True):
        assert score is not None
        assert score.token == output.token
        assert score.logprob == pytest.approx(output.logprob, abs=1e-4)
        assert [t for t, _ in score.top] == [t for t, _ in output.top_logprobs]


def test_prompt_logprobs_are_those_of_the_model(serve, tiny_model) -> None:
    prompt = prompt_of(200)
    scored = serve().generate(prompt, greedy(2, prompt_logprobs=2, logprobs=2))
    reference = torch.log_softmax(tiny_model(torch.tensor(prompt)), -1)
    scores = scored.prompt_logprobs
    assert scores is not None
    assert scores[0] is None
    for position, score in enumerate(scores[1:], 1):
        assert score is not None
        row = reference[position - 1]
        assert score.logprob == pytest.approx(row[prompt[position]].item(), abs=1e-4)
        assert score.top[0][1] == pytest.approx(row.max().item(), abs=1e-4)
    assert len(tokens_of(list(scored))) == 2


# Reuse.


def chat(rng: random.Random, turns: int) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts of a chat that drops analysis, and what the assistant really said, in made-up ids."""
    start, message, channel, end, back, user, assistant, analysis, final = range(9)

    def words(count: int) -> list[int]:
        return [rng.randrange(10, 512) for _ in range(count)]

    history = [start, 9, message, *words(150), end]
    for _ in range(turns):
        history += [start, user, message, *words(40), end]
        prompt = [*history, start, assistant]
        text = words(10)
        thought = [channel, analysis, message, *words(130), end, start, assistant]
        yield prompt, [*thought, channel, final, message, *text, back]
        history += [start, assistant, channel, final, message, *text, end]


class Script(AllowOnly):
    """A constraint that allows exactly one given text."""

    def __init__(self, text: Sequence[int]) -> None:
        super().__init__(set())
        self.text = list(text)

    def fill(self, row: NDArray[np.int32]) -> bool:
        self.tokens = {self.text[len(self.accepted)]}
        return super().fill(row)


def test_three_chat_turns_with_dropped_analysis(serve, tiny_model: Transformer) -> None:
    """Each turn goes back to the end of the last prompt, and answers as without a cache."""
    engine = serve(prefill_chunk=100)
    known = 0
    for prompt, said in chat(random.Random(3), 3):
        sampling = Sampling(temperature=1.0, logprobs=0, stop_tokens=(4,))
        generation = engine.generate(prompt, sampling, constraint=Script(said))
        outputs = list(generation)
        assert tokens_of(outputs) == said
        assert outputs[-1].finish_reason == "stop"
        assert generation.cached_tokens == known
        known = len(prompt)
        logits = tiny_model(torch.tensor([*prompt, *said]))[len(prompt) - 1 : -1]
        uncached = torch.log_softmax(logits, -1).gather(1, torch.tensor(said).unsqueeze(1))
        cached = torch.tensor([[output.logprob] for output in outputs])
        torch.testing.assert_close(cached, uncached, rtol=1e-5, atol=1e-4)


def test_prompts_part_where_messages_end(harmony_model: Transformer) -> None:
    """A new conversation starts from the end of the system message, whatever its length."""
    system = [START, 17_360, MESSAGE, *prompt_of(190), END]
    options = TorchOptions(context=CONTEXT)
    with closing(TorchEngine(harmony_model, options)) as engine:
        for place in range(3):
            question = [START, 1_428, MESSAGE, *prompt_of(20 + place, seed=place), END]
            generation = engine.generate([*system, *question, START, 173_781], greedy(2))
            # The questions begin alike, but a windowed layer can only go back to a mark.
            assert generation.cached_tokens == (len(system) if place else 0)
            list(generation)


def test_a_tool_call_is_continued_without_computing_anything_again(serve) -> None:
    engine = serve()
    prompt = prompt_of(300)
    said = answer(engine, prompt, greedy(60))
    following = engine.generate([*prompt, *said, *prompt_of(20, seed=9)], greedy(1))
    assert following.cached_tokens == len(prompt) + len(said) - 1  # the last was never fed back
    list(following)


def test_a_shared_system_prompt_serves_several_conversations(serve) -> None:
    """Forks leave the first conversation's cache as it was; windowed layers go back to a block."""
    engine = serve()
    system = prompt_of(600)
    questions = [prompt_of(50, seed=seed) for seed in range(1, 4)]
    plain = serve(prefix_reuse=False)
    for turn in range(2):
        for place, question in enumerate(questions):
            generation = engine.generate([*system, *question], greedy(8))
            reached = generation.cached_tokens
            assert reached == (0 if turn == place == 0 else 512 if turn == 0 else 649)
            expected = answer(plain, [*system, *question], greedy(8))
            assert tokens_of(list(generation)) == expected


def test_a_running_request_lends_its_prefix(serve) -> None:
    engine = serve()
    prompt = prompt_of(600)
    long = engine.generate(prompt, greedy(CONTEXT - 600))
    next(long)
    other = engine.generate([*prompt[:580], 1, 2], greedy(4))
    assert other.cached_tokens == 512
    wanted = answer(serve(prefix_reuse=False), [*prompt[:580], 1, 2], greedy(4))
    assert tokens_of(list(other)) == wanted
    long.cancel()


def test_salts_and_scoring_share_nothing(serve) -> None:
    engine = serve()
    prompt = prompt_of(300)
    answer(engine, prompt, greedy(4, cache_salt="a"))
    assert engine.generate(prompt, greedy(1, cache_salt="b")).cached_tokens == 0
    assert engine.generate(prompt, greedy(1, prompt_logprobs=0)).cached_tokens == 0
    assert engine.generate(prompt, greedy(1, cache_salt="a")).cached_tokens > 0


def test_without_reuse_nothing_is_kept(serve) -> None:
    engine = serve(prefix_reuse=False)
    answer(engine, prompt_of(300), greedy(4))
    assert engine.stats().kv_bytes_used == 0
    assert engine.generate(prompt_of(300), greedy(1)).cached_tokens == 0


# Limits and failures.


def test_the_context_ends_an_answer(serve) -> None:
    engine = serve(context=60)
    outputs = list(engine.generate(prompt_of(50), greedy(100)))
    assert len(tokens_of(outputs)) == 10
    assert outputs[-1].finish_reason == "length"
    assert len(answer(engine, prompt_of(50), Sampling(stop_tokens=()))) == 10
    assert list(engine.generate(prompt_of(60), greedy(0)))[-1].finish_reason == "length"
    for length, sampling in ((60, greedy(1)), (61, greedy(0)), (60, Sampling())):
        with pytest.raises(ContextOverflow, match=f"the prompt has {length} tokens"):
            next(engine.generate(prompt_of(length), sampling))


def test_harmony_stops_are_the_default(harmony_model: Transformer) -> None:
    with closing(TorchEngine(harmony_model, TorchOptions(context=CONTEXT))) as engine:
        for stop in (RETURN, CALL):
            outputs = list(engine.generate([1, 2], Sampling(), constraint=Script([7, END, stop])))
            assert tokens_of(outputs) == [7, END, stop]
            assert outputs[-1].finish_reason == "stop"


@pytest.mark.slow
def test_a_json_schema_is_obeyed_to_the_last_token(engine: TorchEngine) -> None:
    """Random weights, whose unconstrained text is noise, answer with valid JSON in time."""
    require(find_spec("llguidance") is not None, "llguidance (gptoss-harmony[grammar]) is missing")
    from gptoss_harmony.grammar import AnswerFormat, Grammar, JsonSchema

    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    encoding = load_encoding()
    grammar = Grammar(encoding, AnswerFormat(channels={"final": JsonSchema(schema)}))
    prompt = encoding.render_prompt([user_message("Who is it?")])
    sampling = Sampling(max_tokens=60, seed=5)
    generation = engine.generate(prompt, sampling, constraint=grammar.constraint(budget=60))
    outputs = list(generation)
    assert outputs[-1].finish_reason == "stop"
    parser = StreamParser(encoding, role=Role.ASSISTANT)
    for token in tokens_of(outputs):
        parser.process(token)
    parser.finish()
    (text,) = [m.content[0].text for m in parser.messages if m.channel == "final"]
    answer = json.loads(text)
    assert set(answer) == {"name", "age"}
    assert isinstance(answer["name"], str)
    assert isinstance(answer["age"], int)


class OneWord(AllowOnly):
    """Complete after its first token."""

    @property
    def done(self) -> bool:  # type: ignore[override]
        return len(self.accepted) > 0


def test_a_complete_constraint_ends_the_answer(serve) -> None:
    outputs = list(serve().generate([1], greedy(9), constraint=OneWord({5})))
    assert [(o.token, o.finish_reason) for o in outputs] == [(5, "stop")]


class Jammed(AllowOnly):
    """Refuses what it allowed."""

    def accept(self, token: int) -> None:
        raise RuntimeError("jammed")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [(AllowOnly(set()), "allows no token"), (Jammed({3}), "jammed")],
)
def test_a_failing_constraint_ends_its_request_only(serve, constraint, message) -> None:
    engine = serve()
    neighbour = engine.generate(prompt_of(20), greedy(200))
    next(neighbour)
    with pytest.raises(EngineError, match=message):
        next(engine.generate(prompt_of(20), greedy(5), constraint=constraint))
    assert len(tokens_of(list(neighbour))) == 199


def test_known_extras_switch_a_thermostat_on(serve) -> None:
    def boost(logits, batch):
        for index, row in enumerate(batch.rows):
            if "boost" in row.sampling.extra:
                logits = logits.clone()
                logits[index, row.sampling.extra["boost"]] += 1000
        return logits

    engine = serve(thermostats={"boost": boost})
    assert answer(engine, [1], greedy(2, extra={"boost": 42})) == [42, 42]
    assert answer(engine, [1], greedy(2)) != [42, 42]
    with pytest.raises(Unsupported, match="no option 'bost'; it has: boost"):
        next(engine.generate([1], greedy(1, extra={"bost": 1})))


def test_a_request_that_cannot_fit_says_so_and_others_go_on(serve) -> None:
    engine = serve(kv_memory=1 / 1024)  # 1 MiB: about 200 tokens
    with pytest.raises(OutOfMemory, match="raise --kv-memory"):
        next(engine.generate(prompt_of(3000), greedy(1)))
    growing = engine.generate(prompt_of(100), greedy(3000))
    assert next(growing).token is not None
    with pytest.raises(OutOfMemory, match="raise --kv-memory"):
        list(growing)
    assert len(answer(engine, prompt_of(100), greedy(5))) == 5


def test_a_request_alone_has_the_whole_budget(serve, tiny_model: Transformer) -> None:
    """Snapshots and room for growth go before the request does."""
    prompt = prompt_of(600)
    least = cache_bytes(tiny_model.config, 620, torch.float32)
    engine = serve(kv_memory=least / 2**30, prefill_chunk=100)
    wanted = answer(serve(prefix_reuse=False), prompt, greedy(20))
    assert answer(engine, prompt, greedy(20)) == wanted
    with pytest.raises(OutOfMemory, match="raise --kv-memory"):
        list(engine.generate(prompt, greedy(100)))


def test_preempted_requests_answer_as_undisturbed_ones(serve) -> None:
    """Three requests that fit one by one but not together; the budget holds after each step."""
    budget = 3.5 / 1024
    requests = [(prompt_of(150, seed=i), drawn(60, seed=i)) for i in range(3)]
    wanted = [answer(serve(prefix_reuse=False), *request) for request in requests]
    engine = serve(kv_memory=budget)
    preempted = []
    original = engine._batcher.scheduler.preempt

    def preempt():
        preempted.append(original())
        return preempted[-1]

    engine._batcher.scheduler.preempt = preempt
    running = [engine.generate(*request) for request in requests]
    assert [tokens_of(list(generation)) for generation in running] == wanted
    assert any(preempted), "nothing was preempted: the test is too easy"
    assert len(preempted) <= 6, "requests are let in only to be sent back"
    assert engine.stats().kv_bytes_used <= budget * 2**30


class FailingModel:
    """Fails passes that are too wide, as a full device does."""

    def __init__(self, model: Transformer, error: Exception, widest: int) -> None:
        self.model, self.error, self.widest = model, error, widest
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward_ragged(self, tokens: Any, lengths: Any, caches: Any, **keywords: Any) -> Any:
        logits = self.model.forward_ragged(tokens, lengths, caches, **keywords)
        if len(tokens) > self.widest:
            self.failures += 1
            raise self.error
        return logits


def test_out_of_memory_in_a_pass_narrows_the_batch(tiny_model) -> None:
    model = FailingModel(tiny_model, torch.OutOfMemoryError("no"), widest=12)
    options = TorchOptions(context=CONTEXT, prefill_chunk=40)
    with closing(TorchEngine(model, options)) as engine:
        answers = [engine.generate(prompt_of(10, seed=i), greedy(5)) for i in range(4)]
        for i, generation in enumerate(answers):
            wanted = plain_answer(tiny_model, prompt_of(10, seed=i), 5)
            assert tokens_of(list(generation)) == wanted
        assert model.failures
        with pytest.raises(OutOfMemory, match="ran out of memory"):
            next(engine.generate(prompt_of(30), greedy(1)))
        assert answer(engine, prompt_of(5), greedy(2))


def test_a_failing_pass_fails_its_requests_with_the_cause(tiny_model) -> None:
    model = FailingModel(tiny_model, ValueError("odd"), widest=20)
    with closing(TorchEngine(model, TorchOptions(context=CONTEXT))) as engine:
        with pytest.raises(EngineError, match="odd") as caught:
            next(engine.generate(prompt_of(30), greedy(1)))
        assert isinstance(caught.value.__cause__, ValueError)
        assert answer(engine, prompt_of(5), greedy(2))


def test_a_worker_that_dies_ends_everything_with_an_error(serve) -> None:
    engine = serve()

    def broken() -> None:
        raise KeyError("lost")

    engine._batcher._make_room = broken
    with pytest.raises(EngineError, match="lost"):
        next(engine.generate([1], greedy(1)))
    with pytest.raises(EngineError, match="stopped working"):
        next(engine.generate([1], greedy(1)))
    engine.close()


# Coming and going.


def test_close_drains_and_refuses(serve) -> None:
    engine = serve(max_batch=2)
    running = [engine.generate(prompt_of(50, seed=i), greedy(30)) for i in range(5)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.close(), range(4)))
    engine.close()
    assert [len(tokens_of(list(generation))) for generation in running] == [30] * 5
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate([1], greedy(1)))


def test_a_closed_engine_holds_no_weights(tiny_folder: Path) -> None:
    options = TorchOptions(device="cpu", dtype="float32")
    engine = TorchEngine.open(str(tiny_folder), options)
    answer(engine, prompt_of(20), greedy(3))
    weights = weakref.ref(engine._batcher._runner.model)
    engine.close()
    gc.collect()
    assert weights() is None
    assert engine.stats().generated_tokens == 3
    assert engine.stats().kv_bytes_used == 0


def test_a_program_may_end_without_closing(tiny_folder: Path) -> None:
    """The worker does not keep the process alive, nor does it crash it."""
    program = (
        "from gptoss_core import TorchEngine, TorchOptions\n"
        "from gptoss_harmony.engine import Sampling\n"
        f"engine = TorchEngine.open({str(tiny_folder)!r}, TorchOptions(device='cpu'))\n"
        "answer = engine.generate([1, 2], Sampling(stop_tokens=()))\n"
        "print(next(answer).token is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def wait_until(holds: Any) -> None:
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit, "waited 30 s"
        time.sleep(0.002)


def test_an_abandoned_answer_is_cancelled(serve) -> None:
    engine = serve()
    next(engine.generate([1, 2], greedy(CONTEXT)))
    gc.collect()
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().generated_tokens < CONTEXT - 10


def test_cancelling_while_waiting_and_while_running(serve) -> None:
    engine = serve(max_batch=1)
    running = engine.generate([1, 2], greedy(CONTEXT))
    waiting = engine.generate([3], greedy(5))
    next(running)
    waiting.cancel()
    assert list(waiting) == [TokenOutput(None, finish_reason="cancelled")]
    running.cancel()
    assert list(running)[-1].finish_reason == "cancelled"
    assert engine.stats().running == engine.stats().waiting == 0


def test_fifty_requests_from_eight_threads_leak_nothing(serve) -> None:
    engine = serve(max_batch=5, prefill_chunk=48, kv_memory=8 / 1024)
    reference = serve(max_batch=1, prefix_reuse=False)
    shared = prompt_of(200)

    def one(seed: int) -> tuple[list[int], Sampling, list[TokenOutput]]:
        rng = random.Random(seed)
        prompt = shared[: rng.randrange(1, 200)] + prompt_of(rng.randrange(0, 60), seed)
        sampling = greedy(
            rng.randrange(0, 16),
            temperature=rng.choice([0.0, 1.0]),
            top_k=3,
            seed=seed,
            top_p=rng.choice([1.0, 0.9]),
            presence_penalty=rng.choice([0.0, 0.5]),
            logprobs=rng.choice([None, 2]),
            prompt_logprobs=rng.choice([None, None, 1]),
        )
        generation = engine.generate(Prompt(tuple(prompt)), sampling)
        if rng.random() < 0.3:
            timer = threading.Timer(rng.random() * 0.1, generation.cancel)
            timer.start()
        return prompt, sampling, list(generation)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(50)))
    complete = [r for r in results if r[2][-1].finish_reason != "cancelled"]
    assert len(complete) >= 20
    for prompt, sampling, outputs in complete[:8]:
        assert tokens_of(outputs) == answer(reference, prompt, sampling)
    stats, store = engine.stats(), engine._batcher.store
    assert stats.running == stats.waiting == 0
    assert stats.kv_bytes_used == store.nbytes <= stats.kv_bytes_capacity
    assert store.evict(store.nbytes) == stats.kv_bytes_used
    assert len(store) == store.nbytes == 0
