"""Rank answers by comparing them two at a time: which are compared, in both orders, and what becomes of the verdicts.

The scorers `preference_model` and `judge` share it; how a question is put is theirs.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import pyarrow as pa

from stages import chat, rows
from stages.signals import batching, forward, pairwise

Question = tuple[str, list[chat.Message], str, str]
"""The prompt's id, the prompt, the answer shown as A, the answer shown as B."""
Ask = Callable[[list[Question]], list[float | None]]
"""P(A is better) of each question; None where no verdict could be read."""
COLUMNS = pa.schema(
    [
        ("reward", pa.float64()),
        ("compared", pa.int32()),
        ("unreadable", pa.int32()),
        ("position_bias", pa.float64()),
        ("first_position", pa.float64()),
    ]
)
LEAST = 1e-6  # a verdict is never taken for surer than this


class Standing(NamedTuple):
    """What the comparisons say of one answer.

    reward          a win rate, or log-odds against the prompt's first answer; None where no verdict could be read
    compared        comparisons that counted for it
    unreadable      comparisons that had no verdict in one order or both
    position_bias   mean |P(A | i, j) - (1 - P(A | j, i))| over them: 0 for a judge whom the order does not move
    first_position  mean P(A) over both orders: 0.5 for a judge who does not favour the place
    """

    reward: float | None
    compared: int
    unreadable: int
    position_bias: float | None
    first_position: float | None


def both_orders(ask: Ask, asked: list[tuple[dict, dict]]) -> list[tuple[float, float] | None]:
    """(P(A | i, j), P(A | j, i)) of each two candidates; None where either order has no verdict."""
    questions = [
        (i["id"], i["prompt"], a["completion"], b["completion"]) for i, j in asked for a, b in ((i, j), (j, i))
    ]
    verdicts = ask(questions) if questions else []
    pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
    return [None if straight is None or swapped is None else (straight, swapped) for straight, swapped in pairs]


def preferred(verdict: tuple[float, float]) -> float:
    """P(i is better than j), the mean of both orders."""
    return (verdict[0] + 1 - verdict[1]) / 2


def log_odds(p: float) -> float:
    p = min(max(p, LEAST), 1 - LEAST)
    return math.log(p / (1 - p))


def standing(reward: float | None, verdicts: list[tuple[float, float] | None]) -> Standing:
    read = [v for v in verdicts if v is not None]
    bias, first = [abs(v[0] + v[1] - 1) for v in read], [(v[0] + v[1]) / 2 for v in read]
    means = [sum(values) / len(read) if read else None for values in (bias, first)]
    return Standing(reward, len(read), len(verdicts) - len(read), *means)


def all_pairs(group: list[dict]) -> Iterator[tuple[int, int]]:
    """n (n - 1) / 2 comparisons of a group's answers."""
    return ((i, j) for i in range(len(group)) for j in range(i + 1, len(group)))


def by_win_rate(groups: list[list[dict]], ask: Ask) -> list[list[Standing]]:
    """Every two answers of a prompt are compared: the reward is the mean probability to win, in [0, 1].

    n (n - 1) questions for n answers.
    """
    places = [(g, i, j) for g, group in enumerate(groups) for i, j in all_pairs(group)]
    verdicts = both_orders(ask, [(groups[g][i], groups[g][j]) for g, i, j in places])
    wins: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    heard: list[list[list]] = [[[] for _ in group] for group in groups]
    for (g, i, j), verdict in zip(places, verdicts, strict=True):
        heard[g][i].append(verdict)
        heard[g][j].append(verdict)
        if verdict is not None:
            wins[g][i].append(preferred(verdict))
            wins[g][j].append(1 - preferred(verdict))
    return [
        [standing(sum(w) / len(w) if w else None, h) for w, h in zip(wins[g], heard[g], strict=True)]
        for g in range(len(groups))
    ]


def by_tournament(groups: list[list[dict]], ask: Ask) -> list[list[Standing]]:
    """Each answer meets the best one so far; the winner goes on. 2 (n - 1) questions for n answers.

    The reward is on one scale of log-odds, as if Bradley and Terry's model held: the champion's, plus the log-odds by
    which the challenger beats it. The tournament's winner has the highest reward. A challenger without a verdict has
    none, and the champion stays.
    """
    made = [[standing(0.0, [])] for _ in groups]
    champions = [0] * len(groups)
    for k in range(1, max(map(len, groups), default=0)):
        playing = [g for g, group in enumerate(groups) if k < len(group)]
        verdicts = both_orders(ask, [(groups[g][k], groups[g][champions[g]]) for g in playing])
        for g, verdict in zip(playing, verdicts, strict=True):
            ahead = None if verdict is None else log_odds(preferred(verdict))
            reward = None if ahead is None else (made[g][champions[g]].reward or 0.0) + ahead
            made[g].append(standing(reward, [verdict]))
            champions[g] = k if ahead is not None and ahead > 0 else champions[g]
    return made


RANKINGS = {"all_pairs": by_win_rate, "tournament": by_tournament}


def rank(candidates: list[dict], ask: Ask, ranking: str) -> list[Standing]:
    """The standing of each candidate (id, sample, prompt, completion) among those of its prompt, in their order.

    With one answer, or where no comparison with the tournament's first answer could be read, a reward compares
    nothing: it is None.
    """
    places: dict[str, list[int]] = {}
    for place, row in enumerate(candidates):
        places.setdefault(row["id"], []).append(place)
    groups = list(places.values())
    standings = RANKINGS[ranking]([[candidates[place] for place in group] for group in groups], ask)
    found: list[Standing] = [standing(None, [])] * len(candidates)
    for group, made in zip(groups, standings, strict=True):
        alone = not any(s.compared for s in made)
        for place, s in zip(group, made, strict=True):
            found[place] = s._replace(reward=None) if alone else s
    return found


class Asker(Protocol):
    """What a judge is; pickled, it makes the same judge elsewhere."""

    def load(self) -> Ask: ...


@dataclass(frozen=True)
class Ranker:
    """A worker: candidates of whole prompts to their `Standing`."""

    asker: Asker
    ranking: str
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        ask = self.asker.load()

        def standings(candidates: list[dict], tick: rows.Tick) -> list[dict]:
            made = rank(candidates, ask, self.ranking)
            return [row | each._asdict() for row, each in zip(candidates, made, strict=True)]

        return standings


@dataclass(frozen=True)
class Local:
    """A model on this machine, asked for p_A / (p_A + p_B) of the token behind the assistant header.

    `question` puts it into words, and can be pickled. One that is longer than the model's context has no verdict.
    """

    model: Path
    question: Callable[[Question], list[chat.Message]]
    dtype: str
    layout: batching.Layout

    def load(self) -> Ask:
        tokenizer = chat.load_tokenizer(self.model)
        odds = forward.next_token_odds(self.model, pairwise.letters(tokenizer), self.dtype, self.layout)

        def ask(questions: list[Question]) -> list[float | None]:
            asked = [chat.prompt_ids(tokenizer, self.question(question)) for question in questions]
            return odds(asked, [prompt_id for prompt_id, *_ in questions])

        return ask
