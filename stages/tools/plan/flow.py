"""What flows through the graph: tables and models; those that are there as they are, those to be made by a rule of the
stage that makes them.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from stages.guard import facts, memory
from stages.guard.facts import Shape, Table
from stages.tools.plan import published
from stages.tools.plan.graph import Stage, makers

ENDS_BEFORE = 0.6
"""Mean length of a completion as a share of generate.max_new_tokens, where no policy was sampled with this limit."""
KEPT_PAIRS = 0.9
"""Of a set of preferences after the filter, as in the paper, where no earlier run tells."""
DATA, POLICIES = Path("metrics/data.json"), Path("metrics/policy")
"""Accounts of an earlier run, in git."""


class Flow:
    """Tables and shapes by path. `anew` are the stages that would run; what the others wrote is read from its file."""

    def __init__(self, root: Path, stages: list[Stage], anew: set[str], params: Any, recorded: dict[str, dict]) -> None:
        self.root, self.anew, self.params, self.recorded = root, anew, params, recorded
        self.made = {path: each[0] for path, each in makers(stages).items() if path in each[0].outs}
        self.assumed: dict[str, None] = {}

    @cache  # noqa: B019, one of them lives as long as the command
    def table(self, path: str) -> Table:
        """Of a file that is there and stays, or by the rule of its stage."""
        stage = self.made.get(path)
        there = facts.table(self.root / path)
        if there and (stage is None or stage.name not in self.anew):
            return there
        if stage is None:
            return Table(0)
        rule = prepared if stage.module.startswith(SOURCES) else RULES.get(stage.module)
        return rule(self, stage, path) if rule else Table(0)

    @cache  # noqa: B019
    def shape(self, path: str) -> Shape | None:
        """Of a model: its config where it is there and stays, else by where it comes from."""
        stage = self.made.get(path)
        there = facts.shape(self.root / path)
        if there and (stage is None or stage.name not in self.anew):
            return there
        return self.shape_of(stage) if stage else self.shape(path.removesuffix("/half")) if "/half" in path else None

    def shape_of(self, stage: Stage) -> Shape | None:
        """Of what a stage brings or trains."""
        if stage.module in ("training.base", "training.pretrained"):
            key = stage.words["name"][0] if stage.module == "training.base" else ""
            named = self.params.bases[key].model if key else self.params.pretrained.model
            shape = facts.shape(self.root / named) or published.shape(named)
            if shape is None:
                self.assumed[f"nothing tells how large {named} is: taken for one of 8 billion weights"] = None
                return published.ARCHITECTURES["llama-3-8b"]
            return shape if key else memory.cut(shape, None, head=False)
        base, name = self.shape(stage.words["model"][0]), stage.module.rpartition(".")[2]
        layers = getattr(getattr(self.params, name), "layers", None)
        return memory.cut(base, layers, head=name != "reward_model") if base else None

    def raw(self, path: str) -> int:
        """Rows of raw data."""
        rows = published.raw_rows(self.root / path)
        if rows is None:
            self.assumed[f"a hub set in {path} whose rows nobody told: {published.UNKNOWN_ROWS:,}"] = None
        return published.UNKNOWN_ROWS if rows is None else rows

    def account(self, path: Path) -> dict[str, Any]:
        """A JSON file of an earlier run; empty where there is none."""
        there = self.root / path
        return json.loads(there.read_text(encoding="utf-8")) if there.exists() else {}

    def answer(self, path: str, stage: Stage) -> float:
        """Mean tokens of a completion: of an earlier run of the stage with the same limit, else a share of it."""
        limit = self.params.generate.max_new_tokens
        was = self.recorded.get(stage.name, {}).get("params", {}).get("params.yaml", {})
        there = facts.table(self.root / path)
        policy = stage.words["policy"][0].removeprefix("models/")
        known = self.account(POLICIES / f"{policy}.json").get(policy, {}).get("test", {}).get("tokens")
        if was.get("generate.max_new_tokens") == str(limit) and (there or known):
            return there.answer if there else known
        self.assumed[f"a completion has {ENDS_BEFORE:g} x generate.max_new_tokens = {limit} tokens on average"] = None
        return ENDS_BEFORE * limit


def prompts(flow: Flow, stage: Stage, path: str) -> Table:
    """Test and validation apart, the rest is the pool; that no row is dropped is assumed."""
    section, total = flow.params.prompts, flow.raw(stage.words["raw"][0])
    sizes = {"test": section.test, "validation": section.validation}
    rows = sizes.get(Path(path).stem, max(0, total - section.test - section.validation))
    raw, there = stage.words["raw"][0], facts.table(flow.root / path)
    is_of_it = raw in [dep["path"] for dep in flow.recorded.get(stage.name, {}).get("deps", [])]
    return Table(rows, there.prompt if there and is_of_it else texts(flow, raw))


def texts(flow: Flow, raw: str) -> float:
    """Mean tokens of a raw prompt: of a text file's rows, of a hub set by assumption."""
    path = flow.root / raw
    if path.suffix != ".jsonl":
        return published.PAIR_TOKENS
    with path.open("rb") as file:
        lines = file.readlines(2**18)
    return sum(map(len, lines)) / max(1, len(lines)) / facts.BYTES_PER_TOKEN


