"""What a stage computes: tokens and floating-point operations, by its tables, its models and its params alone.

So the same function counts a run that was and one that would be. A product of a token with a weight is two operations;
a token's forward pass takes two a weight, the backward pass four more (Kaplan et al. 2020, arXiv 2001.08361, section
2.1: 2 N and 6 N), attention over the tokens before it 2 x layers x width of the heads x length.
"""

from typing import Any, NamedTuple

from stages.guard import memory
from stages.guard.facts import Shape, Table, block

QUESTION = 60  # tokens of a judge's template around prompt and answers

TRAINING = {
    "training.sft": "sft", "training.reward_model": "reward_model", "training.preference_model": "preference_model",
    "training.dpo": "dpo",
}  # fmt: skip
SAMPLING = {"sampling.generate", "sampling.respond", "benchmarks.answer", "benchmarks.chats.turns"}
SCORING = {"training.reference", "signals.measure", "signals.scorers.reward_model", "signals.scorers.implicit"}
COMPARING = {"signals.judge", "signals.scorers.judge", "signals.scorers.preference_model"}
REFEREE = "benchmarks.chats.verdicts"
BRINGING = {"training.base", "training.pretrained"}
WITH_MODELS = {*TRAINING, *SAMPLING, *SCORING, *COMPARING, *BRINGING, REFEREE}


class Case(NamedTuple):
    """A run of a stage, past or to come: its module; of every option its tables or shapes; leaves of params.yaml; the
    layout of `runtime`.
    """

    module: str
    tables: dict[str, Table]
    shapes: dict[str, Shape]
    params: dict[str, Any]
    runtime: dict[str, Any]


class Work(NamedTuple):
    """`kind` is train, sample, score, bring or rows. `tokens` are those that are learnt from, written or read; `flop`
    counts all passes; `rows` are those of the largest table; `passes` are forward passes over so few rows that each has
    a price of its own; `devices` are in use at a time.
    """

    kind: str
    tokens: float = 0.0
    flop: float = 0.0
    rows: int = 0
    passes: float = 0.0
    devices: int = 1

    @property
    def units(self) -> float:
        """What seconds grow with."""
        return self.flop or self.rows


def of(case: Case) -> Work:
    """Raises KeyError where a past run did not write down what it takes."""
    if case.module in TRAINING:
        return training(case, TRAINING[case.module])
    if case.module in SAMPLING:
        return sampling(case)
    if case.module in SCORING:
        return scoring(case)
    if case.module in COMPARING:
        return comparing(case)
    if case.module == REFEREE:
        return judging(case)
    if case.module in BRINGING:
        return Work("bring", devices=0)
    return Work("rows", rows=max((table.rows for table in case.tables.values()), default=0), devices=0)


def forward(shape: Shape, tokens: float, length: float, head: float = 1.0) -> float:
    """FLOP of one pass over so many tokens in rows of `length`; the head on a share of them."""
    attention = 2 * shape.layers * shape.heads * shape.head_dim * length
    products = 2 * shape.layers * block(shape) + head * 2 * shape.vocabulary * shape.hidden
    return tokens * (products + attention)


def training(case: Case, section: str) -> Work:
    """Forward and backward passes over every row in every epoch; checkpointing adds a forward pass, weights that are
    frozen under an adapter take one off.
    """
    rows, tokens, length = trained_rows(case, section)
    epochs, has_head = case.params[f"{section}.epochs"], section != "reward_model"
    shape = memory.cut(case.shapes["model"], case.params.get(f"{section}.layers"), has_head)
    passes = 3 + case.runtime["gradient_checkpointing"] - bool(section == "dpo" and case.params["dpo.lora_rank"])
    if section == "dpo" and ("kto" in case.params["dpo.loss"] or case.params["dpo.ld_alpha"] is not None):
        passes += 1  # these look at the reference too
    flop = epochs * passes * forward(shape, tokens, length, float(has_head))
    return Work("train", epochs * tokens, flop, rows, devices=case.runtime["processes"])


