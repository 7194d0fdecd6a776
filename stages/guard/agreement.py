"""What one section of params.yaml asks of another: each rule raises ValueError with value, rule and remedy."""

import re
from typing import Any

from stages.guard import batches

SIDE_BY_SIDE = ("reward_model", "preference_model", "judge", "ensemble", "implicit", "bag_of_words", "longer")
"""The signals of the table that `make signals` makes."""


def sets_form_a_chain(params: Any) -> None:
    """DVC cannot say `the one before` or `the last`, so each set names the one that it is mixed after."""
    before = "start"
    for name, entry in params.mix.items():
        if entry.after != before:
            rule = f"must be {before!r}: each set is mixed after the one above it"
            raise ValueError(f"mix.{name}.after = {entry.after!r} {rule}")
        before = name
    if params.mixed != before:
        raise ValueError(f"mixed = {params.mixed!r} must be {before!r}, the last set of the mix")


def sets_have_plain_names(params: Any) -> None:
    for name in (*params.mix, *params.offline.set):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "start":
            raise ValueError(f"mix: a set is named by lower-case letters, digits and _, and not start; {name!r} is not")


FOLDERS = re.compile(r"(pi\d+|offline|reward\w*|refreshed\w*|preference|pretrained)")
"""What else lies in models/."""


def bases_are_there_and_used(params: Any) -> None:
    named = params.start_from.model_dump()
    for what, name in named.items():
        if name not in params.bases:
            raise ValueError(f"start_from.{what} = {name!r} must be one of bases, {', '.join(params.bases)}")
    for name in params.bases:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or FOLDERS.fullmatch(name):
            rule = "must be lower-case letters, digits and _, and not the name of a policy or a reward model"
            raise ValueError(f"bases: {name!r} {rule}; rename it")
        if name not in named.values() and params.judge.model != f"models/{name}":
            raise ValueError(f"bases.{name} is what nothing starts from; name it in start_from, or remove it")


def iterations_form_a_chain(params: Any) -> None:
    for k, step in enumerate(params.iterations):
        if (step.samples, step.makes) != (f"pi{k}", f"pi{k + 1}"):
            raise ValueError(
                f"iterations[{k}] must be {{samples: pi{k}, makes: pi{k + 1}, ...}}: each goes on from the last"
            )


def iterations_name_policies_that_are_there(params: Any) -> None:
    for k, step in enumerate(params.iterations):
        for name, value in (("start", step.start), ("reference", step.reference)):
            if value not in ("pi0", step.samples):
                rule = f"must be pi0 or {step.samples}, the policy that the iteration samples from"
                raise ValueError(f"iterations[{k}].{name} = {value!r} {rule}")
        whole, halves = [params.start_from.policy, *(f"pi{i}" for i in range(k))], [f"pi{i + 1}/half" for i in range(k)]
        if step.rival not in whole + halves * params.dpo.half:
            rule = (
                f"must be one of {whole}, or with dpo.half = true of {halves}: a checkpoint made before {step.samples}"
            )
            raise ValueError(f"iterations[{k}].rival = {step.rival!r} {rule}")


def iterations_with_a_moving_reference(params: Any) -> None:
    moving = [step.reference for step in params.iterations if step.reference != "pi0"]
    if not moving:
        return
    told = f"iterations with reference {moving[0]} train stepwise"
    if params.history.keep != "newest" or params.history.offline:
        remedy = "set history.keep = newest and history.offline = false"
        raise ValueError(f"{told}: pairs that an earlier reference saw cannot join in; {remedy}")
    free = {"simpo", "cpo", "orpo"} & set(params.dpo.loss)
    if free:
        raise ValueError(f"{told}, and dpo.loss {min(free)} reads no reference; set reference: pi0")


def the_ranker_is_in_use(params: Any) -> None:
    scorer = params.rank.scorer
    if not getattr(params.signals, scorer):
        remedy = f"add -S 'signals.{scorer}=[{scorer}]' to the command, or set it in params.yaml"
        raise ValueError(f"rank.scorer = {scorer}, and signals.{scorer} = []: it is not in use; {remedy}")


def signals_have_what_they_read(params: Any) -> None:
    needs = [("ensemble", "reward_model"), *(("side_by_side", name) for name in SIDE_BY_SIDE)]
    if params.annotate.by == "judge":
        needs.append(("refreshed", "judge"))
    for signal, other in needs:
        if getattr(params.signals, signal) and not getattr(params.signals, other):
            remedy = f"add -S 'signals.{other}=[{other}]' to the command, or set it in params.yaml"
            raise ValueError(f"signals.{signal} reads what {other} says, and signals.{other} = []; {remedy}")


def the_proxy_is_in_use(params: Any) -> None:
    proxy = params.evaluate.proxy
    signal, other = ("reward_model", "pretrained") if proxy == "reward" else ("pretrained", "reward")
    if not getattr(params.signals, signal):
        remedy = f"add -S 'signals.{signal}=[{signal}]' to the command, or -S evaluate.proxy={other}"
        raise ValueError(f"evaluate.proxy = {proxy}, and signals.{signal} = []: no such model is there; {remedy}")


