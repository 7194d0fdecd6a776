import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.evaluation import bootstrap, evaluate, monitors, policy_metrics, select


def test_wins_count_a_tie_half():
    assert evaluate.wins(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0])).tolist() == [1.0, 0.5, 0.0]


def test_the_interval_of_a_constant_is_that_constant_and_of_a_spread_holds_the_mean():
    assert bootstrap.interval(np.full(20, 2.5), 200, 0.95, seed=1) == [2.5, 2.5]
    assert bootstrap.interval(np.array([0.12346]), 200, 0.95, seed=1) == [0.1235, 0.1235]
    values = np.arange(100.0)
    low, high = bootstrap.interval(values, 4000, 0.95, seed=1)
    # the standard error of the mean is sqrt(833.25 / 100) = 2.887, so about 49.5 -+ 5.66
    assert low == pytest.approx(49.5 - 5.66, abs=0.5) and high == pytest.approx(49.5 + 5.66, abs=0.5)


def test_a_different_set_of_prompts_cannot_be_paired():
    with pytest.raises(ValueError, match="different prompts"):
        evaluate.numbers([{"id": "a", "sample": 0}], [{"id": "a", "sample": 0}], [{"id": "b", "sample": 0}], None)


def answer(name: str, completion: str, finished: bool = True, proxy: float = 0.0) -> dict:
    prompt = [{"role": "user", "content": "Tell me about bees."}]
    return {"id": name, "prompt": prompt, "completion": completion, "finished": finished, "proxy_reward": proxy}


def test_gains_are_paired_by_prompt_over_pi0_and_over_offline_dpo():
    """r* is 10 for a good answer that ended and 1 for the same one broken off: of two prompts the policy wins one from
    pi_0 and ties with offline DPO.
    """
    good = "Bees make honey in the hive. The queen leads her busy colony all summer."
    params = SimpleNamespace(evaluate=SimpleNamespace(resamples=100, confidence=0.95), seed=1)
    mine, pi0 = [answer("a", good), answer("b", good)], [answer("a", good, finished=False), answer("b", good)]
    facts = evaluate.golds(mine, pi0, mine, params)
    assert (facts["gold_reward"], facts["gain"], facts["win_rate"]) == (pytest.approx(10), pytest.approx(4.5), 0.75)
    assert facts["over_offline"] == 0 and facts["over_offline_interval"] == [0, 0]
    assert facts["win_rate_over_offline"] == 0.5 and facts["win_rate_over_offline_interval"] == [0.5, 0.5]
    assert facts["gain_interval"] == [0, pytest.approx(9)]


def test_proxy_and_gold_agree_where_both_prefer_the_same_answer_and_by_half_where_one_sees_a_tie():
    """Gold prefers the policy's answer on a and on b, and neither on c and on d; the proxy the policy's, pi_0's, the
    policy's and neither: (1 + 0 + 0.5 + 1) / 4.
    """
    good = "Bees make honey in the hive. The queen leads her busy colony all summer."
    params = SimpleNamespace(evaluate=SimpleNamespace(resamples=100, confidence=0.95), seed=1)
    proxies = {"a": 2.0, "b": -2.0, "c": 2.0, "d": 0.0}
    mine = [answer(name, good, proxy=proxy) for name, proxy in proxies.items()]
    pi0 = [answer(name, good, finished=name in "cd") for name in proxies]
    assert evaluate.golds(mine, pi0, mine, params)["proxy_agrees"] == 0.625


def test_a_prompt_counts_once_however_often_it_was_answered():
    """Two answers to each of two prompts, 10 and 1 to the first, 10 and 10 to the second: means 5.5 and 10, whose
    bootstrap has no other ends.
    """
    good = "Bees make honey in the hive. The queen leads her busy colony all summer."
    params = SimpleNamespace(evaluate=SimpleNamespace(resamples=100, confidence=0.95), seed=1)
    rows = [answer("a", good), answer("a", good, finished=False), answer("b", good), answer("b", good)]
    facts = evaluate.golds(rows, rows, rows, params)
    assert facts["gold_reward"] == pytest.approx(7.75) and facts["gold_reward_interval"] == [pytest.approx(5.5), 10]


