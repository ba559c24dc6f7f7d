"""vLLM's `/v1/completions` in token ids: what is sent, what comes back.

```
{"prompt": [200006, ...], "return_token_ids": true, "stream": true, ...}
data: {"choices": [{"token_ids": [200005], "finish_reason": null, "logprobs": {...}}]}
data: {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 16}}}
```

Log probabilities come under the name `token_id:ID`, of the unmodified logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gptoss_harmony import Sampling, TokenLogprob, TokenOutput
from gptoss_harmony.errors import EngineError, Unsupported
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS

Json = dict[str, Any]

# Research options that are vLLM's own: `Sampling(extra={"priority": -1})`.
EXTRA: Final = frozenset({"logit_bias", "priority"})
_ID: Final = "token_id:"
_SIGN: Final = 1 << 63


def stop_tokens(sampling: Sampling) -> frozenset[int]:
    """The ids that end an answer."""
    given = sampling.stop_tokens
    return ASSISTANT_ACTION_ENDS if given is None else frozenset(given)


def completion(
    model: str, prompt: Sequence[int], sampling: Sampling, *, max_tokens: int, **more: Any
) -> Json:
    """Return the body of a streamed request; `more` overrides its fields.

    Raises:
        Unsupported: a research option that vLLM does not have.
    """
    body: Json = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "skip_special_tokens": False,
        "ignore_eos": True,
        "stop_token_ids": sorted(stop_tokens(sampling)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": signed(sampling.seed),
        "cache_salt": sampling.cache_salt or None,
        **_extra(sampling.extra),
    }
    if sampling.logprobs is not None:
        body |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    return {**body, **more}


def scoring(model: str, prompt: Sequence[int], sampling: Sampling) -> Json:
    """Return the body of a request that reads the prompt's log probabilities.

    vLLM gives them only unstreamed, and generates at least one token.
    """
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 0.0,
        "return_token_ids": True,
        "prompt_logprobs": sampling.prompt_logprobs,
        "cache_salt": sampling.cache_salt or None,
    }


def signed(seed: int | None) -> int | None:
    """A seed of 64 bits as vLLM takes it, between -2^63 and 2^63 - 1."""
    return None if seed is None else (seed + _SIGN) % (2 * _SIGN) - _SIGN


def _extra(extra: Mapping[str, Any]) -> Json:
    for name in extra:
        if name not in EXTRA:
            raise Unsupported(
                f"the vllm engine does not support extra {name!r}; it has: "
                + ", ".join(sorted(EXTRA))
            )
    found = dict(extra)
    if bias := found.get("logit_bias"):
        found["logit_bias"] = {str(token): float(value) for token, value in bias.items()}
    return found


def outputs(choice: Json) -> Iterator[TokenOutput]:
    """Yield the tokens of one piece of a stream; the last may have the finish reason.

    Raises:
        EngineError: there are no token ids in it.
    """
    tokens = choice.get("token_ids")
    if tokens is None:
        raise EngineError("the server gives no token ids; vLLM 0.11 or newer is needed")
    reason = choice.get("finish_reason")
    ending: Any = reason and ("length" if reason == "length" else "stop")
    scores = choice.get("logprobs")
    for position, token in enumerate(tokens):
        last = position == len(tokens) - 1
        logprob, top = _scores(scores, position) if scores else (None, ())
        yield TokenOutput(token, logprob, top, finish_reason=ending if last else None)
    if ending and not tokens:
        yield TokenOutput(None, finish_reason=ending)


def _scores(scores: Json, position: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    top = scores["top_logprobs"][position] or {}
    found = [(int(name.removeprefix(_ID)), score) for name, score in top.items()]
    return scores["token_logprobs"][position], _best_first(found)


def trimmed(output: TokenOutput, count: int) -> TokenOutput:
    """Keep `count` alternatives: vLLM adds the chosen token to those that were asked for."""
    top = output.top_logprobs[:count]
    return TokenOutput(output.token, output.logprob, top, finish_reason=output.finish_reason)


def prompt_scores(
    answer: Json, prompt: Sequence[int], count: int
) -> tuple[TokenLogprob | None, ...]:
    """Read the scores of a prompt: one per token, None for the first.

    Raises:
        EngineError: they are not there.
    """
    scores = answer["choices"][0].get("prompt_logprobs")
    if scores is None or len(scores) != len(prompt):
        raise EngineError("the vLLM server gave no log probabilities of the prompt")
    return tuple(
        None if entry is None else _prompt_score(entry, token, count)
        for token, entry in zip(prompt, scores, strict=True)
    )


def _prompt_score(entry: Json, token: int, count: int) -> TokenLogprob:
    found = {int(name): score["logprob"] for name, score in entry.items()}
    return TokenLogprob(token, found[token], _best_first(found.items())[:count])


def _best_first(scores: Any) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(scores, key=lambda pair: -pair[1]))


def cached_tokens(usage: Json) -> int:
    """The prompt tokens that were not computed again, where the server says it."""
    return (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
