"""Who runs next: the queue, the batch, and how the tokens of one step are shared out.

Every step takes all running requests forward. A request that answers needs one token; what is left
of the step's token budget is shared equally among those that still read their prompt, so a short
question is answered while a long document is being read:

```
budget 512, two answering, prompts with 40 and 9,000 pending tokens
-> 1, 1, 40, 470
```

Requests are admitted in the order they came. When memory runs out the youngest gives up its cache
and goes back to the head of the queue (`preempt`); its tokens are kept and only computed again.
Nothing here touches a tensor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gptoss_core.request import Request

SCORING_CHUNK = 64  # prompt positions whose logits are held at once: 50 MB each 64


@dataclass(frozen=True, slots=True)
class Pass:
    """One trip through the model.

    Attributes:
        parts: requests with the number of their pending tokens to take.
        every_position: whether logits of all tokens are wanted, not only of each request's last.
    """

    parts: tuple[tuple[Request, int], ...]
    every_position: bool = False


class Scheduler:
    """The waiting and the running requests.

    Args:
        max_batch: most requests that run at once.
        chunk: tokens that one step may take through the model.
        deterministic: one request a pass, prompts cut at multiples of `chunk` and answers one token
            at a time even when they are computed again, so that a request's arithmetic does not
            depend on its company.
    """

    def __init__(self, *, max_batch: int, chunk: int, deterministic: bool = False) -> None:
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._max_batch = max_batch
        self._width = max_batch  # lowered while memory is short
        self._chunk = chunk
        self._deterministic = deterministic

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a new request."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request that ended; the room it leaves may be used again."""
        if request in self.running:
            self.running.remove(request)
            self._width = min(self._width + 1, self._max_batch)
        elif request in self.waiting:
            self.waiting.remove(request)

    def admit(self, fits: Callable[[Request], bool]) -> list[Request]:
        """Move requests from the queue into the batch, oldest first, while they fit.

        With nothing running the first is taken whether it fits or not: nobody else will make room.
        """
        admitted = []
        while self.waiting and len(self.running) < self._width:
            if self.running and not fits(self.waiting[0]):
                break
            request = self.waiting.popleft()
            self.running.append(request)
            admitted.append(request)
        return admitted

    def preempt(self) -> Request | None:
        """Send the youngest running request back to the queue, unless it is the only one."""
        if len(self.running) < 2:
            return None
        request = self.running[-1]
        self.requeue([request])
        self.narrow(len(self.running))  # else it would be let in again and sent back at each step
        return request

    def requeue(self, requests: Sequence[Request]) -> None:
        """Send running requests back to the head of the queue, in the order they have."""
        for request in requests:
            self.running.remove(request)
        self.waiting.extendleft(reversed(requests))

    def narrow(self, width: int) -> None:
        """Run at most `width` requests at once until some have ended."""
        self._width = max(1, width)

    def plan(self) -> list[Pass]:
        """The passes of the next step; every running request is in one of them."""
        if self._deterministic:
            return [self._alone(request) for request in self.running]
        scoring = [request for request in self.running if request.scoring]
        together = [request for request in self.running if not request.scoring]
        passes = [self._alone(request) for request in scoring]
        return [self._together(together), *passes] if together else passes

    def _together(self, requests: list[Request]) -> Pass:
        counts = {id(request): 1 for request in requests}
        reading = sorted((r for r in requests if r.pending > 1), key=lambda r: r.pending)
        budget = max(self._chunk - (len(requests) - len(reading)), len(reading))
        for place, request in enumerate(reading):
            count = min(request.pending, budget // (len(reading) - place))
            counts[id(request)] = count
            budget -= count
        return Pass(tuple((request, counts[id(request)]) for request in requests))

    def _alone(self, request: Request) -> Pass:
        chunk = min(self._chunk, SCORING_CHUNK) if request.scoring else self._chunk
        prompt_left = len(request.prompt.tokens) - request.computed
        if prompt_left > 0:
            count = min(prompt_left, chunk - request.computed % chunk)
        else:
            count = 1 if self._deterministic else min(request.pending, chunk)
        return Pass(((request, count),), request.scoring)