def prepared(flow: Flow, stage: Stage, path: str) -> Table:
    """A set of preferences: rows of the raw file, or the paper's count; tokens of an earlier run's account."""
    name, source = stage.words["name"][0], stage.module.rpartition(".")[2]
    raw = flow.root / stage.words["raw"][0]
    is_pin = raw.suffix == ".json"
    known = published.table_5(flow.root / "stages/data/sources" / f"{source}.py") if is_pin else None
    was = flow.account(DATA).get(name, {})
    tokens = [was.get(f"{part}_tokens", published.PAIR_TOKENS) for part in ("prompt", "chosen", "rejected")]
    return Table(known or flow.raw(stage.words["raw"][0]), tokens[0] + 2 * facts.PER_MESSAGE, sum(tokens[1:]) / 2)


def filtered(flow: Flow, stage: Stage, path: str) -> Table:
    """What was mixed before, and of this set as much as an earlier run kept, or the paper."""
    before, new = flow.table(stage.words["before"][0]), flow.table(stage.words["preferences"][0])
    was = flow.account(DATA).get(stage.words["name"][0], {})
    kept = was["pairs_kept"] / was["pairs_made"] if was.get("pairs_made") else KEPT_PAIRS
    wanted = float(stage.words["rows"][0])
    rows = kept * new.rows
    rows = min(rows, wanted) if wanted > 1 else rows * (wanted or 1.0)
    return joined(before, new._replace(rows=round(rows)))


def joined(one: Table, other: Table) -> Table:
    total = one.rows + other.rows
    mean = [(a * one.rows + b * other.rows) / max(1, total) for a, b in zip(one[1:3], other[1:3], strict=True)]
    return Table(total, *mean)


def parted(flow: Flow, stage: Stage, path: str) -> Table:
    mixed, share = flow.table(stage.words["mixed"][0]), flow.params.split.heldout_share
    return mixed._replace(rows=round(mixed.rows * (share if "heldout" in path else 1 - share)))


def demonstrations(flow: Flow, stage: Stage, path: str) -> Table:
    raw = stage.words["raw"][0]
    if raw in flow.made:
        return flow.table(raw)
    return Table(flow.raw(raw), published.PAIR_TOKENS, published.PAIR_TOKENS)


def batch(flow: Flow, stage: Stage, path: str) -> Table:
    return flow.table(stage.words["pool"][0])._replace(rows=flow.params.prompts.per_iteration)


def candidates(flow: Flow, stage: Stage, path: str) -> Table:
    asked, n = flow.table(stage.words["prompts"][0]), flow.params.generate.n
    return Table(asked.rows * n, asked.prompt, flow.answer(path, stage), n)


def responses(flow: Flow, stage: Stage, path: str) -> Table:
    both = joined(flow.table(stage.words["validation"][0]), flow.table(stage.words["test"][0]))
    answers = flow.params.respond.answers
    return Table(both.rows * answers, both.prompt, flow.answer(path, stage), answers)


