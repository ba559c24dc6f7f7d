"""How many tokens the prompt of a turn has, counted by writing it."""

from __future__ import annotations

import asyncio

from gptoss_serve.session import Session
from gptoss_serve.turn import Turn, without_oldest


async def prompt_tokens(session: Session, turn: Turn) -> int:
    """Tokens of the first prompt of a turn, shortened as the turn allows.

    One that is too long for the context, and may not be shortened, is counted all the same.
    """
    encoding, messages = session.encoding, list(turn.messages)
    context = session.engine.spec.context_length
    prefill = len(encoding.encode(turn.prefill, allowed_special="all"))
    while True:
        prompt = await asyncio.to_thread(encoding.render_prompt, messages, style=turn.style)
        tokens = len(prompt.tokens) + prefill
        shorter = without_oldest(messages) if turn.drop_oldest and tokens >= context else None
        if shorter is None:
            return tokens
        messages = shorter