def test_the_judges_preference_is_a_mean_over_prompts_and_what_it_could_not_read_is_counted():
    """One of two verdicts on the first prompt was read, 1; the second has 0.5 twice; the third none: (1 + 0.5) / 2.

    Offline DPO has 0.5 and 0.25 there.
    """
    params = SimpleNamespace(evaluate=SimpleNamespace(resamples=100, confidence=0.95), seed=1)
    mine, offline = (
        [{"id": name, "split": "test", "judge_preference": p} for name, p in told]
        for told in (
            (("a", 1.0), ("a", None), ("b", 0.5), ("b", 0.5), ("c", None)),
            (("a", 0.5), ("b", 0.25), ("c", 1.0)),
        )
    )
    facts = evaluate.judge_numbers(mine, offline, params)
    assert (facts["judge_win_rate"], facts["judge_win_rate_interval"], facts["judge_unreadable"]) == (
        0.75,
        [0.5, 1.0],
        2,
    )
    assert (facts["judge_over_offline"], facts["judge_over_offline_interval"]) == (0.375, [0.25, 0.5])
    assert evaluate.judge_numbers([{"id": "a"}], offline, params) == {}
    with pytest.raises(ValueError, match="no readable verdict on 1 test prompts"):
        evaluate.judge_numbers(mine[-1:], offline, params)


def rules(**changes):
    """No rule of `stop` but these."""
    none = dict.fromkeys(["max_kl", "max_tokens", "min_finished", "max_repetition", "min_distinct_2"])
    return SimpleNamespace(**(none | changes))


def selection(stop=None, **caps):
    return SimpleNamespace(
        select=SimpleNamespace(**({"by": "proxy_reward", "max_kl": None, "max_tokens": None} | caps)),
        stop=stop or rules(),
    )


def test_selection_takes_the_best_iterate_and_never_the_baselines():
    table = {
        name: {"validation": {"proxy_reward": v}}
        for name, v in (("pi0", 9.0), ("offline", 8.0), ("pi1", 1.0), ("pi2", 1.0))
    }
    assert select.choose(table, selection()) == ("pi1", {"pi1": 1.0, "pi2": 1.0}, {})


def test_a_cap_rules_a_policy_out_by_name_and_pi0_is_left_where_it_rules_out_all():
    table = {
        name: {"validation": {"proxy_reward": v, "kl": kl, "tokens": 40.0}}
        for name, v, kl in (("pi0", 0.0, 0.0), ("pi1", 1.0, 2.0), ("pi2", 3.0, 9.0))
    }
    best, values, out = select.choose(table, selection(max_kl=5.0))
    assert (best, values, out) == ("pi1", {"pi1": 1.0, "pi2": 3.0}, {"pi2": "kl 9.0 is over select.max_kl = 5.0"})
    assert select.choose(table, selection(max_tokens=39.0))[0] == "pi0"


def test_a_policy_that_broke_a_rule_of_stop_is_not_chosen():
    table = {
        name: {"validation": {"proxy_reward": v, "finished": f}}
        for name, v, f in (("pi1", 1.0, 0.9), ("pi2", 3.0, 0.1))
    }
    best, _, out = select.choose(table, selection(stop=rules(min_finished=0.5)))
    assert (best, out) == ("pi1", {"pi2": "finished 0.1 is under stop.min_finished = 0.5"})


def measured(
    text: str, tokens: int, reward: float, policy: float = -3.0, reference: float = -4.0, finished: bool = True
) -> dict:
    said = {"completion": text, "token_ids": list(range(tokens)), "finished": finished}
    return said | {
        "proxy_reward": reward,
        "logp_sampler": policy + 0.25,
        "logp_policy": policy,
        "logp_reference": reference,
    }


def test_the_monitors_by_hand():
    # pairs of words: "a b", "b c" and "a b", "b a", "a b", "b a", "a b": 3 different of 7
    # three-word phrases of the second answer: a b a, b a b, a b a, b a b: half of them stand in it before
    rows = [measured("A b, c.", 10, 1.0), measured("a b a b a b", 30, 3.0, -5.0, -9.0, finished=False)]
    assert monitors.numbers(rows) == {
        "proxy_reward": 2.0,
        "tokens": 20.0,
        "finished": 0.5,
        "kl": 2.5,
        "sampler_kl": 0.25,
        "length_reward_correlation": 1.0,
        "distinct_2": round(3 / 7, 4),
        "repetition": 0.25,
    }