def pairs(flow: Flow, stage: Stage, path: str) -> Table:
    """As many pairs as a prompt's completions are looked at in; that none is dropped is assumed."""
    scores, n, rank = flow.table(stage.words["scores"][0]), flow.params.generate.n, flow.params.rank
    each = {"all_pairs": n * (n - 1) // 2, "top_bottom": rank.top_k}.get(rank.pairing, 1)
    return Table(round(scores.rows / n * each), scores.prompt, scores.answer)


def offline(flow: Flow, stage: Stage, path: str) -> Table:
    train, wanted = flow.table(stage.words["train"][0]), flow.params.offline.pairs
    return train._replace(rows=train.rows if wanted is None else min(wanted, train.rows))


def history(flow: Flow, stage: Stage, path: str) -> Table:
    """The newest pairs, and those before that stay: all, D_off, or none."""
    new, section = flow.table(stage.words["pairs"][0]), flow.params.history
    before, maker = flow.table(stage.words["before"][0]), flow.made[stage.words["before"][0]]
    if maker.module == "pairs.history_start":
        stays = before if section.offline else Table(0)
    else:
        stays = before if section.keep == "all" else history_start(flow) if section.offline else Table(0)
    return joined(new, stays)


def history_start(flow: Flow) -> Table:
    path = next(path for path, stage in flow.made.items() if stage.module == "pairs.history_start")
    return flow.table(path)


def judged(flow: Flow, stage: Stage, path: str) -> Table:
    both = joined(flow.table(stage.words["heldout"][0]), flow.table(stage.words["bench"][0]))
    return Table(2 * both.rows, both.prompt, both.answer, 2)


def bench(flow: Flow, stage: Stage, path: str) -> Table:
    return Table(flow.raw(stage.words["raw"][0]), published.PAIR_TOKENS, published.PAIR_TOKENS)


def annotated(flow: Flow, stage: Stage, path: str) -> Table:
    before = flow.table(stage.words["before"][0])
    return before._replace(rows=before.rows + flow.params.annotate.pairs)


def questions(flow: Flow, stage: Stage, path: str) -> Table:
    """Of a benchmark, whose name the file has: with worked examples of 100 tokens each; a choice, where nothing is
    written, is of a few.
    """
    entry = flow.params.benchmarks[Path(path).stem]
    return Table(asked(flow, entry), 100.0 * (1 + entry.shots), entry.max_tokens or 8.0)


def chat_questions(flow: Flow, stage: Stage, path: str) -> Table:
    """An answer is of all turns."""
    entry = flow.params.chats[Path(path).stem]
    turns = 2 if entry.task == "mt_bench" else 1
    return Table(asked(flow, entry), published.PAIR_TOKENS, turns * ENDS_BEFORE * entry.max_tokens)


def asked(flow: Flow, entry: Any) -> int:
    there = next((flow.root / entry.raw).glob("questions.*"), entry.raw)
    return entry.questions or flow.raw(str(there))


def like(option: str) -> Callable[[Flow, Stage, str], Table]:
    """The rows of an input, with more columns."""
    return lambda flow, stage, path: flow.table(stage.words[option][0])


SOURCES = "data.sources."
RULES: dict[str, Callable[[Flow, Stage, str], Table]] = {
    "data.prompts": prompts,
    "data.filter": filtered,
    "data.split": parted,
    "data.demonstrations": demonstrations,
    "data.batch": batch,
    "sampling.generate": candidates,
    "sampling.respond": responses,
    "benchmarks.ask": questions,
    "benchmarks.answer": questions,
    "benchmarks.chats.questions": chat_questions,
    "benchmarks.chats.turns": chat_questions,
    "benchmarks.chats.verdicts": like("answers"),
    "pairs.rank": pairs,
    "pairs.offline": offline,
    "pairs.history_start": like("offline"),
    "pairs.history": history,
    "training.reference": like("pairs"),
    "signals.measure": like("responses"),
    "signals.judge": like("measures"),
    "signals.pairs_as_candidates": judged,
    "signals.annotate_start": like("train"),
    "signals.annotate": annotated,
    "evaluation.reward_bench": bench,
    **{
        f"signals.scorers.{name}": like("candidates")
        for name in ("reward_model", "preference_model", "judge", "implicit", "bag_of_words", "longer")
    },
    "signals.scorers.ensemble": like("members"),
}
"""The table that a stage writes to a path."""
