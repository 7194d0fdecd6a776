"""The edits that tests/trust/invalidation.py makes, one at a time, and what each must rerun."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Change = Callable[[Path], Any]


class Edit(NamedTuple):
    """An edit, the stages that must run (with all that follows from them), whether stages/ or the lock were touched,
    and settings that put more in use before it.
    """

    change: Change
    roots: list[str]
    code: bool = False
    given: tuple[str, ...] = ()


def sub(file: str, old: str, new: str) -> Change:
    """Replace the first `old` of a file. Raises ValueError when it is not there: an edit that edits nothing would
    prove nothing.
    """

    def change(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        if old not in text:
            raise ValueError(f"{file} has no {old!r}")
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def put(file: str, text: str) -> Change:
    """A file, new or in place of another."""
    return lambda root: (root / file).write_text(text, encoding="utf-8")


def ranked_by(scorer: str) -> Change:
    """Another ranker: its name, and that it is in use."""
    return param("rank.scorer", scorer, f"signals.{scorer}=[{scorer}]")


def all_of(*changes: Change) -> Change:
    return lambda root: [change(root) for change in changes]


def param(key: str, value: str, *more: str) -> Change:
    """Set a leaf of params.yaml by the composer, as a user does; `more` settings in the form key=value."""
    words = [sys.executable, "-m", "stages.tools.profile", "quickstart", f"{key}={value}", *more]
    return lambda root: subprocess.run(words, cwd=root, check=True, capture_output=True)


T1 = "- {samples: pi1, makes: pi2, start: pi1, reference: pi0, rival: pi0}\n"
T2 = "- {samples: pi2, makes: pi3, start: pi2, reference: pi0, rival: pi1}\n"


PAIR = '{"prompt": "q", "chosen": "c", "rejected": "r"}\n'
CHOICE = '{"id": "1", "prompt": "q", "chosen": ["c"], "rejected": ["r"], "subset": "Focus"}\n'
RAW, PROMPTS = "data/raw/quickstart/annotations.jsonl", "data/raw/quickstart/prompts.jsonl"
RENAMED = "data/raw/quickstart/labels.jsonl"
MINE = (
    "  mine: {after: quickstart, source: own, raw: data/raw/mine.jsonl, rule: {}, filter: {min_margin: 0, rows: 0}}\n"
)
OWN = f"{{own: {{source: quickstart, raw: {RAW}, rule: {{}}, filter: {{min_margin: 2, rows: 0}}}}}}"
TRAINED = ["sft", "reward_model@*", "dpo*"]
MINE_TOO = "{mine: {task: own, raw: data/raw/quickstart, questions: 9, shots: 0, chat: false, max_tokens: 8}}"
DUEL = (
    "{duel: {task: alpaca_eval, raw: data/raw/quickstart, questions: 9, baseline: answer, max_tokens: 8, "
    "words: data/raw/referee/alpaca_eval.jinja}}"
)
CODE = True  # stages/ or the lock are touched, so the fingerprint runs
EDITS: dict[str, Edit] = {
    "`seed`": Edit(param("seed", "7"), ["sft", "reward_model@*", "generate@*", "dpo*", "respond*@*", "evaluate*@*"]),
    "`dtype`": Edit(param("dtype", "bfloat16"), ["base@*"]),
    "`bases.base.revision`": Edit(param("bases.base.revision", "0.1.3"), ["base@*"]),
    "`bases.base.template_settings`": Edit(
        param("bases.base.template_settings", "{enable_thinking: false}"), ["base@*"]
    ),
    "a chat template of one's own": Edit(put("data/raw/templates/base/mine.jinja", "{{ messages }}"), ["base@*"]),
    "`prompts.max_tokens`": Edit(param("prompts.max_tokens", "400"), ["prompts"]),
    "`split.heldout_share`": Edit(param("split.heldout_share", "0.25"), ["split"]),
    "`filter.max_tokens`": Edit(param("filter.max_tokens", "500"), ["filter@*"]),
    "a set's `min_margin` in the mix": Edit(param("mix.quickstart.filter.min_margin", "1"), ["filter@quickstart"]),
    "one more set in the mix": Edit(
        all_of(put("data/raw/mine.jsonl", PAIR), sub("params.yaml", "mixed: quickstart", f"{MINE}mixed: mine")),
        ["prepare@mine", "filter@mine", "split", "audit"],
    ),
    "the source `stages/data/sources/quickstart.py`": Edit(
        sub("stages/data/sources/quickstart.py", "import polars", "import os\nimport polars"),
        ["prepare@quickstart"],
        CODE,
    ),
    "one more set to keep out": Edit(put("data/raw/benchmarks/new.jsonl", '{"question": "why?"}\n'), ["phrases"]),
    "one more benchmark": Edit(param("benchmarks", MINE_TOO), ["ask@*", "answer*@*", "grade*@*", "benchmark_table@*"]),
    "one more chat benchmark": Edit(
        param("chats", DUEL), ["ask_chat@*", "converse*@*", "referee*@*", "chat_scores*@*", "chat_table@*"]
    ),
    "a benchmark's grader": Edit(
        sub("stages/benchmarks/grade.py", "float(value)", "float(value + 0)"),
        ["grade*@*"],
        CODE,
        (f"benchmarks={MINE_TOO}",),
    ),
    "another referee": Edit(
        param("referee.served", "another", f"chats={DUEL}"),
        ["referee*@*", "chat_scores*@*"],
        given=(f"chats={DUEL}",),
    ),
    "how a referee's verdict is read": Edit(
        sub("stages/benchmarks/chats/scores.py", "LOWEST, HIGHEST = 1", "LOWEST, HIGHEST = 0"),
        ["chat_scores*@*"],
        CODE,
        (f"chats={DUEL}",),
    ),
    "`prompts.test` (the evaluation prompts)": Edit(param("prompts.test", "65"), ["prompts"]),
    "`prompts.per_iteration`": Edit(param("prompts.per_iteration", "30"), ["batch@*"]),
    "`sft.learning_rate`": Edit(param("sft.learning_rate", "1.0e-5"), ["sft"]),
    "`reward_model.layers`": Edit(param("reward_model.layers", "10"), ["reward_model@*"]),
    "`generate.n`": Edit(param("generate.n", "6"), ["generate@*", "rank@*"]),
    "`generate.max_new_tokens`": Edit(param("generate.max_new_tokens", "60"), ["generate@*", "respond*@*"]),
    "`rank.length_penalty`": Edit(param("rank.length_penalty", "0.001"), ["rank@*"]),
    "`generate.from_rival`": Edit(param("generate.from_rival", "4"), ["generate@*", "rank@*"]),
    "`rank.pairing`": Edit(param("rank.pairing", "all_pairs"), ["rank@*"]),
    "`rank.scorer` to the preference model": Edit(
        ranked_by("preference_model"), ["preference_model@*", "*_preference_model@*", "rank@*", "report"]
    ),
    "`rank.scorer` to a pretrained model": Edit(
        param("rank.scorer", "pretrained", "signals.pretrained=[pretrained]", "pretrained.model=own"),
        ["pretrained@*", "*_pretrained@*", "rank@*", "report"],
    ),
    "a pretrained model as ranker and proxy, none trained": Edit(
        param(
            "rank.scorer",
            "pretrained",
            "signals.pretrained=[pretrained]",
            "pretrained.model=another",
            "signals.reward_model=[]",
            "evaluate.proxy=pretrained",
        ),
        ["pretrained@*", "*_pretrained@*", "measure*@*", "rank@*", "report"],
    ),
    "`rank.scorer` to the judge": Edit(ranked_by("judge"), ["*_judge@*", "rank@*", "report"]),
    "`rank.scorer` to the ensemble": Edit(
        ranked_by("ensemble"), ["reward_member@*", "*_member@*", "*_ensemble@*", "rank@*", "report"]
    ),
    "`rank.scorer` to the policy's own verdicts": Edit(ranked_by("self_judge"), ["*_self_judge@*", "rank@*", "report"]),
    "`rank.scorer` to refreshed reward models": Edit(
        ranked_by("refreshed"),
        ["annotate_start@*", "annotate@*", "refresh_reward_model@*", "*_refreshed@*", "rank@*", "report"],
    ),
    "one more signal, to be measured beside the ranker": Edit(
        param("signals.longer", "[longer]"), ["rate_longer@*", "score_longer@*", "signal_longer@*"]
    ),
    "`judge.top_logprobs`, `ensemble.rule`, the judge's template, while neither ranks": Edit(
        all_of(
            param("judge.top_logprobs", "5"),
            sub("params.yaml", "rule: mean", "rule: worst"),
            sub("data/raw/judge.jinja", "serves", "helps"),
        ),
        [],
    ),
    "one more file of judged pairs": Edit(put("data/raw/reward_bench/new.jsonl", PAIR), ["reward_bench"]),
    "RewardBench 2": Edit(put("data/raw/reward_bench_2/new.jsonl", CHOICE), ["reward_bench_2"]),
    "`evaluate.confidence`": Edit(param("evaluate.confidence", "0.9"), ["evaluate*@*", "signal_*@*", "report"]),
    "`evaluate.reads` to judged answers": Edit(
        param("evaluate.reads", "judged_by", "evaluate.judge=[judge]"), ["judge@*", "judge_first@*", "evaluate*@*"]
    ),
    "`offline.pairs`": Edit(param("offline.pairs", "20"), ["offline"]),
    "`history.keep`": Edit(param("history.keep", "all"), ["history@*"]),
    "`dpo.beta`": Edit(param("dpo.beta", "0.25"), ["dpo*"]),
    "`dpo.loss`": Edit(param("dpo.loss", "[ipo]"), ["dpo*"]),
    "`dpo.lora_rank`": Edit(param("dpo.lora_rank", "8"), ["dpo*"]),
    "`dpo.quantized`, over adapters": Edit(param("dpo.quantized", "true", "dpo.lora_rank=8"), ["reference*", "dpo*"]),
    "the last iteration's `start`": Edit(sub("params.yaml", T1, T1.replace("start: pi1", "start: pi0")), ["dpo@t1"]),
    "the last iteration's `reference` (stepwise DPO)": Edit(
        sub("params.yaml", T1, T1.replace("reference: pi0", "reference: pi1")), ["reference@t1", "dpo@t1"]
    ),
    "`offline.train` to a set of its own": Edit(
        param("offline.train", "data/offline/mixed.parquet", f"offline.set={OWN}"),
        ["prepare_offline@*", "filter_offline@*", "offline"],
    ),
    "`stop.max_kl`": Edit(param("stop.max_kl", "50.0"), ["stop@*", "select"]),
    "`select.max_kl`": Edit(param("select.max_kl", "50.0"), ["select"]),
    "`dpo.learning_rate`": Edit(param("dpo.learning_rate", "1.0e-5"), ["dpo*"]),
    "`respond.temperature`": Edit(param("respond.temperature", "0.5"), ["respond*@*"]),
    "`evaluate.resamples`": Edit(param("evaluate.resamples", "500"), ["evaluate*@*"]),
    "`examples.by_hash`": Edit(param("examples.by_hash", "2"), ["examples@*"]),
    "`runtime.*`": Edit(
        all_of(param("runtime.micro_batch_rows", "1"), sub("params.yaml", "threads: 2", "threads: 1")), []
    ),
    "one more iteration": Edit(sub("params.yaml", T1, T1 + T2), ["stop@t2", "batch@t2", "select", "report"]),
    "one iteration less": Edit(sub("params.yaml", T1, ""), ["select", "report"]),
    "`generate.rows_per_shard`": Edit(param("generate.rows_per_shard", "128"), ["generate@*"]),
    "an edited raw row, their number the same": Edit(sub(RAW, '"choice": "A"', '"choice": "B"'), ["prepare@*"]),
    "the raw file renamed": Edit(
        all_of(lambda r: (r / RAW).rename(r / RENAMED), sub("params.yaml", RAW, RENAMED)),
        ["prepare@*"],
    ),
    "an edited prompt": Edit(sub(PROMPTS, "short, friendly", "short, kind"), ["prompts"]),
    "`touch` of the raw data": Edit(lambda r: (r / RAW).touch(), []),
    "the README, a description, a plot": Edit(
        all_of(
            sub("README.md", "RLHF", "rlhf"),
            sub("dvc.yaml", "desc: the", "desc: The"),
            sub("dvc.yaml", "x: step", "x: loss"),
        ),
        [],
    ),
    "a comment in `stages/sampling/generate.py`": Edit(
        sub("stages/sampling/generate.py", "    own = params", "    # a remark\n    own = params"), [], CODE
    ),
    "a docstring and blank lines in `stages/training/harness.py`": Edit(
        all_of(
            sub("stages/training/harness.py", '"""What', '"""\n\nWhat'),
            sub("stages/training/harness.py", "\n\n\ndef", "\n\n\n\ndef"),
        ),
        [],
        CODE,
    ),
    "the body of `stages/pairs/rank.py`": Edit(
        sub("stages/pairs/rank.py", "import ", "import os\nimport "), ["rank@*"], CODE
    ),
    "the helper `stages/sampling/engine.py`": Edit(
        sub("stages/sampling/engine.py", 'temperature=row["temperature"]', 'temperature=1 * row["temperature"]'),
        ["generate@*", "respond*@*"],
        CODE,
    ),
    "the helper `stages/signals/forward.py`": Edit(
        sub("stages/signals/forward.py", "import math", "import os\nimport math"),
        ["score_reward_model@*", "rate_reward_model@*", "reference*", "measure*@*"],
        CODE,
    ),
    "the helper `stages/training/harness.py`": Edit(
        sub("stages/training/harness.py", '"cosine"', '"linear"'), TRAINED, CODE
    ),
    "a helper renamed": Edit(
        all_of(
            lambda r: (r / "stages/sampling/engine.py").rename(r / "stages/sampling/vllm_engine.py"),
            *(
                sub(f"stages/sampling/{name}.py", "import engine", "import vllm_engine as engine")
                for name in ("generate", "respond")
            ),
        ),
        ["generate@*", "respond*@*"],
        CODE,
    ),
    "the template `chatml.jinja`": Edit(
        sub("stages/training/chatml.jinja", "<|im_end|>", "<|im_end|> "), ["base@*"], CODE
    ),
    "the grader's data `annotator_topics.json`": Edit(
        sub("stages/signals/annotator_topics.json", '"honey"', '"comb"'),
        ["evaluate*@*", "examples@*", "signal_*@*"],
        CODE,
    ),
    "the guard `stages/guard/run.py`, a new module": Edit(
        all_of(
            sub("stages/guard/run.py", "import os", "import re\nimport os"),
            put("stages/new.py", "x = 1\n"),
        ),
        [],
        CODE,
    ),
    "`peft` in the lock": Edit(sub("requirements.lock", "\npeft==", "\npeft==9."), ["dpo*", "report"], CODE),
    "`bitsandbytes` in the lock": Edit(
        sub("requirements.lock", "\nbitsandbytes==", "\nbitsandbytes==9."), ["reference*", "dpo*", "report"], CODE
    ),
    "`trl` in the lock": Edit(sub("requirements.lock", "\ntrl==", "\ntrl==9."), [*TRAINED, "report"], CODE),
    "`vllm` in the lock": Edit(
        sub("requirements.lock", "\nvllm==", "\nvllm==9."), ["generate@*", "respond*@*", "report"], CODE
    ),
    "`matplotlib` in the lock": Edit(sub("requirements.lock", "\nmatplotlib==", "\nmatplotlib==9."), ["report"], CODE),
    "`ruff` in the lock": Edit(sub("requirements.lock", "\nruff==", "\nruff==9."), ["report"], CODE),
    "`httpx2` in the lock": Edit(sub("requirements.lock", "\nhttpx2==", "\nhttpx2==9."), ["report"], CODE),
    "a policy edited by hand, another deleted": Edit(
        all_of(put("models/pi1", "x"), lambda r: (r / "models/offline").unlink()), []
    ),
}