def the_pretrained_model_is_named(params: Any) -> None:
    if params.signals.pretrained and not params.pretrained.model:
        raise ValueError("pretrained.model is null, and signals.pretrained brings it; name a hub id or a model folder")


def the_implicit_reward_is_of_a_policy(params: Any) -> None:
    policies = ["pi0", "offline", *(step.makes for step in params.iterations)]
    if params.implicit.policy not in policies:
        raise ValueError(f"implicit.policy = {params.implicit.policy!r} must be one of {', '.join(policies)}")


def the_offline_set_is_read(params: Any) -> None:
    own = params.offline.train == "data/offline/mixed.parquet"
    if own and not params.offline.set:
        remedy = "add the set to offline.set, or set offline.train = data/filtered/train.parquet"
        raise ValueError(f"offline.train = {params.offline.train}, and offline.set = {{}}; {remedy}")
    if params.offline.set and not own:
        name, remedy = (
            next(iter(params.offline.set)),
            "set offline.train = data/offline/mixed.parquet, or offline.set = {}",
        )
        raise ValueError(
            f"offline.set names {name}, and offline.train = {params.offline.train} does not read it; {remedy}"
        )


def the_judge_of_policies_is_asked(params: Any) -> None:
    reads, judge = params.evaluate.reads, params.evaluate.judge
    if (reads == "judged_by") != bool(judge):
        remedy = "set both, reads = judged_by and judge = [judge], or neither, reads = measures and judge = []"
        raise ValueError(f"evaluate.reads = {reads}, and evaluate.judge = {judge}; {remedy}")
    if params.select.by == "judge_win_rate" and not judge:
        remedy = "set evaluate.reads = judged_by and evaluate.judge = [judge]"
        raise ValueError(f"select.by = judge_win_rate, and evaluate.judge = []: no judge is asked; {remedy}")


def the_policy_can_judge_itself(params: Any) -> None:
    if params.signals.self_judge and params.judge.served:
        told = f"judge.served = {params.judge.served!r} another model; set it to null"
        raise ValueError(f"signals.self_judge asks the sampled policy, and {told}")


def labels_can_be_drawn(params: Any) -> None:
    if params.signals.refreshed and params.annotate.by == "simulated" and params.evaluate.gold == "none":
        rule = "the simulated annotator knows the quickstart's prompts only"
        remedy = "set annotate.by to people or judge (and annotate.reads)"
        raise ValueError(f"annotate.by = simulated, and evaluate.gold = none: {rule}; {remedy}")


def pairs_can_be_made(params: Any) -> None:
    rank, generate = params.rank, params.generate
    if rank.pairing == "across" and not generate.from_rival:
        told = "pairs completions of two checkpoints, and generate.from_rival = 0 samples from one; raise it"
        raise ValueError(f"rank.pairing = across {told}")
    if rank.pairing == "top_bottom" and 2 * rank.top_k > generate.n:
        told = f"best and as many worst are more than generate.n = {generate.n}; lower it or raise n"
        raise ValueError(f"rank.top_k = {rank.top_k} {told}")
    if generate.rows_per_shard < generate.n:
        told = f"holds no prompt's generate.n = {generate.n} completions; raise it"
        raise ValueError(f"generate.rows_per_shard = {generate.rows_per_shard} {told}")


def prompts_leave_room_for_answers(params: Any) -> None:
    prompt, answer, most = params.prompts.max_tokens, params.generate.max_new_tokens, params.dpo.max_tokens
    if prompt + answer > most:
        told = f"and generate.max_new_tokens = {answer} are over dpo.max_tokens = {most}"
        raise ValueError(
            f"prompts.max_tokens = {prompt} {told}, so pairs could not be trained on; lower one or raise it"
        )


def a_bound_on_the_kl_can_be_measured(params: Any) -> None:
    bounds = {"stop.max_kl": params.stop.max_kl, "select.max_kl": params.select.max_kl}
    given = [f"{name} = {bound}" for name, bound in bounds.items() if bound]
    if params.respond.temperature != 1.0 and given:
        rule = "only answers at temperature 1 estimate the policy's KL; set it to 1.0, or the rule to null"
        raise ValueError(f"respond.temperature = {params.respond.temperature} and {given[0]}: {rule}")


RULES = (
    sets_have_plain_names,
    sets_form_a_chain,
    bases_are_there_and_used,
    iterations_form_a_chain,
    iterations_name_policies_that_are_there,
    iterations_with_a_moving_reference,
    the_ranker_is_in_use,
    signals_have_what_they_read,
    the_pretrained_model_is_named,
    the_proxy_is_in_use,
    the_implicit_reward_is_of_a_policy,
    the_offline_set_is_read,
    the_judge_of_policies_is_asked,
    the_policy_can_judge_itself,
    labels_can_be_drawn,
    pairs_can_be_made,
    prompts_leave_room_for_answers,
    batches.can_be_shared,
    batches.are_seen_whole,
    a_bound_on_the_kl_can_be_measured,
)