def trained_rows(case: Case, section: str) -> tuple[int, float, float]:
    """Rows of an epoch, their tokens, and the length of one sequence; packed ones are masked, and computed whole."""
    table = first(case, "demonstrations", "train", "history")
    rows, both = table.rows, table.prompt + table.answer
    packed = case.params[f"{section}.max_tokens"] if case.params.get(f"{section}.packing") else 0.0
    if section == "sft":
        wanted = case.params["sft.rows"]
        rows = rows if wanted is None else min(rows, wanted)
        return rows, rows * both, packed or both
    if section == "preference_model":
        length = QUESTION + table.prompt + 2 * table.answer
        return rows, rows * length, packed or length
    return rows, 2 * rows * both, both


def sampling(case: Case) -> Work:
    """Every prompt is read once, whatever the number of its answers: the engine keeps its keys and values."""
    made = first(case, "candidates", "responses", "answers")
    written, length = made.rows * made.answer, made.prompt + made.answer / 2
    read = made.rows / made.group * made.prompt
    flop = forward(case.shapes["policy"], written + read, length, head=written / max(1.0, written + read))
    return Work("sample", written, flop, made.rows, devices=case.runtime["workers"] * case.runtime["gpus_per_worker"])


def scoring(case: Case) -> Work:
    """Forward passes of every model over every row; a scorer computes a prompt once for all its answers."""
    table = first(case, "pairs", "responses", "candidates")
    rows = table.rows * (2 if case.module == "training.reference" else 1)
    by_prompts = case.module.startswith("signals.scorers")
    prompts = rows / table.group if by_prompts else rows
    answers, length = rows * table.answer, table.prompt + table.answer
    tokens = answers + prompts * table.prompt
    of_answers = answers / max(1.0, tokens)  # the head reads no prompt, and a reward model has none
    read = {name: case.shapes[name] for name in ("reward", "policy", "model") if name in case.shapes}
    if case.module == "signals.scorers.implicit" and case.params["implicit.form"] != "ratio":
        read = {"policy": read["policy"]}  # only the ratio asks the reference
    flop = sum(forward(shape, tokens, length, of_answers * (name != "reward")) for name, shape in read.items())
    return Work("score", tokens * len(read), flop, rows, 2 * prompts * len(read) * by_prompts, case.runtime["workers"])


def comparing(case: Case) -> Work:
    """Questions of a prompt and two answers, each in both orders, which share the prompt: of an answer and pi_0's, or
    of what a ranking compares. A judge that is served elsewhere costs nothing here.
    """
    table = first(case, "measures", "candidates")
    n = max(1, round(table.group))
    ranking = case.params.get("pairwise.ranking")
    each = 2 * n if ranking is None else 2 * (n - 1) if ranking == "tournament" else n * (n - 1)
    questions = table.rows / n * each
    if case.params.get("judge.served"):
        return Work("rows", rows=table.rows, devices=0)
    length = QUESTION + table.prompt + 2 * table.answer
    tokens = questions * (length - (QUESTION + table.prompt) / 2)
    shape = next(case.shapes[name] for name in ("preference", "model") if name in case.shapes)
    flop = forward(shape, tokens, length, head=1 / length)
    return Work(
        "score", tokens, flop, table.rows, questions, case.runtime["workers"]
    )  # two of one prompt, and what they begin with


def judging(case: Case) -> Work:
    """The referee's questions, two for each of a chat benchmark (AlpacaEval asks one), which show two answers; it
    writes as much as it may, and nothing where it weighs two letters. One that is served elsewhere costs nothing here.
    """
    table = first(case, "answers")
    if case.params["referee.served"]:
        return Work("rows", rows=table.rows, devices=0)
    asked, written = QUESTION + table.prompt + 2 * table.answer, case.params.get("referee.max_tokens", 0)
    verdicts, gpus = 2 * table.rows, case.runtime["workers"] * case.runtime["gpus_per_worker"]
    flop = forward(case.shapes["model"], verdicts * (asked + written), asked, head=written / (asked + written))
    if written:
        return Work("sample", verdicts * written, flop, table.rows, devices=gpus)
    return Work("score", verdicts * asked, flop, table.rows, devices=gpus)


def first(case: Case, *names: str) -> Table:
    """The table of the first of these options that the stage has."""
    return next(case.tables[name] for name in names if name in case.tables)
