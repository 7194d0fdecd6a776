"""The templates of published models, as TRL installs them: which are taken as they are, which with a setting, and why
the others are refused.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages import chat
from stages.training import base, template

TRL = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # pyright: ignore[reportOptionalMemberAccess]
CONTROL = r"<\|[^|<>\s]*\|?>|<\|?[a-z_]+\|>|</?[a-z_]+>|\[/?[A-Za-z_]+\]|<｜[^<>]*｜>"
ENDS = [
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot|>",
]


def tokenizer_for(text: str) -> Any:
    """Over bytes, with every control word of a template; those of thinking are no special tokens, as in Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", *sorted(set(re.findall(CONTROL, text)) - {"<pad>", "<bos>", "<eos>"})]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*words, *letters])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [word for word in words[3:] if "think" not in word]
    names = {"bos_token": "<bos>", "eos_token": next((end for end in ENDS if end in words), "<eos>")}
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", additional_special_tokens=special, **names)
    made.chat_template = text
    return made


def published(name: str, **settings: Any) -> Any:
    tokenizer = tokenizer_for((TRL / f"{name}.jinja").read_text(encoding="utf-8"))
    tokenizer.chat_template = template.settled(tokenizer.chat_template, settings)
    return tokenizer


NETWORK = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=512)))
NO_THINKING, DAY = {"enable_thinking": False}, {"date_string": "26 Jul 2024"}


@pytest.mark.parametrize(
    ("name", "settings", "end", "refused"),
    [
        ("llama3", {}, "<|eot_id|>", set()),
        ("llama3_1", DAY, "<|eot_id|>", set()),
        ("llama3_2", DAY, "<|eot_id|>", set()),
        ("qwen2_5", {}, "<|im_end|>", set()),
        ("qwen3", NO_THINKING, "<|im_end|>", set()),
        ("qwen3_instruct_2507", {}, "<|im_end|>", set()),
        ("qwen3_5_nothink", {}, "<|im_end|>", set()),
        ("qwen3_5_think", NO_THINKING, "<|im_end|>", set()),
        ("qwen3_6", NO_THINKING, "<|im_end|>", set()),
        ("qwen3_8", NO_THINKING, "<|im_end|>", set()),
        ("gemma", {}, "<end_of_turn>", {"system_role"}),
        ("gemma3", {}, "<end_of_turn>", set()),
        ("gemma4", {}, "<turn|>", set()),
        ("phi3", {}, "<|end|>", set()),
        ("phi3_5", {}, "<|end|>", set()),
        ("cohere", {}, "<|END_OF_TURN_TOKEN|>", set()),
        ("lfm2", {}, "<|im_end|>", set()),
        ("nemotron_3_nano", NO_THINKING, "<|im_end|>", set()),
    ],
)
def test_a_published_template_gives_the_same_ids_in_every_stage(name, settings, end, refused):
    tokenizer = published(name, **settings)
    template.check_date(tokenizer)
    template.check_start(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chat.end_of_turn(tokenizer)) == end
    assert set(template.refused(tokenizer)) == refused
    for form in template.FORMS.keys() - refused:
        prompt, answer = template.FORMS[form], "Two words.\n\nAnd more"
        made = chat.prompt_ids(tokenizer, prompt) + chat.completion_ids(tokenizer, answer, finished=True)
        whole = chat.rendered(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
        assert whole[: len(made)] == made


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("qwen3", r"assistant\\n<think>\\n\\n</think>\\n\\nb<\|im_end\|>"),
        ("qwen3_5_think", r"assistant\\n<think>\\n"),
        ("qwen3_6", "<think>"),
        ("qwen3_8", "<think>"),
        ("glm4moe", "<think></think>"),
        ("gptoss", "final"),
        ("deepseek_r1_distill", r"<think>\\n' and a conversation with '.*b<"),
        ("nemotron_3_nano", "<think></think>b"),
    ],
)
def test_a_template_that_writes_more_than_the_answer_is_refused_with_what_it_writes(name, shown):
    with pytest.raises(
        ValueError, match=f"the chat template ends a prompt with .*{shown}.*set its template_settings in bases"
    ):
        chat.end_of_turn(published(name))


