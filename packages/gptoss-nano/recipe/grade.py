"""Is what the model wrote what it should have written? Judged on parsed messages, not on tokens."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openai_harmony import Role

from gptoss_harmony.encoding import Encoding
from gptoss_harmony.errors import ParseError
from gptoss_harmony.parse import StreamParser
from recipe.episode import Completion, Message
from recipe.render import CALL, RETURN

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Grade:
    """What was found about one completion.

    Attributes:
        well_formed: strict harmony, ending in the stop token that its last message asks for.
        exact: the action is the expected one.
        thought: tokens of analysis before the action.
        text: what was written instead, for reading.
    """

    well_formed: bool
    exact: bool
    thought: int
    text: str = ""


def grade(encoding: Encoding, tokens: Sequence[int], expected: Completion) -> Grade:
    """Compare an answer with the completion that was expected."""
    text = encoding.decode(tokens)
    parser = StreamParser(encoding, Role.ASSISTANT, strict=True)
    try:
        for token in tokens:
            parser.process(token)
        parser.finish()
    except ParseError as error:
        return Grade(False, False, 0, f"{text} [{error}]")
    messages = parser.messages
    if not messages or tokens[-1] not in (CALL, RETURN):
        return Grade(False, False, 0, text)
    *thoughts, action = messages
    well_formed = (
        all(m.channel == "analysis" and m.recipient is None for m in thoughts)
        and (tokens[-1] == CALL) == (action.recipient is not None)
        and action.channel in ({"analysis", "commentary"} if action.recipient else {"final"})
    )
    wanted = expected.messages[-1]
    exact = (
        well_formed
        and action.recipient == wanted.recipient
        and action.channel == wanted.channel
        and same(plain_text(action), wanted)
    )
    thought = sum(len(encoding.encode_text(plain_text(m))) for m in thoughts)
    return Grade(well_formed, exact, thought, text)


def plain_text(message: Any) -> str:
    """The text of a parsed message."""
    return "".join(part.text for part in message.content)


def same(text: str, wanted: Message) -> bool:
    """Whether a text does what the expected message does."""
    if wanted.recipient == "python":
        return python_value(text) is not None and python_value(text) == python_value(wanted.plain)
    if wanted.plain.startswith("{"):
        try:
            return bool(json.loads(text) == json.loads(wanted.plain))
        except ValueError:
            return False
    return text.strip() == wanted.plain.strip()


def python_value(code: str) -> int | float | str | None:
    """Run `print(arithmetic)` and return what it prints; None for any other program."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return None
    match tree.body:
        case [ast.Expr(ast.Call(ast.Name("print"), [argument], []))]:
            try:
                return _arithmetic(argument)
            except ZeroDivisionError:
                return "division by zero"
            except (TypeError, OverflowError):
                return None
        case _:
            return None


def _arithmetic(node: ast.expr) -> Any:
    match node:
        case ast.Constant(int() | float() as number):
            return number
        case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](_arithmetic(left), _arithmetic(right))
        case ast.UnaryOp(ast.USub(), operand):
            return -_arithmetic(operand)
        case _:
            raise TypeError("only arithmetic is run")
