"""Which requests the engine cannot serve, each with one sentence that says what to change."""

from __future__ import annotations

from gptoss_harmony.engine import EngineSpec, Prompt, Sampling
from gptoss_harmony.errors import ContextOverflow, EngineError, Unsupported


def refusal_of(prompt: Prompt, sampling: Sampling, spec: EngineSpec) -> EngineError | None:
    """Why a request cannot be served, or None."""
    length, context, vocabulary = len(prompt.tokens), spec.context_length, spec.vocabulary_size
    if sampling.extra:
        return Unsupported(
            f"engine triton has no option {sorted(sampling.extra)[0]!r}; it has none"
        )
    if not length:
        return EngineError("the prompt is empty; give at least one token")
    if (worst := max(prompt.tokens)) >= vocabulary or (worst := min(prompt.tokens)) < 0:
        where = prompt.tokens.index(worst)
        return EngineError(
            f"token {worst} at position {where} of the prompt is not in 0..{vocabulary - 1}"
        )
    if length > context or (length == context and sampling.max_tokens != 0):
        return ContextOverflow(
            f"the prompt has {length} tokens and the context {context}, which leaves no room for "
            "an answer; shorten the prompt or raise --context"
        )
    return None
