"""Demonstrations: each raw form of the paper's sets, what is dropped by name, and that the test prompts stay out."""

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.data import demonstrations, phrases
from stages.messages import MESSAGES


def turns(**said: str) -> list[dict]:
    return [{"role": role, "content": content} for role, content in said.items()]


SHAREGPT = {
    "conversations": [
        {"from": f, "value": v} for f, v in (("human", "hi"), ("gpt", "hello"), ("human", "a joke"), ("gpt", "Knock."))
    ]
}


@pytest.fixture
def collect(tmp_path, tiny_model):
    return partial(collected, tiny_model, tmp_path)


def collected(
    model: Path,
    folder: Path,
    sets: dict[str, list[dict]],
    question: str = "unrelated words that nobody would ever write down",
) -> tuple[list[dict], dict]:
    (folder / "sets").mkdir()
    for name, records in sets.items():
        (folder / f"sets/{name}.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
        )
    (folder / "evaluation").mkdir()
    (folder / "evaluation/e.jsonl").write_text(json.dumps({"question": question}) + "\n", encoding="utf-8")
    params = type("P", (), {"phrases": type("B", (), {"words": 5})})
    phrases.main(params, folder / "evaluation", phrases=folder / "phrases.parquet")
    tests = [{"id": "t", "prompt": [{"role": "user", "content": "A test  prompt"}]}]
    pq.write_table(
        pa.Table.from_pylist(tests, pa.schema([("id", pa.string()), ("prompt", MESSAGES)])),
        folder / "test.parquet",
    )
    out = folder / "out.parquet", folder / "out.json"
    demonstrations.main(
        None,
        folder / "sets",
        folder / "phrases.parquet",
        [folder / "test.parquet"],
        model,
        demonstrations=out[0],
        metrics=out[1],
    )
    return pq.read_table(out[0]).to_pylist(), json.loads(out[1].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("record", "prompt", "answer"),
    [
        (SHAREGPT, ["hi", "hello", "a joke"], "Knock."),
        ({"messages": turns(system="be brief", user="q", assistant="a")}, ["be brief", "q"], "a"),
        ({"instruction": "add", "input": "1 and 2", "output": "3"}, ["add\n\n1 and 2"], "3"),
        ({"instruction": "add", "input": "", "output": "3"}, ["add"], "3"),
        ({"question": "q", "answer": "a"}, ["q"], "a"),
        ({"system_prompt": "s", "question": "q", "response": "a"}, ["s", "q"], "a"),
        ({"system_prompt": " ", "question": "q", "response": "a", "input": None}, ["q"], "a"),
        ({"conversations": [{"from": "system", "value": ""}, *SHAREGPT["conversations"][2:]]}, ["a joke"], "Knock."),
        ({"instruction": "q", "response": "a"}, ["q"], "a"),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "chosen": [{"role": "assistant", "content": "a"}],
                "chosen_finished": False,
            },
            ["q"],
            "a",
        ),
    ],
)
def test_each_form_of_the_papers_sets_is_read(collect, record, prompt, answer):
    [row], told = collect({"s": [record]})
    assert [m["content"] for m in row["prompt"]] == prompt and row["chosen"] == [
        {"role": "assistant", "content": answer}
    ]
    assert row["chosen_finished"] is record.get("chosen_finished", True) and (row["id"], row["source"]) == ("s-0", "s")
    assert {m["role"] for m in row["prompt"]} <= {"system", "user", "assistant"} and told["s"]["rows_out"] == 1


def test_what_is_no_demonstration_is_dropped_by_name_and_a_later_set_repeats_nothing(collect):
    first = [
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "output": " "},
        {"system": "be good", "instruction": "a TEST prompt", "output": "a"},
        {"instruction": "so tell me the secret of long life please", "output": "a"},
        {"instruction": "q", "output": "a\0"},
    ]
    rows = [
        {"conversations": []},
        {"conversations": SHAREGPT["conversations"][:3]},
        SHAREGPT,
        SHAREGPT,
        {"conversations": SHAREGPT["conversations"][1:]},
    ]
    second = [{"question": "Q ", "answer": "a"}, {"question": "q", "answer": "b"}]
    kept, told = collect({"a": first, "b": rows, "c": second}, question="What is the secret of long life?")
    assert told["a"]["drops"] == {"empty_turn": 1, "in_test": 1, "in_benchmark": 1, "nul_character": 1}
    assert told["b"]["drops"] == {"no_answer": 2, "broken_alternation": 1}
    assert told["c"]["drops"] == {"in_earlier_set": 1} and [r["id"] for r in kept] == ["a-0", "b-2", "b-3", "c-1"]
    assert all(t["rows_in"] == t["rows_out"] + sum(t["drops"].values()) for t in told.values())


def test_a_form_that_is_none_is_an_error(collect):
    with pytest.raises(ValueError, match=r"fields \['text'\] hold neither one of"):
        collect({"s": [{"text": "q"}]})


def test_a_hub_set_that_is_not_pinned_is_refused(tmp_path, tiny_model):
    (tmp_path / "evaluation").mkdir()
    phrases.main(
        type("P", (), {"phrases": type("B", (), {"words": 5})}),
        tmp_path / "evaluation",
        phrases=tmp_path / "phrases.parquet",
    )
    pq.write_table(pa.table({"prompt": pa.array([], MESSAGES)}), tmp_path / "test.parquet")
    out = {"demonstrations": tmp_path / "out.parquet", "metrics": tmp_path / "out.json"}
    with pytest.raises(ValueError, match=r"evol_instruct\.json: .*must name dataset, split and the 40-digit commit"):
        raw, known = Path("data/raw/hub/demonstrations"), tmp_path / "phrases.parquet"
        demonstrations.main(None, raw, known, [tmp_path / "test.parquet"], tiny_model, **out)


def test_turns_of_another_form_are_an_error(collect):
    with pytest.raises(ValueError, match=r"conversations is .*, no text and no list of \('role', 'content'\) or of"):
        collect({"s": [{"conversations": [{"speaker": "human", "text": "hi"}]}]})


def test_a_set_without_one_demonstration_is_an_error(collect):
    with pytest.raises(ValueError, match="no demonstration is left"):
        collect({"a": [{"instruction": "q", "output": "a"}], "s": [{"instruction": "q", "output": ""}]})
