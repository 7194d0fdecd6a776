"""Render a conversation to token ids: the one contract that sampling, scoring, training and log-probabilities share.

A prompt ends with the assistant header and holds what the template puts in front, once. A completion is its text and,
only if it ended by itself, the template's end-of-turn token: an answer that was cut off is never taught an end it did
not produce. What looks like one of the tokenizer's control words in a completion is text, and becomes ordinary tokens.

What a template must do for this to hold is checked once, by `base` (stages/training/template.py).
"""

from functools import cache
from typing import Any

Message = dict[str, str]
ASKED = [{"role": "user", "content": "a"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "b"}]


def rendered(tokenizer: Any, conversation: list[Message], **more: bool) -> list[int]:
    """Token ids of a whole conversation, as the template writes it. Raises ValueError for one that it does not take."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(conversation, return_dict=False, **more)
    except (TemplateError, TypeError) as error:
        roles = " ".join(message["role"] for message in conversation)
        model = tokenizer.name_or_path or "the model"
        told = f"the chat template of {model} refuses {roles}: {' '.join(str(error).split())}"
        said = conversation[0]["content"][:40]
        raise ValueError(f"{told} ({said!r} ...); bring a template that takes it, or drop such rows") from error


def prompt_ids(tokenizer: Any, prompt: list[Message]) -> list[int]:
    """Token ids up to and with the assistant header. Raises ValueError unless the last message is the user's."""
    if not prompt or prompt[-1]["role"] != "user":
        last = prompt[-1:]
        raise ValueError(f"a prompt ends with a user message, this one with {last}; mend the source that wrote it")
    return rendered(tokenizer, prompt, add_generation_prompt=True)


def pair_ids(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """prompt_ids, chosen_ids, rejected_ids of a preference pair (prompt, chosen, rejected as messages, and whether each
    side ended by itself).
    """
    ids = {"prompt_ids": prompt_ids(tokenizer, row["prompt"])}
    for side in ("chosen", "rejected"):
        text, finished = row[side][0]["content"], row[f"{side}_finished"]
        ids[f"{side}_ids"] = completion_ids(tokenizer, text, finished)
    return ids


def words_ids(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of an assistant's words."""
    return tokenizer(completion, add_special_tokens=False, split_special_tokens=True).input_ids


@cache
def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts after an assistant's words (<|im_end|>, <|eot_id|>), where sampling stops.

    Raises ValueError for a template that puts no special token there, or does not write an answer directly behind the
    prompt that was sampled from.
    """
    answered = rendered(tokenizer, ANSWERED)
    expected = prompt_ids(tokenizer, ASKED) + words_ids(tokenizer, "b")
    after = answered[len(expected) :]
    tail, remedy = (
        tokenizer.decode(answered)[-60:],
        "set its template_settings in bases, or bring a template of your own",
    )
    if answered[: len(expected)] != expected:
        prompt = tokenizer.decode(prompt_ids(tokenizer, ASKED))[-60:]
        rule = "so what is trained on is not what was sampled"
        raise ValueError(
            f"the chat template ends a prompt with {prompt!r} and a conversation with {tail!r}, {rule}; {remedy}"
        )
    if not after or after[0] not in special_ids(tokenizer):
        rule = "an answer must be followed by one of the tokenizer's special tokens, or none could end"
        raise ValueError(f"the chat template ends a conversation with {tail!r}: {rule}; {remedy}")
    return after[0]


def special_ids(tokenizer: Any) -> list[int]:
    """The tokens that stand for no text."""
    added = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    return sorted({*added, *tokenizer.all_special_ids})


def control_words(tokenizer: Any) -> list[str]:
    """What no data may hold: in a prompt it would be rendered as the token, not as text."""
    return sorted(tokenizer.convert_ids_to_tokens(special_ids(tokenizer)))


def completion_ids(tokenizer: Any, completion: str, finished: bool) -> list[int]:
    """Token ids of an assistant's words, the end-of-turn token behind them if the answer ended by itself."""
    ids = words_ids(tokenizer, completion)
    return [*ids, end_of_turn(tokenizer)] if finished else ids


def load_tokenizer(folder: Any) -> Any:
    """The folder's tokenizer.

    Raises ValueError where there is none, no chat template, or no padding token of its own.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        remedy = "save the tokenizer beside the weights"
        raise ValueError(f"{folder}: no tokenizer can be loaded from this model folder; {remedy}") from error
    if tokenizer.chat_template is None:
        raise ValueError(f"{folder}: the tokenizer has no chat template; save one with it")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == end_of_turn(tokenizer):
        rule = "the padding token must exist and differ from the end of a turn"
        raise ValueError(f"{folder}: {rule}, or rewards are read at the wrong place")
    return tokenizer
