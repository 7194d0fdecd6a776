"""The template contract: one start, the header last, an end only where there was one, the same ids in every stage."""

import pytest

from stages import chat

PROMPT = [{"role": "user", "content": "Hi"}]
LLAMA = (  # a template that writes its own start of text, as Llama-3's does
    "{{ '<|endoftext|>' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model):
    return chat.load_tokenizer(tiny_model)


def test_a_prompt_ends_with_the_assistant_header(tokenizer):
    text = tokenizer.decode(chat.prompt_ids(tokenizer, PROMPT))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_there_is_exactly_one_start_of_text_where_the_template_writes_it(tokenizer):
    tokenizer.chat_template = LLAMA
    ids = chat.prompt_ids(tokenizer, PROMPT)
    assert ids.count(0) == 1 and ids[0] == 0


def test_the_end_of_turn_is_what_the_template_writes_behind_an_answer(tokenizer):
    assert tokenizer.convert_ids_to_tokens(chat.end_of_turn(tokenizer)) == "<|im_end|>"
    tokenizer.chat_template = LLAMA
    assert tokenizer.convert_ids_to_tokens(chat.end_of_turn(tokenizer)) == "<|im_end|>"


def test_only_an_answer_that_ended_is_given_an_end(tokenizer):
    ended, cut = chat.completion_ids(tokenizer, "Yes.", True), chat.completion_ids(tokenizer, "Yes.", False)
    assert ended == [*cut, chat.end_of_turn(tokenizer)] and chat.end_of_turn(tokenizer) not in cut


def test_prompt_and_completion_are_the_rendered_conversation(tokenizer):
    whole = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": "Yes."}], return_dict=False)
    made = chat.prompt_ids(tokenizer, PROMPT) + chat.completion_ids(tokenizer, "Yes.", True)
    assert whole[: len(made)] == made


def test_a_folder_without_tokenizer_is_named(tiny_model, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    with pytest.raises(ValueError, match="no tokenizer can be loaded from this model folder; save the tokenizer"):
        chat.load_tokenizer(tmp_path)


def test_padding_with_the_end_of_turn_is_refused(tokenizer, tmp_path):
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the padding token must exist and differ from the end of a turn"):
        chat.load_tokenizer(tmp_path)


def test_a_prompt_that_ends_with_an_answer_is_refused(tokenizer):
    with pytest.raises(ValueError, match="a prompt ends with a user message"):
        chat.prompt_ids(tokenizer, [{"role": "assistant", "content": "x"}])


def test_a_prompt_over_the_context_is_refused_before_any_engine_starts(tokenizer):
    from stages.sampling import engine

    with pytest.raises(
        ValueError, match=r"prompt 'Hi\.\.\.' has \d+ tokens, with 64 to come over the model's 80; shorten or drop it"
    ):
        engine.longest_row(tokenizer, [PROMPT], 80, 64)


def test_room_is_made_for_the_longest_prompt_with_all_that_may_come(tokenizer):
    from stages.sampling import engine

    longer = [{"role": "user", "content": "Hi, and once more hi"}]
    wanted = len(chat.prompt_ids(tokenizer, longer)) + 64
    assert engine.longest_row(tokenizer, [PROMPT, longer, PROMPT], wanted, 64) == wanted


def test_a_row_seed_comes_from_its_names_alone():
    from stages.sampling import engine

    seeds = {engine.row_seed(1, t, p, k) for t in ("t0", "t1") for p in "ab" for k in range(8)}
    assert len(seeds) == 32 and all(0 <= s < 2**31 for s in seeds)
    assert engine.row_seed(1, "t0", "a", 0) == engine.row_seed(1, "t0", "a", 0)


def test_half_of_the_samples_are_drawn_at_each_temperature():
    from stages.sampling import generate

    rows = generate.plan([{"id": "a", "prompt": PROMPT}], 8, 0, [1.0, 0.7], seed=1, iteration="pi0")
    assert [r["temperature"] for r in rows] == [1.0] * 4 + [0.7] * 4 and len({r["seed"] for r in rows}) == 8


def test_the_rivals_samples_come_last_and_are_spread_over_the_temperatures_too():
    from stages.sampling import generate

    rows = generate.plan([{"id": "a", "prompt": PROMPT}], 4, 2, [1.0, 0.7], seed=1, iteration="pi0")
    assert [r["temperature"] for r in rows] == [1.0, 1.0, 0.7, 0.7, 1.0, 0.7] and [r["sample"] for r in rows] == list(
        range(6)
    )


def test_the_seeds_are_by_the_number_of_the_iteration_the_prompt_and_the_sample():
    from stages.sampling import engine, generate

    rows = generate.plan([{"id": "a", "prompt": PROMPT}], 2, 0, [1.0], seed=1, iteration="pi3")
    assert [row["seed"] for row in rows] == [engine.row_seed(1, "t3", "a", k) for k in range(2)]
    # sha256("1:t0:a:0") begins with b2 9a 80 3a: half of 0xb29a803a
    first = generate.plan([{"id": "a", "prompt": PROMPT}], 1, 0, [1.0], seed=1, iteration="pi0")
    assert first[0]["seed"] == 0xB29A803A // 2


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("<think>\nTwo and two.\n</think>\n\nFour.", "Four."),
        ("Two and two.\n</think>\nFour.", "Four."),  # the template opened the thinking
        ("<think>a</think>b<think>c</think>\n\nd", "d"),
        ("<think>Two and two, which", ""),  # cut off while it thought
        ("Four.", "Four."),
        ("  Four: <thinking> is no such word", "  Four: <thinking> is no such word"),
    ],
)
def test_a_completion_without_its_thinking_is_what_is_said_behind_it(said, kept):
    from stages.sampling import engine

    assert engine.without_thinking(said) == kept
