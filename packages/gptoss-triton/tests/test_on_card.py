"""What only a card can show: the kernels' rounding inside the whole engine, at real sizes.

The shapes are those of gpt-oss-20b with few layers, the weights random, and every token is routed
to the same experts: random routers make near ties everywhere, and one flipped expert changes a
layer by more than all rounding together. Then answers may differ only where the two likeliest
tokens were closer than float16 can tell.
"""

import json
import random
import sys
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
import torch

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import write_checkpoint
from gptoss_harmony.config import gpt_oss_20b
from gptoss_harmony.conversation import system_message, user_message
from gptoss_harmony.encoding import Role, load_encoding
from gptoss_harmony.engine import Sampling
from gptoss_harmony.testing import tokens_of

CUDA = torch.cuda.is_available()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not CUDA, reason="needs an NVIDIA GPU"),
]

DEVICE = torch.device("cuda" if CUDA else "cpu")
CONFIG = replace(gpt_oss_20b(), num_hidden_layers=4)
WORST = 1e-2  # relative error that bf16 operands may give the logits


def steady_tensors():
    """Random tensors whose router always prefers the same experts, as the writer takes them."""
    from gptoss_triton.weights import RandomSource

    make = RandomSource(CONFIG, DEVICE, seed=3)
    for name in make.shapes:
        (tensor,) = make([name])
        if name.endswith("gate.weight"):
            tensor.zero_()
        if name.endswith("gate.bias"):
            tensor = torch.linspace(1.0, 0.0, tensor.numel()).to(torch.bfloat16)
        bits = tensor if tensor.dtype == torch.uint8 else tensor.view(torch.uint16)
        yield name, bits.cpu().numpy()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("card") / "steady", CONFIG, steady_tensors())


@pytest.fixture(scope="module")
def weights(checkpoint):
    from gptoss_triton.weights import load_weights

    dtype = torch.float16 if CUDA else torch.float32
    return load_weights(Checkpoint.open(checkpoint), DEVICE, dtype=dtype)


@pytest.fixture(scope="module")
def reference(checkpoint):
    """gptoss-core in float32 on the same weights."""
    from gptoss_core.model import Transformer

    return Transformer.from_checkpoint(checkpoint, device=DEVICE, dtype=torch.float32)


@contextmanager
def serving(weights, *, pages=None, **changes):
    """An engine on the weights; `pages` replaces the pools by small ones."""
    from gptoss_triton.build import build_machine
    from gptoss_triton.cache import PAGE_SIZE
    from gptoss_triton.engine import TritonEngine
    from gptoss_triton.options import TritonOptions
    from gptoss_triton.pages import PagePool
    from gptoss_triton.scheduler import Scheduler

    options = TritonOptions(**({"gpu_memory": 0.4, "max_batch": 64} | changes))
    machine = build_machine(weights, DEVICE, options)
    if pages is not None:
        full, windowed = pages
        machine.scheduler = Scheduler(
            PagePool(full),
            PagePool(windowed),
            page=PAGE_SIZE,
            window=CONFIG.sliding_window,
            slots=machine.memory.max_batch,
            budget=machine.memory.step_tokens,
            reuse=False,
        )
    with closing(TritonEngine(machine)) as engine:
        yield engine, machine


def say(line):
    """Numbers for the log; `pytest -s` shows them."""
    sys.stderr.write(f"{line}\n")


def greedy(count, **changes):
    return Sampling(temperature=0.0, max_tokens=count, stop_tokens=(), logprobs=2, **changes)


def prompt_of(length, seed):
    source = random.Random(seed)
    return [source.randrange(CONFIG.vocab_size) for _ in range(length)]


def tie(weights):
    """The largest gap of two logits that rounding may turn around: four standard deviations."""
    gain = weights.norm.float().square().mean().sqrt()
    spread = weights.unembedding.float().std() * CONFIG.hidden_size**0.5 * gain
    return float(spread) * WORST * 4 * 2**0.5


