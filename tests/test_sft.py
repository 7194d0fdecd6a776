"""Fine-tuning on conversations: which tokens are learnt, and that packed rows teach what they teach one by one."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import chat
from stages.data import demonstrations
from stages.training import labelled, sft
from tests.conftest import distance, sh
from tests.test_models import settings, weights

WORDS = st.text("ab ", min_size=1, max_size=6)


def talk(*said: str) -> list[dict]:
    """Turns of user and assistant, the first of them the user's."""
    return [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(said)]


def shown(*said: str) -> dict:
    return {"prompt": talk(*said[:-1]), "chosen": talk("", said[-1])[1:], "chosen_finished": True}


def learnt(tokenizer, row: dict, turns: str) -> list[str]:
    """The stretches of a conversation that are learnt, as text."""
    made = sft.tokenize(tokenizer, row, turns)
    assert all(label in (-100, token) for token, label in zip(made["input_ids"], made["labels"], strict=True))
    texts, before = [], -100
    for label in made["labels"]:
        if label != -100:
            texts = [*texts, [label]] if before == -100 else [*texts[:-1], [*texts[-1], label]]
        before = label
    return [tokenizer.decode(ids) for ids in texts]


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_all_that_the_assistant_said_is_learnt_each_with_its_end_or_the_last_answer_alone(tiny_model, said):
    tokenizer = chat.load_tokenizer(tiny_model)
    end = tokenizer.decode(chat.end_of_turn(tokenizer))
    row = shown(*(word for k, answer in enumerate(said) for word in (f"q{k}", answer)))
    assert learnt(tokenizer, row, "last") == [said[-1] + end]
    assert learnt(tokenizer, row, "all") == [answer + end for answer in said]
    ids = [sft.tokenize(tokenizer, row, turns)["input_ids"] for turns in ("last", "all")]
    assert ids[0] == ids[1] == chat.rendered(tokenizer, [*row["prompt"], *row["chosen"]])[: len(ids[0])]


