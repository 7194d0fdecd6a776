"""Draw the results: a table for the README, rows for `dvc plots`, and one HTML page that needs no network.

Reads   table: policy -> numbers; selected: metrics of `select`; ranker: metrics of `signal`, named by the scorer that
        ranked; sets: the audit of the preferences; prompts: row account
Writes  markdown: the result table; rows: one CSV line per policy; page: HTML with the pictures inside it
Params  evaluate.confidence, of the intervals
"""

import csv
import html
import json
from pathlib import Path
from typing import Any

from stages.evaluation import html_pages

NAMES = {"pi0": "π0 (SFT)", "offline": "offline DPO"}


def label(policy: str) -> str:
    return NAMES.get(policy, f"π{policy.removeprefix('pi')}")


def bounded(numbers: dict[str, Any], name: str, form: str) -> str:
    """A quantity and its interval; empty where the profile has no gold reward, or no judge."""
    if name not in numbers:
        return ""
    low, high = numbers[f"{name}_interval"]
    return f"{numbers[name]:{form}} [{low:.2f}, {high:.2f}]"


def cells(policy: str, numbers: dict[str, Any]) -> list[str]:
    """One row of the result table, every column of COLUMNS."""
    n = numbers["test"]
    wins = f"{n['win_rate']:.0%}" if "win_rate" in n else ""
    over_pi0 = [bounded(n, "gain", "+.2f"), wins, bounded(n, "judge_win_rate", ".2f")]
    gain, wins, judge = ["", "", ""] if policy == "pi0" else over_pi0
    over, judge_over = (
        ["", ""]
        if policy in ("pi0", "offline")
        else [bounded(n, name, "+.2f") for name in ("over_offline", "judge_over_offline")]
    )
    shown = [
        f"{n['proxy_reward']:.2f}",
        f"{n['tokens']:.0f}",
        f"{n['finished']:.0%}",
        f"{n['kl']:.2f}".replace("-0.00", "0.00"),
    ]
    return [label(policy), bounded(n, "gold_reward", ".2f"), gain, over, wins, judge, judge_over, *shown]


COLUMNS = [
    "policy", "gold reward", "gain over π0", "gain over offline", "wins over π0", "judge prefers it to π0", "judge: over offline", "proxy", "tokens",
    "finished", "KL to π0",
]  # fmt: skip


def results(table: dict[str, Any], confidence: float) -> tuple[list[str], list[list[str]]]:
    """The result table without the columns that this profile has no numbers for; the first interval says how sure it
    is.
    """
    lines = [cells(policy, numbers) for policy, numbers in table.items()]
    kept = [k for k in range(len(COLUMNS)) if any(line[k] for line in lines)]
    header = [COLUMNS[k] for k in kept]
    if "[" in lines[-1][kept[1]]:
        header[1] += f" [{percent(confidence)}]"
    return header, [[line[k] for k in kept] for line in lines]


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def flat(policy: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """One policy as plain columns: an interval becomes two columns, low and high."""
    row: dict[str, Any] = {"policy": policy}
    for name, value in numbers["test"].items():
        row |= (
            {name.replace("interval", "low"): value[0], name.replace("interval", "high"): value[1]}
            if isinstance(value, list)
            else {name: value}
        )
    return row


def verdict(table: dict[str, Any], selected: str, confidence: float) -> str:
    """What the intervals allow to be said, in words: of the gold reward, or else of the judge's preference, where a
    half is neither way.
    """
    n, told = table[selected]["test"], f"Selected on validation: {label(selected)}"
    if "gain" in n:
        bounds, by = [n["gain_interval"], n["over_offline_interval"]], f"by paired {percent(confidence)} intervals"
    elif "judge_win_rate" in n:
        bounds = [[bound - 0.5 for bound in n["judge_win_rate_interval"]], n["judge_over_offline_interval"]]
        by = f"by {percent(confidence)} intervals of the judge's preference"
    else:
        return f"{told}. There is no gold reward and no judge in this profile."
    said = [f"{against(bound)} {other}" for bound, other in zip(bounds, ("π0", "offline DPO"), strict=True)]
    return f"{told}, {' and '.join(said)}, {by}."


def against(interval: list[float]) -> str:
    low, high = interval
    return "better than" if low > 0 else "worse than" if high < 0 else "not shown to be better or worse than"


def picture(table: dict[str, Any]) -> str:
    """Gold reward with intervals, proxy reward, length and KL by policy."""
    panels = [
        ("gold_reward", "gold reward"),
        ("proxy_reward", "proxy reward"),
        ("tokens", "tokens per answer"),
        ("kl", "KL to π0, nats"),
    ]
    panels = [p for p in panels if p[0] in table["pi0"]["test"]]
    iterates = [
        i for i, policy in enumerate(table) if policy != "offline"
    ]  # the line follows the iterations; offline DPO is none of them

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3), layout="constrained")
        for axis, (name, title) in zip(axes, panels, strict=True):
            values = [numbers["test"][name] for numbers in table.values()]
            bounds = [
                numbers["test"].get("gold_reward_interval") if name == "gold_reward" else None
                for numbers in table.values()
            ]
            error = [
                [v - b[0] if b else 0 for v, b in zip(values, bounds, strict=True)],
                [b[1] - v if b else 0 for v, b in zip(values, bounds, strict=True)],
            ]
            axis.errorbar(range(len(values)), values, yerr=error, fmt="o", capsize=3, color="#2457a6")
            axis.plot(iterates, [values[i] for i in iterates], color="#2457a6")
            axis.set_xticks(range(len(values)), [label(policy).split(" ")[0] for policy in table])
            axis.set_title(title, fontsize=11)
        return figure

    return html_pages.svg(draw)


