"""Write annotations.jsonl: SmolLM2's own answers in pairs, labelled by the simulated annotator, as a labelling tool
would export them.

Run     python -m data.raw.quickstart.make_annotations   (from the repository's root, after `dvc repro base`; about
        three minutes on two cores)
Reads   to_annotate.jsonl, models/base
Writes  one JSON object a line; the label is drawn from y ~ Ber(sigmoid(r*(A) - r*(B))), r* being
        stages/signals/annotator.py

The annotator perceives r*(A) - r*(B) + e with e ~ Logistic(0, 1): the sign is the label, which makes it exactly
Ber(sigmoid(r*(A) - r*(B))), and the size is how strong the preference feels, 1 (slight: under 1) to 3 (4 or more), as
such tools ask. So the strength is as noisy as the label. The blemishes are planted on purpose, for real exports have
them: an empty answer, records exported twice, a tie, the same pair labelled both ways, a line cut in two.
"""

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

from stages import rows
from stages.sampling import engine
from stages.signals import annotator

HERE = Path("data/raw/quickstart")
TEMPERATURES = [1.0, 0.7, 1.0, 0.7]
SEED = 2405
PAIRS = [(0, 1), (2, 3), (0, 3), (1, 2)]  # of the four samples
RUNTIME = SimpleNamespace(engine_sequences=128, engine_cpu_cache_gib=2, engine_memory_share=0.9, gpus_per_worker=1)
GENERATE = SimpleNamespace(max_new_tokens=64, thinking="keep")
PARAMS = SimpleNamespace(dtype="float32", seed=SEED, generate=GENERATE, runtime=RUNTIME)


def chosen_prompts() -> list[dict]:
    return [json.loads(line) for line in (HERE / "to_annotate.jsonl").read_text(encoding="utf-8").splitlines()]


def sampled(prompts: list[dict]) -> list[list[dict]]:
    """Four answers to each prompt, each with its own seed: completion and finished."""
    planned = [
        {
            "id": row["id"],
            "sample": k,
            "prompt": row["messages"],
            "temperature": t,
            "seed": engine.row_seed(SEED, row["id"], k),
        }
        for row in prompts
        for k, t in enumerate(TEMPERATURES)
    ]
    texts = [row["messages"] for row in prompts]
    worker = engine.sampler(Path("models/base"), texts, PARAMS, with_logprob=False)
    (made,) = rows.mapped([planned], worker, "make_annotations", len(planned))
    return [made[first : first + len(TEMPERATURES)] for first in range(0, len(made), len(TEMPERATURES))]


def record(number: int, row: dict, a: dict, b: dict, rng: random.Random) -> dict:
    """One labelled pair in the tool's form. The prompt that r* reads is what the users said."""
    said = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
    golds = [annotator.gold_reward(said, answer["completion"], answer["finished"]) for answer in (a, b)]
    perceived = golds[0] - golds[1] + logistic(rng)
    names = {"user": "human", "assistant": "assistant"}
    return {
        "id": number,
        "conversation": [{"from": names[m["role"]], "value": m["content"]} for m in row["messages"]],
        "responses": {"A": response(a), "B": response(b)},
        "annotation": {
            "annotator": "simulated",
            "choice": "A" if perceived > 0 else "B",
            "strength": strength(perceived),
        },
    }


def response(answer: dict) -> dict[str, str]:
    return {"text": answer["completion"], "finish_reason": "stop" if answer["finished"] else "length"}


def logistic(rng: random.Random) -> float:
    """A draw of Logistic(0, 1), by its inverse distribution function."""
    u = rng.random()
    return math.log(u / (1 - u))


def strength(perceived: float) -> int:
    return 1 + (abs(perceived) >= 1) + (abs(perceived) >= 4)


def blemish(records: list[dict]) -> list[str]:
    """The records as lines, with the faults of a real export among them; each fault is a record of its own, so no
    label is lost.
    """
    strong = [r for r in records if r["annotation"]["strength"] > 1]
    copies = [json.loads(json.dumps(strong[i])) for i in (3, 40, 77, 110, 150)]
    copies[0]["responses"]["B"]["text"] = "  "
    copies[2]["annotation"]["choice"] = "tie"
    contradiction = copies[3]["annotation"]
    contradiction["choice"] = "B" if contradiction["choice"] == "A" else "A"
    for k, copy in enumerate(copies):
        copy["id"] = 9000 + k
    lines = [json.dumps(r, ensure_ascii=False) for r in [*records, *copies]]
    lines.insert(200, lines[200][: len(lines[200]) // 2])
    return lines


def main() -> None:
    prompts, rng = chosen_prompts(), random.Random(SEED)
    records = []
    for row, four in zip(prompts, sampled(prompts), strict=True):
        records += [record(len(records) + k, row, four[a], four[b], rng) for k, (a, b) in enumerate(PAIRS)]
    (HERE / "annotations.jsonl").write_text("\n".join(blemish(records)) + "\n", encoding="utf-8")
    print(f"make_annotations: {len(records)} labelled pairs of {len(prompts)} prompts")


if __name__ == "__main__":
    main()
