"""Answers side by side: which prompts are shown, and that they are shown as text."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.evaluation import curve, examples, report_examples


def settings(**changes) -> SimpleNamespace:
    numbers = {"by_hash": 2, "extremes": 1, "characters": 5} | changes
    return SimpleNamespace(evaluate=SimpleNamespace(gold="none"), examples=SimpleNamespace(**numbers))


def measured(path, rewards: dict[str, float], split: str = "test"):
    """Two answers to each prompt, of which the second has a reward that must not matter."""
    rows = [
        {
            "id": name,
            "sample": sample,
            "split": split,
            "prompt": [{"role": "user", "content": f"About {name}"}],
            "completion": f"{path.stem} says {name}",
            "finished": name != "b",
            "proxy_reward": reward if sample == 0 else 99.0,
        }
        for name, reward in rewards.items()
        for sample in (0, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def found(tmp_path, params, mine: dict[str, float]) -> dict:
    even = dict.fromkeys("abcd", 1.0)
    reads = [
        measured(tmp_path / f"{name}.parquet", rewards)
        for name, rewards in (("pi2", mine), ("pi0", even), ("offline", even))
    ]
    examples.main(params, *reads, examples=tmp_path / "pi2.json")
    return json.loads((tmp_path / "pi2.json").read_text())


def test_prompts_are_chosen_by_a_hash_and_by_the_largest_gains_and_losses(tmp_path):
    """sha256 begins with ca97 for a, 3e23 for b, 2e7d for c, 18ac for d."""
    facts = found(tmp_path, settings(), {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.5})
    assert {why: [row["id"] for row in facts[why]] for why in ("by_hash", "gains", "losses")} == {
        "by_hash": ["d", "c"],
        "gains": ["b"],
        "losses": ["d"],
    }
    gained = facts["gains"][0]
    assert gained["prompt"] == "About …" and list(gained["answers"]) == ["pi0", "offline", "pi2"]
    assert gained["answers"]["pi2"] == {"text": "pi2 s …", "reward": 3.0, "finished": False}
    assert facts["yardstick"] == "proxy reward"


def test_a_prompt_that_neither_gains_nor_loses_is_among_neither(tmp_path):
    facts = found(tmp_path, settings(extremes=3), {"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0})
    assert [row["id"] for row in facts["gains"]] == ["d", "b"] and facts["losses"] == []  # equal: by hash


def test_answers_to_other_prompts_cannot_stand_side_by_side(tmp_path):
    with pytest.raises(ValueError, match="pi0, offline, pi2 answered different test prompts"):
        found(tmp_path, settings(), {"a": 1.0, "x": 2.0})


def test_a_conversation_says_who_speaks():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    assert examples.asked(turns) == "user: Hi\nassistant: Yes" and examples.asked(turns[:1]) == "Hi"


def test_the_report_shows_the_selected_policy_or_the_last_where_none_was_within_the_caps():
    of = lambda name: {"examples": {"yardstick": name, "characters": 9, "by_hash": [], "gains": [], "losses": []}}  # noqa: E731
    table = {"pi0": {}, "offline": {}, "pi1": of("1"), "pi2": of("2")}
    assert report_examples.examples(table, "pi1")["yardstick"] == "1"
    assert report_examples.examples(table, "pi0")["yardstick"] == "2"
    assert report_examples.examples({"pi0": {}, "offline": {}}, "pi0") == {"kinds": []}


def test_a_curve_has_the_steps_that_were_logged_and_no_quantity_that_was_not(tmp_path):
    (tmp_path / "pi1.csv").write_text("step,entropy,grad_norm,loss\n1,2.5,,0.75\n2,2.5,4.0,0.5\n")
    curve.main(None, tmp_path / "pi1.csv", curves=tmp_path / "pi1.json")
    assert json.loads((tmp_path / "pi1.json").read_text()) == {
        "loss": [[1, 0.75], [2, 0.5]],
        "grad_norm": [[2, 4.0]],
    }
