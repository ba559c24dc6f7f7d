"""One request inside the scheduler: its tokens, its pages, and how far it has been launched.

`launched` counts the positions whose keys and values are written by steps already handed to the
GPU. The host may run one step ahead of the tokens it knows: then `unknown` of the launched steps
have drawn a token that has not come back yet.

    reading    launched < len(tokens): the prompt, or everything again after a preemption
    answering  launched = len(tokens) - 1 + unknown: one position a step
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gptoss_triton.pages import salt_name


@dataclass(slots=True, kw_only=True)
class Sequence:
    """A prompt and its answer so far.

    Attributes:
        number: order of arrival.
        tokens: prompt and known answer.
        prompt: how many of them are the prompt.
        limit: most tokens, prompt included.
        fresh: it computes all of its prompt, whatever the cache knows.
        salt: sequences share cached prefixes only with those of the same salt.
        slot: index of its arrays on the GPU while it runs.
        launched: positions handed to the GPU.
        unknown: draws that have not come back.
        drawn: whether its newest token is in its slot.
        cached: positions found in the cache when it was first admitted.
        full_pages: page of each block in the layers without a window.
        window_pages: the same in windowed layers; None once out of reach.
        names: names of the leading blocks whose tokens are known.
        finished: nothing more is to be launched.
    """

    number: int
    tokens: list[int]
    prompt: int
    limit: int
    fresh: bool = False
    salt: str = ""
    slot: int = -1
    launched: int = 0
    unknown: int = 0
    drawn: bool = False
    cached: int | None = None
    full_pages: list[int] = field(default_factory=list)
    window_pages: list[int | None] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    finished: bool = False

    @property
    def running(self) -> bool:
        """Whether it has a slot."""
        return self.slot >= 0

    @property
    def length(self) -> int:
        """Tokens, drawn but unknown ones included."""
        return len(self.tokens) + self.unknown

    @property
    def answering(self) -> bool:
        """Whether the next launch is one position whose token is in the slot."""
        return self.drawn and self.launched == self.length - 1

    @property
    def pending(self) -> int:
        """Known tokens that are still to be read."""
        return len(self.tokens) - self.launched

    @property
    def wants_more(self) -> bool:
        """Whether another launch makes sense."""
        if self.finished:
            return False
        return self.pending > 0 or self.length < self.limit or self.launched < self.prompt

    @property
    def parent(self) -> bytes:
        """What the next unnamed block follows."""
        return self.names[-1] if self.names else salt_name(self.salt)
