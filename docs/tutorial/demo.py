"""Ask nano two questions: one that it answers by itself, one for which it calls python.

    python docs/tutorial/demo.py
    python docs/tutorial/demo.py "Maria Lopez lives in Lima and is 31 years old."

The first answer is JSON extracted from the sentence. The second ends in a call of the python tool,
which is printed; where gptoss-tools can build a jail it is run and nano finishes the answer.
The exit code is 1 if an answer is not what it should be.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing

from gptoss_harmony import (
    Engine,
    Message,
    Role,
    Sampling,
    StreamParser,
    load_encoding,
    open_engine,
    system_message,
    tool_message,
    user_message,
)
from gptoss_harmony.errors import HarmonyError

SENTENCE = "Maria Lopez lives in Lima and is 31 years old."
KEYS = ("name", "city", "age")
LEFT, RIGHT = 1234, 567


def main(sentence: str) -> int:
    """Ask both questions."""
    with closing(open_engine("torch", "nano")) as engine:
        extracted = ask_for_json(engine, sentence)
        print()
        calculated = ask_for_a_product(engine)
    return 0 if extracted and calculated else 1


def ask_for_json(engine: Engine, sentence: str) -> bool:
    """Extract JSON; the answer is right if it is an object with the keys asked for."""
    question = f"Extract {', '.join(KEYS)} as JSON: {sentence}"
    print(f"> {question}")
    answer = complete(engine, [system_message(effort="low"), user_message(question)])
    text = answer[-1].content[0].text
    print(text)
    try:
        document = json.loads(text)
    except ValueError:
        return False
    if sentence != SENTENCE:
        return isinstance(document, dict)
    return document == {"name": "Maria Lopez", "city": "Lima", "age": 31}


def ask_for_a_product(engine: Engine) -> bool:
    """Multiply two numbers through the python tool."""
    question = f"What is {LEFT} * {RIGHT}?"
    print(f"> {question}")
    conversation = [system_message(effort="low", tools=["python"]), user_message(question)]
    conversation += complete(engine, conversation)
    call = conversation[-1]
    if call.recipient != "python":
        print("nano did not call python")
        return False
    print(f"python call: {call.content[0].text}")
    output = run_in_a_jail(call.content[0].text)
    if output is None:
        return True
    print(f"python output: {output.strip()}")
    conversation.append(tool_message("python", output, channel=call.channel or "analysis"))
    text = complete(engine, conversation)[-1].content[0].text
    print(text)
    return str(LEFT * RIGHT) in text.replace(",", "")


def complete(engine: Engine, conversation: list[Message]) -> list[Message]:
    """Let the engine write the next turn and return its messages."""
    encoding = load_encoding()
    parser = StreamParser(encoding, role=Role.ASSISTANT)
    prompt = encoding.render_prompt(conversation)
    for output in engine.generate(prompt, Sampling(temperature=0.0, max_tokens=256)):
        if output.token is not None:
            parser.process(output.token)
    parser.finish()
    return parser.messages


def run_in_a_jail(code: str) -> str | None:
    """Run code and return what it printed; None where no jail can be built, which is said."""
    try:
        from gptoss_tools import PythonTool

        return PythonTool().run(code).output
    except (ImportError, HarmonyError) as error:
        print(f"(not run: {error})")
        return None


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or SENTENCE))
