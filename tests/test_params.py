"""A wrong value stops everything with one line that names file, key, value, rule and remedy."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.guard.params import ParamsError, check, load
from stages.tools.profile import compose


def tree(profile: str = "quickstart") -> dict:
    return YAML(typ="safe", pure=True).load(compose(profile))


PROGRAMS = {"task": "humaneval", "raw": "x", "questions": None, "shots": 0, "chat": False, "max_tokens": None}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("generate.n", 1, "generate.n = 1"),
        ("generate.n", 7, "params.yaml: generate.n = 7 must be a multiple of the 2 temperatures"),
        ("generate.temperatures", [1.0, -0.5], "-0.5"),
        ("generate.temperatures", [], "generate.temperatures"),
        ("dpo.beta", "0.1", "dpo.beta = '0.1'"),
        ("dpo.betta", 0.1, "dpo.betta = 0.1"),
        ("dpo.learning_rate", "5e-7", "dpo.learning_rate = '5e-7'"),
        ("dpo.epochs", 1.5, "dpo.epochs = 1.5"),
        ("dpo.epochs", True, "dpo.epochs = True"),
        ("dpo.label_smoothing", 0.1, "dpo.label_smoothing = 0.1 is ignored by the loss ['sigmoid']: it needs one of"),
        ("dpo.discopop_tau", 0.1, "discopop_tau = 0.1 is ignored by the loss ['sigmoid']"),
        ("dpo.simpo_gamma", 1.0, "simpo_gamma = 1.0 is ignored"),
        (
            "dpo.f_alpha",
            0.3,
            "f_alpha = 0.3 is ignored by the loss ['sigmoid']: it needs f_divergence = alpha_divergence",
        ),
        ("dpo.lora_alpha", 32.0, "lora_alpha = 32.0 is ignored"),
        (
            "dpo.quantized",
            True,
            "dpo.quantized = true freezes the weights, so something else must learn; set lora_rank over 0",
        ),
        ("dpo.loss", ["sft"], "dpo.loss sft alone learns no preference"),
        ("dpo.loss", ["exo_pair"], "label_smoothing = 0.0 makes exo_pair infinite"),
        ("dpo.loss", ["sigmoid", "sft"], "must hold one weight for each loss"),
        ("dpo.loss", ["kl"], "dpo.loss.0 = 'kl'"),
        ("dpo.loss_weights", [0.0], "dpo.loss_weights.0 = 0.0"),
        ("generate.from_rival", 3, "generate.from_rival = 3 must be a multiple of the 2 temperatures"),
        ("generate.from_rival", 8, "generate.from_rival = 8 must be less than n = 8"),
        ("rank.pairing", "across", "generate.from_rival = 0 samples from one; raise it"),
        ("annotate.by", "judge", "annotate.reads = 'candidates' must be 'scores/judge' where by = judge"),
        ("start_from.policy", "llama", "start_from.policy = 'llama' must be one of bases, base; change it"),
        ("bases.base.model", "tiny-random", "revision = 0.1.2: tiny-random is drawn from a number, such as '1'"),
        (
            "prompts.max_tokens",
            449,
            "prompts.max_tokens = 449 and generate.max_new_tokens = 64 are over dpo.max_tokens",
        ),
        ("judge.limit_by", "tokens", "judge.limit_by = 'tokens'"),
        ("stop.max_kl", -1.0, "stop.max_kl = -1.0"),
        ("sandbox.seconds", 0, "sandbox.seconds = 0"),
        ("sandbox.memory_mib", 63, "sandbox.memory_mib = 63: Input should be greater than or equal to 64"),
        ("benchmarks", {"a": PROGRAMS | {"chat": True}}, "benchmarks.a.chat = true, and humaneval continues a program"),
        ("benchmarks", {"a": PROGRAMS | {"shots": 2}}, "benchmarks.a.shots = 2, and humaneval has no worked examples"),
        ("select.by", "gold_reward", "select.by = 'gold_reward'"),
        ("split.heldout_share", 1.0, "split.heldout_share = 1.0"),
        ("mixed", "other", "mixed = 'other' must be 'quickstart', the last set of the mix"),
        ("mix.quickstart.after", "shp", "mix.quickstart.after = 'shp' must be 'start'"),
        ("mix.quickstart.source", "hub", "mix.quickstart.source = 'hub'"),
        ("mix.quickstart.rule", {"min_ratio": 2.0}, "min_ratio"),
        ("mix.quickstart.filter.min_margin", -1.0, "mix.quickstart.filter.min_margin = -1.0"),
        ("prompts.per_iteration", 0, "prompts.per_iteration = 0"),
        ("rank.truncated", "sometimes", "rank.truncated = 'sometimes'"),
        ("policies", ["pi0", "pi1"], "policies = ..."),
        ("rank.scorer", "judge", "add -S 'signals.judge=[judge]' to the command, or set it in params.yaml"),
        ("signals.judge", ["longer"], "signals.judge.0 = 'longer'"),
        ("signals.ensemble", ["ensemble", "ensemble"], "signals.ensemble = ..."),
        ("signals.reward_model", [], "rank.scorer = reward_model, and signals.reward_model = []: it is not in use"),
        ("signals.side_by_side", ["all"], "signals.side_by_side reads what preference_model says"),
        ("offline.train", "data/offline/mixed.parquet", "and offline.set = {}; add the set to offline.set"),
        ("evaluate.judge", ["judge"], "evaluate.reads = measures, and evaluate.judge = ['judge']; set both"),
        ("generate.rows_per_shard", 0, "generate.rows_per_shard = 0"),
        ("generate.rows_per_shard", 7, "generate.rows_per_shard = 7 holds no prompt's generate.n = 8 completions"),
        ("rank.scorer", "taste", "rank.scorer = 'taste'"),
        ("judge.top_logprobs", 21, "judge.top_logprobs = 21"),
        ("pairwise.ranking", "league", "pairwise.ranking = 'league'"),
        ("reward_model.evaluations", -1, "reward_model.evaluations = -1"),
        ("runtime.processes", 0, "runtime.processes = 0"),
        (
            "runtime.processes",
            3,
            "sft.global_batch_rows = 8 must be a multiple of runtime.processes x runtime.micro_batch_rows = 6",
        ),
        ("dpo.global_batch_rows", 9, "dpo.global_batch_rows = 9 must be a multiple of"),
        ("dpo.loss", ["kto"], "dpo.loss kto compares the rows of one micro-batch: set runtime.processes x"),
        ("dpo.loss", ["aot"], "dpo.loss aot compares the rows of one micro-batch: set runtime.processes = 1 and"),
        ("runtime.deepspeed", 3, "runtime.deepspeed = 3 shares a model among processes, and processes = 1"),
    ],
)
def test_a_wrong_value_is_named_with_key_and_file(key, value, told):
    params = tree()
    *sections, leaf = key.split(".")
    node = params
    for part in sections:
        node = node[part]
    node[leaf] = value
    with pytest.raises(ParamsError) as caught:
        check(params, "params.yaml")
    message = str(caught.value)
    assert (
        message.startswith("params.yaml: ") and told in message and "in params.yaml" in message and "\n" not in message
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"loss": ["kto", "sft"], "loss_weights": [1.0, 1.0]},
            "loss kto has a trainer of its own in TRL: it stands alone",
        ),
        ({"loss": ["simpo"], "loss_weights": [2.0]}, "loss simpo has a trainer of its own"),
        ({"loss": ["simpo"], "ld_alpha": 0.5}, "ld_alpha = 0.5 is ignored by the loss ['simpo']"),
        (
            {"loss": ["sppo_hard"], "f_divergence": "js_divergence"},
            "f_divergence = js_divergence is not defined for sppo_hard",
        ),
        (
            {"loss": ["sppo_hard", "sft"], "loss_weights": [1.0, 0.1], "f_divergence": "js_divergence"},
            "js_divergence is not defined for sppo_hard",
        ),
        ({"f_divergence": "alpha_divergence", "f_alpha": 1.0}, "f_alpha = 1.0 makes alpha_divergence the reverse KL"),
        ({"f_divergence": "alpha_divergence", "f_alpha": float("nan")}, "dpo.f_alpha = nan"),
        ({"beta": float("inf")}, "dpo.beta = inf"),
        (
            {"half": True, "lora_rank": 8},
            "half = true keeps whole weights, and lora_rank = 8 trains adapters; set half = false or lora_rank = 0",
        ),
        ({"loss": ["sigmoid", "sigmoid"], "loss_weights": [1.0, 1.0]}, "each loss once"),
    ],
)
def test_options_of_a_loss_that_do_not_go_together_are_refused_with_the_reason(changes, told):
    params = tree()
    params["dpo"] |= changes
    with pytest.raises(ParamsError, match=re.escape(told)):
        check(params, "params.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
        {"loss": ["robust"], "label_smoothing": 0.1},
        {"loss": ["kto"]},
        {"ld_alpha": 0.5},
        {"f_divergence": "alpha_divergence", "f_alpha": 0.3},
        {"lora_rank": 8, "lora_alpha": 32.0, "quantized": True},
        {"loss": ["ipo", "sft"], "loss_weights": [1.0, 1.0], "f_divergence": "forward_kl"},
    ],
)
def test_options_of_a_loss_that_go_together_are_taken(changes):
    params = tree()
    params["runtime"]["micro_batch_rows"] = params["dpo"]["global_batch_rows"]
    params["dpo"] |= changes
    check(params, "params.yaml")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("start", "pi2", "iterations[1].start = 'pi2' must be pi0 or pi1"),
        ("reference", "offline", "iterations[1].reference = 'offline' must be pi0 or pi1"),
        (
            "rival",
            "pi1",
            "iterations[1].rival = 'pi1' must be one of ['base', 'pi0'], or with dpo.half = true of ['pi1/half']",
        ),
        (
            "rival",
            "pi1/half",
            "iterations[1].rival = 'pi1/half' must be one of ['base', 'pi0'], or with dpo.half = true of ['pi1/half']",
        ),
        ("makes", "pi3", "iterations[1] must be {samples: pi1, makes: pi2, ...}"),
    ],
)
def test_an_iteration_starts_from_and_refers_to_policies_that_are_there(field, value, told):
    params = tree()
    params["iterations"][1][field] = value
    with pytest.raises(ParamsError, match=re.escape(told)):
        check(params, "params.yaml")


def test_every_model_to_start_from_has_a_plain_name_and_is_named():
    params = tree()
    entry = params["bases"]["base"]
    for name, told in (
        ("instruct", "bases.instruct is what nothing starts from; name it in start_from, or remove it"),
        ("pi1", "bases: 'pi1' must be lower-case letters"),
        ("a/b", "bases: 'a/b' must be lower-case letters"),
    ):
        with pytest.raises(ParamsError, match=re.escape(told)):
            check(params | {"bases": {"base": entry, name: entry}}, "params.yaml")
    both = params | {"bases": {"base": entry, "instruct": entry}}
    both["start_from"] = params["start_from"] | {"reward_model": "instruct"}
    assert check(both, "params.yaml").start_from.reward_model == "instruct"


def test_a_policy_that_judges_itself_asks_no_served_judge():
    params = tree()
    params["signals"]["self_judge"], params["judge"]["served"] = ["self_judge"], "judge-8b"
    with pytest.raises(ParamsError, match=re.escape("judge.served = 'judge-8b' another model; set it to null")):
        check(params, "params.yaml")


def test_the_simulated_annotator_labels_no_prompts_but_the_quickstarts():
    told = (
        "annotate.by = simulated, and evaluate.gold = none: the simulated annotator knows the quickstart's prompts only"
    )
    refreshed = ["rank.scorer=refreshed", "signals.refreshed=[refreshed]"]
    with pytest.raises(ValueError, match=re.escape(told)):
        compose("paper", refreshed)
    assert "by: people" in compose("paper", [*refreshed, "annotate.by=people"])


def test_a_policy_is_selected_by_the_judge_only_where_the_judge_is_asked():
    params = tree()
    params["select"]["by"] = "judge_win_rate"
    with pytest.raises(
        ParamsError, match=re.escape("select.by = judge_win_rate, and evaluate.judge = []: no judge is asked")
    ):
        check(params, "params.yaml")
    params["evaluate"] |= {"reads": "judged_by", "judge": ["judge"]}
    check(params, "params.yaml")


def test_the_best_and_the_worst_of_n_do_not_overlap():
    params = tree()
    params["rank"] |= {"pairing": "top_bottom", "top_k": 5}
    with pytest.raises(
        ParamsError, match=re.escape("rank.top_k = 5 best and as many worst are more than generate.n = 8")
    ):
        check(params, "params.yaml")
    params["rank"]["top_k"] = 4
    check(params, "params.yaml")


@pytest.mark.parametrize("section", ["stop", "select"])
def test_a_rule_on_the_kl_needs_answers_at_temperature_1(section):
    params = tree()
    params["respond"]["temperature"], params[section]["max_kl"] = 0.7, 10.0
    with pytest.raises(
        ParamsError,
        match=re.escape(f"respond.temperature = 0.7 and {section}.max_kl = 10.0: only answers at temperature 1"),
    ):
        check(params, "params.yaml")


def test_a_half_trained_policy_is_a_rival_where_it_is_kept():
    params = tree()
    params["iterations"][1]["rival"] = "pi1/half"
    params["dpo"]["half"] = True
    check(params, "params.yaml")
    params["iterations"][1]["rival"] = "pi2/half"
    with pytest.raises(ParamsError, match=re.escape("iterations[1].rival = 'pi2/half' must be one of")):
        check(params, "params.yaml")


def test_stepwise_dpo_takes_the_newest_pairs_alone():
    params = tree()
    params["iterations"][1]["reference"] = "pi1"
    check(params, "params.yaml")
    params["history"]["keep"] = "all"
    with pytest.raises(
        ParamsError,
        match="iterations with reference pi1 train stepwise: pairs that an earlier reference saw cannot join in",
    ):
        check(params, "params.yaml")


@pytest.mark.parametrize("loss", ["simpo", "cpo", "orpo"])
def test_a_loss_without_a_reference_is_refused_where_an_iteration_names_one(loss):
    params = tree()
    params["dpo"]["loss"] = [loss]
    check(params, "params.yaml")
    params["iterations"][1]["reference"] = "pi1"
    with pytest.raises(
        ParamsError, match=f"reference pi1 train stepwise, and dpo.loss {loss} reads no reference; set reference: pi0"
    ):
        check(params, "params.yaml")


@pytest.mark.parametrize(
    ("source", "rule"), [("shp", {"min_ratio": 2}), ("helpsteer", {"aspects": ["beauty"]}), ("own", {"x": 1})]
)
def test_a_sources_rule_is_checked_by_its_source(source, rule):
    params = tree()
    params["mix"]["quickstart"] |= {"source": source, "rule": rule}
    with pytest.raises(
        ParamsError, match=rf"params.yaml: mix\.quickstart\.rule\.\S+: .*, for source {source}; change it"
    ):
        check(params, "params.yaml")


def test_the_paper_mixes_the_ten_sets_of_its_table_5():
    mix = tree("paper")["mix"]
    assert len(mix) == 10 and all(
        Path(entry["raw"]).exists() and entry["raw"].endswith(f"/{entry['source']}.json") for entry in mix.values()
    )


def test_one_path_of_a_mix_can_be_set_from_the_command_line():
    mix = YAML(typ="safe", pure=True).load(compose("paper", ["mix.shp.raw=elsewhere"]))["mix"]
    assert (
        mix["shp"]["raw"] == "elsewhere"
        and mix["shp"]["rule"] == {"min_ratio": 2.0, "pairs_per_post": 5}
        and len(mix) == 10
    )


def test_numbers_in_scientific_form_are_numbers(tmp_path):
    text = compose("quickstart").replace("learning_rate: 3.0e-5", "learning_rate: 5e-7")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load(tmp_path / "params.yaml").dpo.learning_rate == 5e-7


def test_a_file_that_is_no_yaml_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("dpo: [1, 2\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"^[^\n]*params\.yaml: [^\n]*$"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("profile", ["quickstart", "smoke", "paper", "people", "gpu"])
def test_every_profile_composes_and_validates(profile):
    assert compose(profile).startswith(f"# profile: {profile} ")


def test_the_committed_params_are_the_quickstart_profile():
    with open("params.yaml") as file:
        assert file.read() == compose("quickstart")


def test_the_paper_profile_has_the_papers_numbers():
    p = tree("paper")
    assert (
        p["sft"]["learning_rate"],
        p["sft"]["global_batch_rows"],
        p["sft"]["max_tokens"],
        p["sft"]["warmup_share"],
    ) == (2e-5, 32, 8192, 0.03)
    assert (
        p["reward_model"]["learning_rate"],
        p["reward_model"]["global_batch_rows"],
        p["reward_model"]["epochs"],
    ) == (2e-6, 512, 1)
    assert (p["dpo"]["learning_rate"], p["dpo"]["global_batch_rows"], p["dpo"]["epochs"], p["dpo"]["beta"]) == (
        5e-7,
        128,
        2,
        0.1,
    )
    assert (p["generate"]["n"], p["generate"]["temperatures"], p["generate"]["max_new_tokens"]) == (8, [1.0, 0.7], 2048)
    assert (p["offline"]["set"]["nectar"]["source"], p["offline"]["pairs"], p["offline"]["train"]) == (
        "nectar",
        3 * 20000,
        "data/offline/mixed.parquet",
    )
    assert (p["rank"]["length_penalty"], p["prompts"]["per_iteration"], len(p["iterations"])) == (0.001, 20000, 3)


def test_mix1_is_laid_over_the_papers_numbers():
    p = tree("paper+mix1")
    assert list(p["mix"]) == ["hh_rlhf", "shp", "ultrafeedback", "summarize"] and p["mixed"] == "summarize"
    assert p["reward_model"] == tree("paper")["reward_model"]
    with pytest.raises(ValueError, match=r"no profile 'paper\+mix3'; there are gpu, mix1, paper"):
        compose("paper+mix3")


def test_an_overlay_key_that_does_not_exist_is_refused():
    with pytest.raises(KeyError, match="gamma"):
        compose("smoke", ["dpo.gamma=1"])


def test_no_key_is_called_size_or_nfiles_which_the_run_cache_of_dvc_ignores():
    def keys(node):
        return [k for key, value in node.items() for k in [key, *(keys(value) if isinstance(value, dict) else [])]]

    assert not {"size", "nfiles"} & set(keys(tree()))
