"""Render a conversation to token ids: the one contract that sampling, scoring, training and log-probabilities share.

A prompt ends with the assistant header and holds what the template puts in front, once. A completion is its text and,
only if it ended by itself, the template's end-of-turn token: an answer that was cut off is never taught an end it did
not produce.
"""

from functools import cache
from typing import Any

Message = dict[str, str]


def prompt_ids(tokenizer: Any, prompt: list[Message]) -> list[int]:
    """Token ids up to and with the assistant header. Raises ValueError unless the last message is the user's."""
    if not prompt or prompt[-1]["role"] != "user":
        last = prompt[-1:]
        raise ValueError(f"a prompt ends with a user message, this one with {last}; mend the source that wrote it")
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)


@cache
def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts after an assistant's words (<|im_end|>, <|eot_id|>), where sampling stops.

    Raises ValueError for a template that puts none.
    """
    prompt = [{"role": "user", "content": "a"}]
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "b"}], return_dict=False)
    words = tokenizer("b", add_special_tokens=False).input_ids
    after = whole[len(prompt_ids(tokenizer, prompt)) + len(words) :]
    if not after:
        rule = "the chat template writes nothing after an assistant turn, so no answer could end"
        raise ValueError(f"{rule}; give the model another template")
    return after[0]


def completion_ids(tokenizer: Any, completion: str, finished: bool) -> list[int]:
    """Token ids of an assistant's words, the end-of-turn token behind them if the answer ended by itself."""
    ids = tokenizer(completion, add_special_tokens=False).input_ids
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