def test_answers_of_one_length_correlate_with_nothing_and_silence_has_no_phrases():
    seen = monitors.numbers([measured("", 1, 1.0), measured("", 1, 2.0)])
    assert (seen["length_reward_correlation"], seen["distinct_2"], seen["repetition"]) == (0.0, 0.0, 0.0)


def test_a_stop_names_every_rule_that_is_broken_and_null_is_no_rule():
    seen = {"kl": 12.0, "tokens": 40.0, "finished": 0.1, "repetition": 0.5, "distinct_2": 0.5}
    told = "kl 12.0 is over stop.max_kl = 10.0; finished 0.1 is under stop.min_finished = 0.2"
    assert "; ".join(monitors.broken(seen, rules(max_kl=10.0, min_finished=0.2))) == told
    assert monitors.broken(seen, rules(max_kl=12.0)) == []
    assert monitors.broken(seen, rules(max_tokens=39.0, max_repetition=0.4, min_distinct_2=0.6)) == [
        "tokens 40.0 is over stop.max_tokens = 39.0",
        "repetition 0.5 is over stop.max_repetition = 0.4",
        "distinct_2 0.5 is under stop.min_distinct_2 = 0.6",
    ]


def write_policies(folder, **values):
    for name, value in values.items():
        (folder / f"{name}.json").write_text(json.dumps({name: {"validation": {"proxy_reward": value}}}))


def test_the_iterations_say_which_policies_are_read_and_a_missing_one_is_named(tmp_path):
    """Files in the order of their names would be offline, pi0, pi1; pi2's is of an iteration that was removed."""
    write_policies(tmp_path, pi0=1.0, offline=2.0, pi1=3.0, pi2=9.0)
    one, two = [SimpleNamespace(makes="pi1")], [SimpleNamespace(makes="pi1"), SimpleNamespace(makes="pi2")]
    assert list(policy_metrics.table(one, tmp_path)) == ["pi0", "offline", "pi1"]
    assert list(policy_metrics.table(two, tmp_path)) == ["pi0", "offline", "pi1", "pi2"]
    (tmp_path / "pi1.json").unlink()
    with pytest.raises(ValueError, match=r"pi1\.json is missing.*; run `dvc --wait-for-lock repro`"):
        policy_metrics.table(two, tmp_path)


def test_the_policy_of_a_removed_iteration_cannot_be_selected(tmp_path):
    write_policies(tmp_path, pi0=1.0, offline=2.0, pi1=3.0, pi2=9.0)
    params = selection()
    params.iterations = [SimpleNamespace(samples="pi0", makes="pi1")]
    select.main(params, tmp_path, metrics=tmp_path / "selected.json")
    found = json.loads((tmp_path / "selected.json").read_text())
    assert found == {"policy": "pi1", "by": "proxy_reward", "validation": {"pi1": 3.0}, "ruled_out": {}}


def test_the_accounts_of_what_made_a_policy_stand_beside_its_numbers(tmp_path):
    """One test and one validation prompt, answered once by each of three policies."""
    rows = [answer(name, "Bees make honey.") | {"sample": 0, "split": name} for name in ("test", "validation")]
    measures = [
        row
        | {"proxy_reward": 1.0, "token_ids": [1]}
        | {"logp_sampler": -1.0, "logp_policy": -1.0, "logp_reference": -2.0}
        for row in rows
    ]
    for name in ("pi1", "pi0", "offline"):
        pq.write_table(pa.Table.from_pylist(measures), tmp_path / f"{name}.parquet")
    making = [tmp_path / "stop/pi0.json", tmp_path / "dpo/pi1.json"]
    for path, facts in zip(making, ('{"stop": false}', '{"rows_out": 3}'), strict=True):
        path.parent.mkdir()
        path.write_text(facts)
    params = SimpleNamespace(evaluate=SimpleNamespace(gold="none", resamples=100, confidence=0.95), seed=1)
    pi1, pi0, offline = (tmp_path / f"{name}.parquet" for name in ("pi1", "pi0", "offline"))
    evaluate.main(params, pi1, pi0, offline, making, metrics=tmp_path / "m.json")
    found = json.loads((tmp_path / "m.json").read_text())["pi1"]
    assert (found["stop"], found["dpo"]) == ({"stop": False}, {"rows_out": 3})
    assert (found["test"]["answers"], found["test"]["kl"], found["validation"]["kl"]) == (1, 1.0, 1.0)
    assert "gold_reward" not in found["test"] and "judge_win_rate" not in found["test"]
