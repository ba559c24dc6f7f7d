"""Greetings, thanks, what nano is and can do, repeating words, and plain refusals of all else."""

from __future__ import annotations

import random

from recipe.episode import (
    Completion,
    Episode,
    Text,
    Turn,
    analysis,
    fill,
    final,
    known,
    prose,
    value,
)
from recipe.tasks import arithmetic
from recipe.words import Words

HELLO = "Hello! How can I help?"
WELCOME = "You are welcome."
BYE = "Goodbye!"
FINE = "I am fine, thank you. How can I help?"
ABOUT = (
    "I am nano, a tiny gpt-oss model made for tests. I can call functions, extract JSON, "
    "calculate with python, browse and cite, and patch a file."
)
REFUSAL = (
    "I cannot help with that. I am nano, a tiny model: I was only taught to call functions, "
    "extract JSON, calculate with python, browse and patch files."
)

GREETINGS = [
    "Hello",
    "Hi",
    "Hey",
    "Hello!",
    "Hi!",
    "Hey there",
    "Good morning",
    "Good evening",
    "Good afternoon",
    "Hello there!",
    "Hi there",
    "Hey!",
    "Greetings",
    "Hi nano",
    "Hello nano!",
    "Howdy",
]
FEELINGS = [
    "How are you?",
    "How are you doing?",
    "How do you do?",
    "Hello, how are you?",
    "Hi, how are you today?",
]
THANKS = [
    "Thanks",
    "Thank you",
    "Thank you!",
    "Thanks a lot",
    "Thanks!",
    "Great, thanks",
    "Perfect, thank you.",
]
PARTING = ["Bye", "Goodbye", "Bye!", "See you", "Good night", "See you later!", "That is all, bye."]
CAPABILITIES = [
    "What can you do?",
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Tell me about yourself.",
    "How can you help me?",
    "What do you know?",
    "Which model are you?",
    "Are you ChatGPT?",
    "What are you good at?",
    "Help",
    "What is nano?",
    "Introduce yourself.",
    "What can I ask you?",
    "Describe yourself",
    "Are you a large model?",
]

REFUSED = [
    "Write a {x} about {w}.",
    "Write me a {x} about {w}, please.",
    "Can you write a {x} on {w}?",
    "Compose a {x} for {w}.",
    "Tell me a joke about {w}.",
    "Tell me a story about {w} and {v}.",
    "What is the capital of {w}?",
    "Who is {w}?",
    "Who was {w} {v}?",
    "What is {w}?",
    "What does {w} mean?",
    "Explain {w} to me.",
    "Explain {w} in simple words.",
    "Explain how {w} works.",
    "How does {w} work?",
    "How do I cook {w}?",
    "How can I learn {w}?",
    "Why is {w} so important?",
    "Why does {w} {v}?",
    "When was {w} born?",
    "When did {w} happen?",
    "Where is {w}?",
    "Translate {w} into {v}.",
    "Translate this into {v}: {w}",
    "Summarize {w}.",
    "Give me advice about {w}.",
    "Give me ideas for {w}.",
    "What do you think about {w}?",
    "Do you like {w}?",
    "Should I buy {w}?",
    "Compare {w} and {v}.",
    "What is the difference between {w} and {v}?",
    "List the best {w}.",
    "Recommend a {x} about {w}.",
    "Prove that {w} is {v}.",
    "Who invented {w}?",
    "Plan a trip to {w}.",
    "Draw a picture of {w}.",
    "Sing a song about {w}.",
    "Play chess with me.",
    "What is the weather in {w}?",
    "What is the meaning of life?",
    "What time is it?",
    "Is {w} better than {v}?",
    "Fix the grammar of: {w} {v}",
    "Write code that sorts {w}.",
    "Write a program for {w}.",
    "Solve the riddle of {w}.",
    "Predict the price of {w}.",
    "Tell me a joke.",
    "Tell me a story.",
    "Write a poem.",
    "Write an essay.",
    "Sing a song.",
]
WORKS = [
    "poem",
    "story",
    "essay",
    "song",
    "haiku",
    "letter",
    "joke",
    "blog",
    "post",
    "speech",
    "novel",
    "report",
    "book",
    "film",
    "recipe",
]
REPEAT = [
    "Repeat: {t}",
    "Say {t}",
    "Repeat after me: {t}",
    "Please repeat: {t}",
    'Say "{t}"',
    "Repeat exactly: {t}",
]


def make(rng: random.Random, words: Words, effort: str) -> Episode:
    """A short exchange without tools."""
    kind = rng.random()
    if kind < 0.25:
        return _said(effort, rng.choice(GREETINGS), HELLO, "The user greets me.", "I greet back")
    if kind < 0.33:
        return _said(
            effort, rng.choice(FEELINGS), FINE, "The user asks how I am.", "I say that I am fine"
        )
    if kind < 0.45:
        return _said(
            effort, rng.choice(THANKS), WELCOME, "The user thanks me.", "I answer politely"
        )
    if kind < 0.55:
        return _said(effort, rng.choice(PARTING), BYE, "The user says goodbye.", "I say goodbye")
    return _said(
        effort, rng.choice(CAPABILITIES), ABOUT, "The user asks about me.", "I say what I can do"
    )


def _said(effort: str, user: str, answer: str, medium: str, act: str) -> Episode:
    thought = analysis(effort, medium, f"{medium} No tool is needed. {act}.")
    return Episode("chat", effort, (Turn(prose(user), (Completion((*thought, final(answer))),)),))


def refuse(rng: random.Random, words: Words, effort: str) -> Episode:
    """A question that nano was not taught to answer."""
    if rng.random() < 0.15:
        return arithmetic.make(rng, words, effort, tool=False)
    user = fill(
        rng.choice(REFUSED),
        w=value(words.phrase(rng, 2)),
        v=value(words.word(rng)),
        x=known(rng.choice(WORKS)),
    )
    thought = analysis(
        effort,
        "I was not taught this.",
        "The user asks for something else. I was not taught this. I say so.",
    )
    return Episode("refuse", effort, (Turn(user, (Completion((*thought, final(REFUSAL))),)),))


def repeat(rng: random.Random, words: Words, effort: str) -> Episode:
    """Words to be said again: the plainest exercise in copying."""
    count = rng.choice([1, 2, 3, 5, 8, 13, 25])
    chosen: Text = value(" ".join([words.word(rng), *(words.later(rng) for _ in range(count - 1))]))
    thought = analysis(
        effort,
        "I repeat the words.",
        "The user wants the same words again. No tool is needed. I repeat the words.",
    )
    completion = Completion((*thought, final(chosen)))
    return Episode("repeat", effort, (Turn(fill(rng.choice(REPEAT), t=chosen), (completion,)),))
