"""The one format in which two answers are set against each other: `preference_model` trains on it, its scorer asks in
it.

Source  RLHF Workflow, arXiv 2405.07863, section 2.2: [CONTEXT] x [RESPONSE A] a [RESPONSE B] b, and the next token is
        A or B
"""

from typing import Any

from stages import chat


def context(prompt: list[chat.Message]) -> str:
    """The conversation as plain turns."""
    return "\n" + "".join(f"\n\n<turn> {message['role']}\n {message['content']}" for message in prompt) + "\n\n\n"


def instruction(prompt: list[chat.Message], first: str, second: str) -> list[chat.Message]:
    """A comparison as one user turn."""
    return [{"role": "user", "content": f"[CONTEXT] {context(prompt)} [RESPONSE A] {first} [RESPONSE B] {second} \n"}]


def question(asked: tuple[str, list[chat.Message], str, str]) -> list[chat.Message]:
    """The comparison that a `comparison.Question` asks for."""
    return instruction(*asked[1:])


def letters(tokenizer: Any) -> tuple[int, int]:
    """The tokens A and B. Raises ValueError where one of them is not a single token."""
    ids = [tokenizer(letter, add_special_tokens=False).input_ids for letter in "AB"]
    if any(len(i) != 1 for i in ids) or ids[0] == ids[1]:
        raise ValueError(
            f"the tokenizer writes A and B as {ids}, each must be one token of its own; take another model"
        )
    return ids[0][0], ids[1][0]