def test_an_earlier_answer_that_the_template_writes_otherwise_is_not_learnt(tiny_model):
    """A template like Qwen 3's: thoughts stand in the last answer only."""
    tokenizer = chat.load_tokenizer(tiny_model)
    thought = "{{ m.content.split('</think>')[-1] if m.role == 'assistant' and not loop.last else m.content }}"
    turn = "<|im_start|>{{ m.role }}\n" + thought + "<|im_end|>\n"
    tokenizer.chat_template = (
        "{% for m in messages %}"
        + turn
        + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = shown("q", "<think>hm</think>a", "r", "b", "s", "<think>so</think>c")
    assert learnt(tokenizer, row, "all") == ["b<|im_end|>", "<think>so</think>c<|im_end|>"]


def test_an_answer_behind_no_question_is_context(tiny_model):
    tokenizer = chat.load_tokenizer(tiny_model)
    row = shown("q", "b")
    row["prompt"] = [{"role": "assistant", "content": "Hello!"}, *row["prompt"]]
    assert learnt(tokenizer, row, "all") == ["b<|im_end|>"]


def fine_tuned(model: Path, runtime, folder: Path, rows: list[dict], **changes) -> dict:
    full = [{"id": f"r{k}", "source": "s"} | row for k, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(full, demonstrations.SCHEMA), folder.with_suffix(".parquet"))
    files = {"policy": folder, "curve": folder.with_suffix(".csv"), "metrics": folder.with_suffix(".json")}
    params = settings(runtime, **({"global_batch_rows": 12, "epochs": 2} | changes))
    sft.main(params, model, folder.with_suffix(".parquet"), **files)
    return json.loads(folder.with_suffix(".json").read_text())


@pytest.mark.slow
def test_packed_conversations_teach_what_they_teach_one_by_one_in_fewer_rows(tiny_model, runtime, tmp_path):
    """A step of all twelve, however they are packed: the loss is a mean over the same learnt tokens."""
    rows = [shown(f"ask {k}", "no " * k, "and?", "yes " * (1 + k % 5)) for k in range(1, 13)]
    facts = {
        packing: fine_tuned(
            tiny_model, runtime, tmp_path / str(packing), rows, turns="all", packing=packing, max_tokens=300
        )
        for packing in (False, True)
    }
    alone, packed = facts[False], facts[True]
    counts = ("rows_in", "rows_out", "answers", "tokens", "tokens_learnt", "steps")
    assert {name: alone[name] for name in counts} == {name: packed[name] for name in counts}
    assert (
        alone["answers"] == 24
        and alone["answers_in_context"] == 0
        and alone["packed_rows"] == 12
        and alone["steps"] == 2
    )
    assert packed["packed_rows"] == 4  # 977 tokens in rows of at most 300
    for (_, one), (_, other) in zip(alone["curve"], packed["curve"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    start, ends = weights(tiny_model), [weights(tmp_path / str(packing)) for packing in (False, True)]
    assert distance(*ends) < 0.01 * distance(ends[0], start)


@pytest.mark.slow
def test_a_model_that_lets_packed_rows_see_each_other_is_refused(clone, tiny_model, tmp_path):
    """OPT takes its positions from the mask and makes no difference between rows of one sequence. On two processes of
    ZeRO-3, where no process has the weights.
    """
    from transformers import OPTConfig, OPTForCausalLM

    model = shutil.copytree(tiny_model, tmp_path / "opt")
    sizes = {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128, "num_attention_heads": 2}
    more = {"num_hidden_layers": 2, "max_position_embeddings": 1024, "init_std": 0.3, "pad_token_id": 0}
    OPTForCausalLM(OPTConfig(vocab_size=259, **sizes, **more)).save_pretrained(model)
    full = [{"id": f"r{k}", "source": "s"} | shown(f"ask {k}", "yes") for k in range(4)]
    pq.write_table(pa.Table.from_pylist(full, demonstrations.SCHEMA), tmp_path / "rows.parquet")
    layout = "runtime.processes=2 runtime.micro_batch_rows=1 runtime.deepspeed=3"
    packed = "sft.packing=true sft.rows=null sft.global_batch_rows=2 sft.max_tokens=100 prompts.max_tokens=50"
    assert sh(f"python -m stages.tools.profile smoke {layout} {packed}", clone).returncode == 0
    words = f"--model {model} --demonstrations {tmp_path}/rows.parquet --policy out --curve c.csv --metrics m.json"
    done = sh(f"python -m stages.guard.run training.sft {words}", clone)
    told = "OPTForCausalLM lets rows that are packed see each other; set packing = false, or take another base model"
    assert done.returncode and told in done.stderr


@pytest.mark.slow
def test_one_process_packs_for_all(tiny_model, runtime, tmp_path, monkeypatch):
    """The second start finds what the first one packed: nothing is written anew."""
    monkeypatch.setenv("STAGE_SCRATCH", str(tmp_path / "scratch"))
    rows = [shown(f"ask {k}", "yes") for k in range(4)]
    written = []
    for name in ("one", "two"):
        fine_tuned(tiny_model, runtime, tmp_path / name, rows, packing=True, epochs=1)
        files = (tmp_path / "scratch/tokens").glob("*.arrow")
        written.append({file.name: file.stat().st_ino for file in files})
        shutil.rmtree(tmp_path / "scratch/checkpoint-1", ignore_errors=True)
    assert written[0] == written[1] and len(written[0]) == 2


def test_learnt_tokens_are_counted_in_stretches():
    from datasets import Dataset

    rows = [([1, 2, 3], [-100, 2, 3]), ([1, 2, 3, 4, 5], [-100, 2, -100, 4, -100])]
    data = Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows])
    assert labelled.learnt(data) == {"tokens": 8, "tokens_learnt": 4, "answers": 3}