def agreement(one, other, bound):
    """How many tokens two answers share; they may part only at a tie."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        if mine.token != theirs.token:
            best, second = (logprob for _, logprob in mine.top_logprobs)
            assert best - second <= bound, f"parted at {place} with a gap of {best - second:.3f}"
            return place
    return len(one)


def requests_of(seed, count=37):
    source = random.Random(seed)
    return [
        (prompt_of(source.randrange(3, 1500), seed=number), greedy(source.randrange(5, 80)))
        for number in range(count)
    ]


def alone(weights, requests):
    with serving(weights, prefix_reuse=False) as (engine, _):
        return [list(engine.generate(*request)) for request in requests]


@pytest.fixture(scope="module")
def undisturbed(weights):
    """Thirty-seven requests, and what each answers alone."""
    requests = requests_of(1)
    return requests, alone(weights, requests)


def assert_agree(answers, expected, bound):
    shared = [
        agreement(mine, theirs, bound) for mine, theirs in zip(expected, answers, strict=True)
    ]
    whole = sum(count == len(answer) for count, answer in zip(shared, expected, strict=True))
    say(f"{whole} of {len(shared)} answers equal to the end, the others part at a tie")


def logits_of(engine, machine, prompt, count):
    """Answer greedily: the tokens, and the logits that each was drawn from."""
    seen, inner = [], machine.runner._return

    def record(rows, logits, scores):
        if rows:  # the prompt is read: this step draws
            seen.append(logits[0].float().clone())
        return inner(rows, logits, scores)

    machine.runner._return = record
    said = tokens_of(list(engine.generate(prompt, greedy(count))))
    return said, seen[: len(said)]  # a step more runs before the end is known


@pytest.mark.parametrize("tokens", [130, 1000, 5000, 40_000])
def test_scores_are_those_of_the_reference(weights, reference, tokens):
    """Of the prompt's last token and of four answers after it, read whole and read in pieces."""
    from gptoss_core.cache import DenseCache

    prompt = prompt_of(tokens, seed=tokens)
    for way, changes in (("whole", {}), ("in pieces", {"step_tokens": 1777})):
        with serving(weights, context=tokens + 64, **changes) as (engine, machine):
            said, seen = logits_of(engine, machine, prompt, 5)
        with torch.inference_mode():
            kept = DenseCache(CONFIG)
            expected = [
                reference.forward(torch.tensor(new, device=DEVICE), cache=kept, last_only=True)[-1]
                for new in (prompt, *([token] for token in said[:-1]))
            ]
        errors = [
            float((ours - theirs).norm() / theirs.norm())
            for ours, theirs in zip(seen, expected, strict=True)
        ]
        numbers = " ".join(f"{error:.1e}" for error in errors)
        say(f"{tokens} tokens {way}: relative error {numbers}")
        assert max(errors) <= WORST


def test_mixed_requests_answer_as_alone(weights, undisturbed):
    requests, expected = undisturbed
    with serving(weights) as (engine, _):
        running = [engine.generate(*request) for request in requests]
        assert_agree([list(generation) for generation in running], expected, tie(weights))


def test_chunked_requests_answer_as_whole_ones(weights, undisturbed):
    requests, expected = undisturbed
    with serving(weights, step_tokens=200) as (engine, _):
        running = [engine.generate(*request) for request in requests]
        assert_agree([list(generation) for generation in running], expected, tie(weights))


def test_preempted_requests_answer_as_undisturbed_ones(weights):
    requests = [(prompt_of(100 + number, seed=number), greedy(300)) for number in range(12)]
    expected = alone(weights, requests)
    # Two pages each at first and seven at the end: they start together and then crowd each other.
    with serving(weights, pages=(30, 60), step_tokens=512) as (engine, machine):
        lost = []
        preempt = machine.scheduler.preempt
        machine.scheduler.preempt = lambda sequence: lost.append(sequence) or preempt(sequence)
        running = [engine.generate(*request) for request in requests]
        answers = [list(generation) for generation in running]
        assert lost, "the pool was meant to be too small"
        assert engine.stats().kv_bytes_used == 0
    say(f"{len(lost)} times a request lost its pages")
    assert_agree(answers, expected, tie(weights))


def test_a_deterministic_engine_answers_alike_in_any_company(weights):
    requests = [
        (prompt, replace(sampling, temperature=0.9, seed=7)) for prompt, sampling in requests_of(2)
    ]
    with serving(weights, deterministic=True) as (engine, _):
        lonely = [list(engine.generate(*request)) for request in requests[:8]]
        running = [engine.generate(*request) for request in requests]
        together = [list(generation) for generation in running]
    for mine, theirs in zip(lonely, together[:8], strict=True):
        assert tokens_of(mine) == tokens_of(theirs)
        for place, (alone, beside) in enumerate(zip(mine, theirs, strict=True)):
            assert alone == beside, f"scores differ at token {place}"  # to the last bit


