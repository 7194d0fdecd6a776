"""What a chat template must do so that every stage sees the same ids: checked once, where a model is brought.

- A prompt begins with exactly one beginning-of-text token where the tokenizer has one.
- A prompt, an answer and its end are, id by id, how the whole conversation begins.
- Nothing in it depends on the day.

A template may refuse a system role, or several turns: which it does is written beside the model (`FACTS`), and the
stages that read data go by it (stages/data/conversation_rules.py). A template with a setting, such as
`enable_thinking`, is saved with the setting written in front, so that every stage and every server sees it.

Source  the templates of Llama 3, Qwen 2.5 and 3, Gemma, Mistral, Phi, DeepSeek, OLMo as published; how transformers
        renders them: transformers/utils/chat_template_utils.py
"""

import json
import math
from typing import Any

from stages import chat

FACTS = "text_contract.json"
"""The file beside the model: control words, what the template refuses, the context; see `facts`."""
FORMS = {
    "system_role": [{"role": "system", "content": "Speak in rhymes."}, {"role": "user", "content": "What is rain?"}],
    "several_turns": [
        {"role": "user", "content": "What is rain?"},
        {"role": "assistant", "content": "It is water."},
        {"role": "user", "content": "And snow?"},
    ],
}
"""Prompts that a template may refuse."""


def settled(template: str, settings: dict[str, Any]) -> str:
    """The template with its settings in front, as Jinja's own assignments."""
    lines = [f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}" for name, value in settings.items()]
    return "".join(lines) + template


def check_plain(tokenizer: Any) -> None:
    """Raise ValueError for a template that cannot write a question and its answer, such as one for pictures."""
    said = FORMS["several_turns"][:2]  # words that stand in no role's name and in no control word
    text = tokenizer.decode(chat.rendered(tokenizer, said))
    missing = [message["role"] for message in said if message["content"] not in text]
    if missing:
        told = f"the chat template writes {text[-60:]!r} and leaves out what the {missing[0]} says"
        raise ValueError(f"{told}; bring a template for text, `template` in bases or pretrained")


def check_start(tokenizer: Any) -> None:
    """Raise ValueError unless a prompt begins with one beginning-of-text token where a text does."""
    begin, ids = tokenizer.bos_token_id, chat.prompt_ids(tokenizer, chat.ASKED)
    if tokenizer("a").input_ids[0] != begin:
        return
    number = next((place for place, token in enumerate(ids) if token != begin), len(ids))
    if number != 1:
        told = f"a text begins with one {tokenizer.bos_token} ({begin}), a prompt with {number}: {ids[:6]} ..."
        raise ValueError(f"{told}; bring a template that begins with {{{{ bos_token }}}}")


def check_date(tokenizer: Any) -> None:
    """Raise ValueError for a template that prints the date: tomorrow the same run would have other ids."""
    days = [
        tokenizer.apply_chat_template(chat.ANSWERED, tokenize=False, strftime_now=lambda form, day=day: day)
        for day in ("a day", "another day")
    ]
    if days[0] != days[1]:
        remedy = 'fix it, for Llama 3 with template_settings = {date_string: "26 Jul 2024"}'
        raise ValueError(f"the chat template prints the date, so its ids change from day to day; {remedy}")


def refused(tokenizer: Any) -> dict[str, str]:
    """Of FORMS, those that the template does not take, with the reason."""
    found = {name: fault(tokenizer, prompt) for name, prompt in FORMS.items()}
    return {name: reason for name, reason in found.items() if reason}


def fault(tokenizer: Any, prompt: list[chat.Message]) -> str | None:
    """Why a prompt of this form cannot be used."""
    answer = chat.ANSWERED[-1]
    try:
        ids, whole = chat.prompt_ids(tokenizer, prompt), chat.rendered(tokenizer, [*prompt, answer])
    except ValueError as error:
        return " ".join(str(error.__cause__ or error).split())
    expected = ids + chat.completion_ids(tokenizer, answer["content"], finished=True)
    if whole[: len(expected)] != expected:
        return "a prompt and its answer are not how the whole conversation begins"
    text = tokenizer.decode(ids)
    missing = [message["role"] for message in prompt if message["content"] not in text]
    return f"it leaves out what the {missing[0]} says" if missing else None


def around(tokenizer: Any, prompt: list[chat.Message]) -> int:
    """Tokens of a prompt that are not its messages' own."""
    said = sum(len(chat.words_ids(tokenizer, message["content"])) for message in prompt)
    return len(chat.prompt_ids(tokenizer, prompt)) - said


def facts(tokenizer: Any, network: Any, system_role: str) -> dict[str, Any]:
    """What later stages go by. Raises ValueError for a template that breaks a rule.

    control_words: texts that would become control tokens. refused: {form: reason}. fold_system: whether system messages
    become the beginning of the first user turn. In tokens: first and more, what the template puts around a prompt's
    first message and around each more; context, the model's, null where its config names none.
    """
    check_plain(tokenizer)
    check_date(tokenizer)
    check_start(tokenizer)
    end, faults = chat.end_of_turn(tokenizer), refused(tokenizer)
    first = around(tokenizer, chat.ASKED)
    three = first if "several_turns" in faults else around(tokenizer, FORMS["several_turns"])
    return {
        "begins": tokenizer.convert_ids_to_tokens(chat.prompt_ids(tokenizer, chat.ASKED)[:1])[0],
        "end_of_turn": tokenizer.convert_ids_to_tokens(end),
        "control_words": chat.control_words(tokenizer),
        "refused": faults,
        "fold_system": system_role == "fold",
        "first": first,
        "more": math.ceil((three - first) / 2),
        "context": getattr(network.config.get_text_config(), "max_position_embeddings", None),
    }


def stop_ids(tokenizer: Any, generation: Any) -> int | list[int]:
    """Every token that ends a turn: the template's, the tokenizer's, and the special ones that the model came with."""
    given = generation.eos_token_id
    own = set(given if isinstance(given, list) else [given]) & set(chat.special_ids(tokenizer))
    ids = {chat.end_of_turn(tokenizer), tokenizer.eos_token_id, *own} - {None}
    return ids.pop() if len(ids) == 1 else sorted(ids)
