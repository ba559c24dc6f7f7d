"""Constraints: answers that must be valid JSON, match a grammar, or call a function.

```
grammar = Grammar(load_encoding(), AnswerFormat(channels={"final": JsonSchema(schema)}))
engine.generate(prompt, sampling, constraint=grammar.constraint(budget=sampling.max_tokens))
```

llguidance (the extra `grammar`) keeps the state and computes the masks. The grammar covers the
whole answer, so thinking is free, the chosen text obeys, and a message can end only when it is
complete. With a `budget` the answer is complete within that many tokens: when they run low, the
shortest way to the end is all that is allowed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from openai_harmony import ToolDescription

from gptoss_harmony import tokens as special
from gptoss_harmony.answer_format import AnswerFormat, JsonSchema, Lark, Regex, Source
from gptoss_harmony.commitment import largest_commitment, wanted_words
from gptoss_harmony.errors import GrammarError, NotInstalled
from gptoss_harmony.shortest_path import PathFinder

if TYPE_CHECKING:
    from gptoss_harmony.encoding import Encoding

_FAR: Final = 2_048  # tokens before the end of a budget from which on it is watched

__all__ = [
    "AnswerFormat",
    "Grammar",
    "HarmonyConstraint",
    "JsonSchema",
    "Lark",
    "Regex",
    "Source",
    "call_format",
]


def call_format(
    functions: Iterable[ToolDescription], *, tool_choice: str = "auto", **options: Any
) -> AnswerFormat:
    """Return the format of answers that may or must call functions with valid arguments.

    Args:
        functions: those of the developer message.
        tool_choice: `auto`, `required`, `none` or the name of a function.
        options: other fields of `AnswerFormat`.
    """
    sources = {f.name: JsonSchema(f.parameters or {"type": "object"}) for f in functions}
    return AnswerFormat(functions=sources, tool_choice=tool_choice, **options)


class Grammar:
    """A compiled answer format; makes one constraint per request, from any thread.

    Args:
        encoding: from `load_encoding`.
        format: what the answer must look like.

    Raises:
        NotInstalled: llguidance is missing.
        GrammarError: a part that cannot be enforced; the message names it.
    """

    def __init__(self, encoding: Encoding, format: AnswerFormat) -> None:
        self.format = format
        self._tools = _tools(encoding)
        try:
            grammar = json.dumps({"grammars": format.grammars()})
        except GrammarError as error:
            raise _explain(format, self._tools, str(error)) from error
        self._matcher = self._tools.matcher(grammar)
        if self._matcher.is_error():
            raise _explain(format, self._tools, self._matcher.get_error())

    def constraint(self, *, budget: int | None = None) -> HarmonyConstraint:
        """Return a constraint at the start of an answer.

        Args:
            budget: most tokens that the answer may have; None does not care. What a generous one
                (over 2,048) allows is looked at only when it runs low: the search takes a while.

        Raises:
            GrammarError: no answer is that short.
        """
        made = HarmonyConstraint(
            self._matcher.deep_copy(),
            self._paths,
            self.source,
            format=self.format,
            budget=budget,
            reserve=lambda: self._reserve,
        )
        if budget is None or budget > _FAR:
            return made
        if (need := made.tokens_to_end(exact=True)) > budget:
            raise GrammarError(
                f"the shortest answer of this format has {need} tokens, but only {budget} are "
                "allowed; raise max_tokens"
            )
        return made

    @functools.cached_property
    def _reserve(self) -> int:
        sources = (*self.format.channels.values(), *self.format.functions.values())
        return largest_commitment(sources, self._paths, self._tools.matcher_of)

    @functools.cached_property
    def _paths(self) -> PathFinder:
        sources = (*self.format.channels.values(), *self.format.functions.values())
        words = wanted_words(sources, self._tools.paths, self._tools.matcher_of)
        return self._tools.paths.with_words(words)

    @property
    def source(self) -> Source | AnswerFormat:
        """What a remote engine translates: the one JSON Schema, Lark or regex, or the format."""
        only = list(self.format.channels.values())
        return only[0] if len(only) == 1 and not self.format.functions else self.format


class HarmonyConstraint:
    """What may come next in one answer; the `gptoss_harmony.engine.Constraint` of a `Grammar`.

    Attributes:
        source: the JSON Schema, Lark, regex or answer format it came from.
        format: the whole answer's format, of which `source` may be only the one part.
    """

    def __init__(
        self,
        matcher: Any,
        paths: PathFinder,
        source: Any,
        *,
        format: AnswerFormat,
        budget: int | None,
        reserve: Callable[[], int],
    ) -> None:
        self.source = source
        self.format = format
        self._matcher = matcher
        self._paths = paths
        self._budget = budget
        self._reserve = reserve
        self._accepted = 0
        self._plan: list[int] = []  # completes the answer from here, if still valid
        self._plan_is_shortest = False
        self._far = 0 if budget is None else max(0, budget - _FAR)
        self._check_at = self._far  # accepted tokens before which the budget cannot run low

    @property
    def done(self) -> bool:
        """Whether the answer is complete and nothing more may follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def fill(self, row: NDArray[np.int32]) -> bool:
        """Write the allowed tokens into `row`, int32[6284], bit 0 of word 0 being token 0.

        Returns True: some token is always forbidden.

        Raises:
            GrammarError: the row has another size, or llguidance gave up on the grammar.
        """
        words = -(-special.VOCABULARY_SIZE // 32)
        if row.shape != (words,) or row.dtype != np.int32:
            raise GrammarError(f"a mask row is int32[{words}], not {row.dtype}{list(row.shape)}")
        if not self.done and self._runs_low():
            row[:] = 0
            token = self._plan[0]
            row.view(np.uint32)[token // 32] = np.uint32(1 << token % 32)
            return True
        row[:] = np.frombuffer(self._matcher.compute_bitmask(), np.int32, words)
        self._raise_error()
        return True

    def accept(self, token: int) -> None:
        """Advance past a generated token.

        Raises:
            GrammarError: the token was not allowed.
        """
        if self._matcher.validate_tokens([token]) != 1 or not self._matcher.consume_token(token):
            self._raise_error()
            raise GrammarError(f"token {token} is not allowed after {self._accepted} tokens")
        self._accepted += 1
        if self._plan[:1] == [token]:
            self._plan = self._plan[1:]
        else:
            self._plan_is_shortest = False

    def rollback(self, count: int) -> None:
        """Take back the last `count` accepted tokens.

        Raises:
            GrammarError: there are not that many.
        """
        if not 0 <= count <= self._accepted or (count and not self._matcher.rollback(count)):
            raise GrammarError(f"cannot take back {count} of {self._accepted} tokens")
        self._accepted -= count
        self._plan = []
        self._check_at = self._far

    def tokens_to_end(self, *, exact: bool = False) -> int:
        """Return how many tokens complete the answer from here.

        Args:
            exact: search for the shortest completion, not just a short one.

        Raises:
            GrammarError: no completion was found.
        """
        if self.done:
            return 0
        size = len(self._plan)
        if not size or self._matcher.validate_tokens(self._plan) != size:
            plan = self._paths.short(self._matcher)
            if plan is None:
                raise GrammarError("found no way to complete the answer; simplify the grammar")
            self._plan, self._plan_is_shortest = plan, False
        if exact and not self._plan_is_shortest:
            self._plan = self._paths.shortest(self._matcher, self._plan)
            self._plan_is_shortest = True
        return len(self._plan)

    def _runs_low(self) -> bool:
        """Whether only the shortest completion still fits the budget."""
        if self._budget is None or self._accepted < self._check_at:
            return False
        reserve = self._reserve()
        left = self._budget - self._accepted - reserve
        slack = left - self.tokens_to_end()
        if slack <= 0:
            slack = left - self.tokens_to_end(exact=True)
        if slack <= 0:
            return True
        # One token brings the end closer by one and moves it away by at most the reserve.
        self._check_at = self._accepted + max(1, slack // (reserve + 1))
        return False

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar failed: {_first_line(self._matcher.get_error())}")


class _Tools:
    """llguidance's tokenizer and the path finder of one encoding."""

    def __init__(self, encoding: Encoding) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise NotInstalled(
                "constraints need llguidance: pip install 'gptoss-harmony[grammar]'"
            ) from error
        self._matcher_class = llguidance.LLMatcher
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(encoding))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=special.VOCABULARY_SIZE)
        self.paths = PathFinder(encoding)

    def matcher(self, grammar: str) -> Any:
        return self._matcher_class(self._tokenizer, grammar, log_level=0)

    def matcher_of(self, source: Source) -> Any:
        return self.matcher(json.dumps({"grammars": [source.compiled("start")]}))


class _Vocabulary:
    """The encoding as llguidance asks for it."""

    eos_token_id = special.END_OF_TEXT
    bos_token_id = None

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self.tokens = encoding.token_bytes[: special.VOCABULARY_SIZE]
        self.special_token_ids = list(range(special.FIRST_SPECIAL, special.VOCABULARY_SIZE))

    def __call__(self, text: str | bytes) -> list[int]:
        words = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._encoding.encode_text(words)


@functools.cache
def _tools(encoding: Encoding) -> _Tools:
    return _Tools(encoding)


def _explain(format: AnswerFormat, tools: _Tools, whole: str) -> GrammarError:
    """Which part cannot be enforced, and why."""
    named: Mapping[str, tuple[str, Source]] = {
        **{f"the {name} channel": (name, source) for name, source in format.channels.items()},
        **{
            f"the function {name}": (f"functions.{name}", source)
            for name, source in format.functions.items()
        },
    }
    for where, (part, source) in named.items():
        kind = type(source).__name__
        try:
            alone = tools.matcher_of(source)
            reason = _first_line(alone.get_error()) if alone.is_error() else None
        except GrammarError as error:
            reason = str(error)
        if reason is not None:
            text = f"the {kind} of {where} cannot be enforced: {reason}"
            return GrammarError(text, part=part)
    return GrammarError(f"the answer format cannot be enforced: {_first_line(whole)}")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:500] if text.strip() else "unknown error"