MONITORS = {
    "gold_reward": "gold reward", "judge_win_rate": "judge prefers it to π0", "proxy_reward": "proxy reward",
    "kl": "KL to π0 (k1), nats", "tokens": "tokens", "length_reward_correlation": "length and reward",
    "finished": "finished", "distinct_2": "distinct-2", "repetition": "repetition",
}  # fmt: skip


def watched(table: dict[str, Any]) -> str:
    """What shows over-optimisation, by policy, on test prompts; and whether the rules let the run go on."""
    seen = [name for name in MONITORS if name in table["pi0"]["test"]]
    lines = [
        [label(policy), *(f"{numbers['test'][name] + 0.0:.2f}" for name in seen)] for policy, numbers in table.items()
    ]
    ended = [
        f"Stopped before {label(policy)}: {n['stop']['reason']}."
        for policy, n in table.items()
        if n.get("stop", {}).get("stop")
    ]
    return html_pages.table(["policy", *(MONITORS[name] for name in seen)], lines) + "".join(
        f"<p>{html.escape(line)}</p>" for line in ended[:1]
    )


def pair_cells(policy: str, audit: dict[str, Any]) -> list[str]:
    """One iteration's pairs: where either side comes from, and how long it is."""
    shares = [
        ", ".join(f"{audit[k]:.0%} at {k.partition('_at_')[2]}" for k in audit if k.startswith(f"{side}_at_"))
        for side in ("chosen", "rejected")
    ]
    lengths = f"{audit['chosen_characters']:.0f} and {audit['rejected_characters']:.0f}"
    return [label(policy), f"{audit['margin_median']:.2f}", lengths, f"{audit['longer_is_chosen']:.0%}", *shares]


PAIR_HEADER = [
    "pairs for",
    "median margin",
    "characters of chosen and rejected",
    "longer is chosen",
    "chosen at temperature",
    "rejected at temperature",
]


def pairs_picture(audits: dict[str, dict[str, Any]]) -> str:
    """Histograms of the margins, one for each iteration that made pairs."""

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(1, len(audits), figsize=(4 * len(audits), 2.6), layout="constrained", squeeze=False)
        for axis, (policy, audit) in zip(axes[0], audits.items(), strict=True):
            width = (audit["margin_high"] - audit["margin_low"]) / 10 or 1.0
            axis.bar(
                [audit["margin_low"] + (k + 0.5) * width for k in range(10)],
                audit["margin_histogram"],
                width=0.9 * width,
                color="#2457a6",
            )
            axis.set_title(f"margins of the pairs for {label(policy)}", fontsize=11)
        return figure

    return html_pages.svg(draw) if audits else ""


def drops_told(drops: dict[str, int]) -> str:
    return html.escape(", ".join(f"{rule} {count:,}" for rule, count in drops.items() if count) or "none")


def rows_account(name: str, fact: dict[str, Any]) -> str:
    return f"<tr><td>{name}</td><td>{fact['rows_in']:,}</td><td>{fact['rows_out']:,}</td><td>{drops_told(fact['drops'])}</td></tr>"


SET_HEADER = [
    "set",
    "from",
    "revision",
    "licence",
    "rows read",
    "pairs made",
    "kept",
    "in the paper",
    "tokens of prompt, chosen, rejected",
    "longer is chosen",
    "drops",
]


def set_cells(name: str, fact: dict[str, Any]) -> list[str]:
    """A set of preferences: where it came from, what became of its rows, and what its pairs are like (the paper's
    Table 5).
    """
    paper = f"{fact['paper_pairs']:,} ({fact['difference']:+,}: {fact['why']})" if "paper_pairs" in fact else ""
    tokens = (
        ", ".join(f"{fact[f'{part}_tokens']:.0f}" for part in ("prompt", "chosen", "rejected"))
        if "rows_measured" in fact
        else ""
    )
    longer = f"{fact['longer_is_chosen']:.0%}" if "rows_measured" in fact else ""
    counts = [f"{fact[key]:,}" for key in ("rows_read", "pairs_made", "pairs_kept")]
    about = [fact["dataset"], (fact["revision"] or "")[:8], fact["licence"] or ""]
    return [name, *map(html.escape, about), *counts, html.escape(paper), tokens, longer, drops_told(fact["drops"])]