def test_a_prompt_is_scored_as_its_answer_was(weights):
    prompt = prompt_of(700, seed=5)
    with serving(weights) as (engine, _):
        said = list(engine.generate(prompt, greedy(40)))
        whole = engine.generate([*prompt, *tokens_of(said)], greedy(0, prompt_logprobs=2))
        scores = whole.prompt_logprobs[700:]
    gaps = [abs(score.logprob - output.logprob) for score, output in zip(scores, said, strict=True)]
    assert max(gaps) <= tie(weights)


def test_the_longest_context_is_read_and_answered(weights):
    length = 131_000
    with serving(weights, context=131_072, gpu_memory=0.9) as (engine, _):
        said = list(engine.generate(prompt_of(length, seed=9), greedy(16)))
        again = engine.generate(
            [*prompt_of(length, seed=9), *tokens_of(said)], greedy(1, prompt_logprobs=2)
        )
        scores = again.prompt_logprobs[length:]
    for score, output in zip(scores, said, strict=True):
        assert abs(score.logprob - output.logprob) <= tie(weights)


QUESTIONS = (
    "Hello!",
    "Extract name and city as JSON: Maria Lopez lives in Berlin.",
    "What is 1234 * 567?",
)


@pytest.fixture(scope="module")
def nano():
    from gptoss_triton.engine import TritonEngine
    from gptoss_triton.options import TritonOptions

    with closing(TritonEngine.open("nano", TritonOptions(gpu_memory=0.3))) as engine:
        yield engine


def test_nano_answers_as_on_the_torch_engine(nano):
    from gptoss_core.engine import TorchEngine
    from gptoss_core.options import TorchOptions

    sampling = Sampling(temperature=0.0, max_tokens=200, logprobs=2)
    options = TorchOptions(device="cuda", dtype="float32")
    with closing(TorchEngine.open("nano", options)) as oracle:
        for question in QUESTIONS:
            prompt = load_encoding().render_prompt([system_message(), user_message(question)])
            ours = list(nano.generate(prompt, sampling))
            theirs = list(oracle.generate(prompt, sampling))
            shared = min(len(ours), len(theirs))
            # Trained weights: the likeliest token stands far out, so a tie is a rare thing.
            assert agreement(theirs[:shared], ours[:shared], 0.25) > 0
            equal = tokens_of(ours) == tokens_of(theirs)
            say(f"{question!r}: {len(ours)} and {len(theirs)} tokens, equal: {equal}")


def test_three_turns_with_dropped_analysis_answer_as_uncached(nano):
    encoding = load_encoding()
    messages = [system_message()]
    sampling = Sampling(temperature=0.0, max_tokens=200, logprobs=2)
    for question in QUESTIONS:
        messages.append(user_message(question))
        prompt = encoding.render_prompt(messages)
        answer = nano.generate(prompt, sampling)
        outputs = list(answer)
        fresh = list(nano.generate(prompt, replace(sampling, cache_salt=question)))
        shared = min(len(outputs), len(fresh))
        agreement(fresh[:shared], outputs[:shared], 0.25)
        messages += encoding.parse_messages_from_completion_tokens(
            tokens_of(outputs), Role.ASSISTANT
        )
        say(f"{len(prompt.tokens)} tokens, {answer.cached_tokens} of them cached")


def test_a_checkpoint_is_measured_and_its_memory_comes_back(checkpoint, capsys):
    import argparse

    from gptoss_triton.bench import command

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    sizes = ["--batch", "1", "--context", "100", "--prompt", "200", "--requests", "2"]
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    assert command.run(parser.parse_args(["--checkpoint", str(checkpoint), "--json", *sizes])) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["open_s"] > 0
    assert report["plain_read_s"] > 0
    assert [row["what"] for row in report["rows"]] == ["decode", "prefill", "mix"]
    torch.cuda.empty_cache()
    assert before - torch.cuda.mem_get_info()[0] < 1 << 30