def test_every_installed_template_is_taken_or_refused_in_one_line():
    taken = {"cohere", "diffusion", "gemma", "gemma3", "gemma4", "lfm2", "llama3", "phi3", "qwen2", "qwen3"}
    refused = {"deepseek", "glm4moe", "gptoss", "idefics3", "llava", "muse", "nemotron", "qwen3", "smolvlm", "llama3"}
    for file in sorted(TRL.glob("*.jinja")):
        chat.end_of_turn.cache_clear()
        tokenizer, family = published(file.stem), file.stem.partition("_")[0].removesuffix("v3")
        try:
            template.facts(tokenizer, NETWORK, "keep")
        except ValueError as error:
            assert family in refused, file.stem
            assert "\n" not in str(error) and ";" in str(error), f"{file.stem}: {error}"
        else:
            assert family in taken or family.startswith("cohere"), file.stem


@pytest.mark.parametrize("behind", ["", "\n", "=", " and so on"])
def test_an_answer_ends_with_a_special_token_or_the_template_is_refused(tiny_model, behind):
    """A template whose turns end in a bare line break would make every answer of one line a finished one."""
    tokenizer = chat.load_tokenizer(tiny_model)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", behind)
    chat.end_of_turn.cache_clear()
    with pytest.raises(ValueError, match="an answer must be followed by one of the tokenizer's special tokens"):
        chat.end_of_turn(tokenizer)


def test_a_template_that_prints_the_date_is_refused_until_the_date_is_a_param():
    with pytest.raises(ValueError, match=r"prints the date, .* template_settings = \{date_string"):
        template.check_date(published("llama3_2"))
    text = published("llama3_2", **DAY).apply_chat_template(chat.ASKED, tokenize=False)
    assert "Today Date: 26 Jul 2024" in text


def test_a_prompt_begins_with_one_beginning_of_text_where_a_text_does():
    """Llama-3-8B, the paper's base, has a BOS and no template: ours writes it then."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_for(base.CHATML)
    tokenizer.chat_template = None
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", begin)]
    )
    assert tokenizer("a").input_ids[0] == begin
    base.give_template(tokenizer, Path("data/raw/templates/base"), {})
    template.check_start(tokenizer)
    ids = chat.prompt_ids(tokenizer, chat.ASKED)
    assert ids[0] == begin and ids.count(begin) == 1
    for begins, number in (("", 0), ("{{ bos_token }}" * 2, 2)):
        tokenizer.chat_template = begins + base.CHATML
        with pytest.raises(ValueError, match=rf"a text begins with one <bos> \({begin}\), a prompt with {number}: \["):
            template.check_start(tokenizer)


def test_control_words_in_an_answer_are_text(tiny_model):
    tokenizer = chat.load_tokenizer(tiny_model)
    ids = chat.completion_ids(tokenizer, "good<|im_end|>", finished=True)
    assert ids.count(chat.end_of_turn(tokenizer)) == 1 and len(ids) == len("good<|im_end|>") + 1
    assert chat.control_words(tokenizer) == ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]


def test_every_token_that_ends_a_turn_stops_sampling():
    from types import SimpleNamespace

    tokenizer = tokenizer_for((TRL / "llama3.jinja").read_text(encoding="utf-8"))
    tokenizer.eos_token = "<eos>"
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("<eos>", "<|eot_id|>", "A")}
    came_with = SimpleNamespace(eos_token_id=[ids["<eos>"], ids["A"]])  # A is a letter: no end of a turn
    assert template.stop_ids(tokenizer, came_with) == sorted([ids["<eos>"], ids["<|eot_id|>"]])


def test_what_a_template_refuses_is_told_with_its_own_words(tiny_model):
    assert "System role not supported" in template.refused(published("gemma"))["system_role"]
    tokenizer = chat.load_tokenizer(tiny_model)
    silent = "{% for m in messages if m['role'] != 'system' %}"
    tokenizer.chat_template = base.CHATML.replace("{% for message in messages %}", silent).replace("message[", "m[")
    assert template.refused(tokenizer) == {"system_role": "it leaves out what the system says"}
    last = "{% for m in messages[-2:] %}"
    tokenizer.chat_template = base.CHATML.replace("{% for message in messages %}", last).replace("message[", "m[")
    assert set(template.refused(tokenizer)) == {"system_role", "several_turns"}


def test_the_tokens_around_messages_are_those_that_the_template_writes(tiny_model):
    """<|im_start|>user\\n...<|im_end|>\\n<|im_start|>assistant\\n over bytes: 6 + 2 + 11; each more message
    1 + 4 or 9 + 1 + 2, 10.5 on average, rounded up.
    """
    import json

    facts = json.loads((tiny_model / template.FACTS).read_text(encoding="utf-8"))
    assert (facts["first"], facts["more"], facts["context"]) == (19, 11, 1024)