def drops_picture(sets: dict[str, Any]) -> str:
    """What each rule took of each set, and what was kept, as shares of the pairs made of it."""
    rules = [
        rule
        for rule in dict.fromkeys(rule for fact in sets.values() for rule in fact["drops"])
        if any(f["drops"].get(rule) for f in sets.values())
    ]

    def draw(plt: Any) -> Any:
        figure, axis = plt.subplots(figsize=(9, 1.2 + 0.4 * len(sets)), layout="constrained")
        left = [0.0] * len(sets)
        for k, rule in enumerate(["kept", *rules]):
            counts = [fact["pairs_kept"] if rule == "kept" else fact["drops"].get(rule, 0) for fact in sets.values()]
            shares = [
                count / max(1, fact["pairs_kept"] + sum(fact["drops"].values()))
                for count, fact in zip(counts, sets.values(), strict=True)
            ]
            axis.barh(
                list(sets),
                shares,
                left=left,
                label=rule.replace("_", " "),
                color="#2457a6" if rule == "kept" else plt.get_cmap("tab20")(k % 20),
            )
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axis.invert_yaxis()
        axis.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
        return figure

    return html_pages.svg(draw)


def budget(table: dict[str, Any]) -> str:
    """On how many pairs, in how many steps, each policy was trained: what makes online and offline comparable."""
    made = {label(policy): numbers["dpo"] for policy, numbers in table.items() if "dpo" in numbers}
    return "; ".join(f"{name}: {fact['rows_out']:,} pairs in {fact['steps']:,} steps" for name, fact in made.items())


def trust(ranker: dict[str, Any], confidence: float) -> str:
    """What the scorer that ranked gets right of the held-out pairs."""
    facts = ranker["heldout"].items()
    lines = [
        [name, f"{fact['accuracy']:.1%}", f"{fact['interval'][0]:.1%} to {fact['interval'][1]:.1%}", str(fact["pairs"])]
        for name, fact in facts
    ]
    return html_pages.table(["agreement with", "accuracy", f"{percent(confidence)} interval", "pairs"], lines)


def whole(
    table: dict[str, Any],
    selected: str,
    confidence: float,
    name: str,
    ranker: dict[str, Any],
    sets: dict[str, Any],
    prompts: dict[str, Any],
) -> str:
    """The HTML page."""
    audit = "".join(
        "<tr>" + "".join(f"<td>{c}</td>" for c in set_cells(name, fact)) + "</tr>" for name, fact in sets.items()
    )
    audits = {
        policy: numbers["rank"]["audit"] for policy, numbers in table.items() if numbers.get("rank", {}).get("audit")
    }
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Online iterative RLHF: results</title><style>{html_pages.STYLE}</style>
<h1>Online iterative RLHF: results</h1><p>{html.escape(verdict(table, selected, confidence))}</p>
{html_pages.table(*results(table, confidence))}{picture(table)}
<p>{table["pi0"]["test"]["answers"]} answers to {table["pi0"]["test"]["prompts"]} test prompts. Intervals: bootstrap over prompts, gains paired with π0.
KL: mean of log π − log π0 over the policy's own answers, nats per answer.</p>
<h2>Is the reward being hacked?</h2>{watched(table)}
<p>Length and reward: correlation of an answer's tokens with its proxy reward. Repetition: share of an answer's three-word phrases that stand in it before.</p>
<h2>The pairs</h2><p>{budget(table)}.</p>{html_pages.table(PAIR_HEADER, [pair_cells(policy, audit) for policy, audit in audits.items()])}{pairs_picture(audits)}
<h2>The ranker on held-out pairs: {html.escape(name.replace("_", " "))}</h2>{trust(ranker, confidence)}
<h2>The preference data</h2><div class="wide"><table><tr>{"".join(f"<th>{c}</th>" for c in SET_HEADER)}</tr>{audit}</table></div>
<p>What each rule took of each set, as a share of its rows:</p>{drops_picture(sets)}
<h2>The prompts</h2><table><tr><th></th><th>in</th><th>out</th><th>drops</th></tr>{rows_account("prompts", prompts)}</table></html>
"""


def main(
    params: Any,
    table: Path,
    selected: Path,
    ranker: Path,
    sets: Path,
    prompts: Path,
    *,
    markdown_table: Path,
    rows: Path,
    html_page: Path,
) -> None:
    policies, confidence = json.loads(table.read_text()), params.evaluate.confidence
    best = json.loads(selected.read_text())["policy"]
    markdown_table.write_text(html_pages.markdown(*results(policies, confidence)))
    lines = [flat(policy, numbers) for policy, numbers in policies.items()]
    with rows.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    facts = (json.loads(path.read_text()) for path in (ranker, sets, prompts))
    html_page.write_text(whole(policies, best, confidence, ranker.stem, *facts))
    print(f"report: {len(policies)} policies; {verdict(policies, best, confidence)}")
