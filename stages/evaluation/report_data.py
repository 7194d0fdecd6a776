"""The report's part on data: where each set of preferences came from, what became of its rows, what its pairs are
like, and the prompts' account.
"""

from typing import Any

from stages.evaluation import html_pages

HEADER = [
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


def drops_told(drops: dict[str, int]) -> str:
    """What each rule took, in words."""
    return ", ".join(f"{rule} {count:,}" for rule, count in drops.items() if count) or "none"


def beside_the_paper(fact: dict[str, Any]) -> str:
    """The paper's count of a set's pairs, and why ours differs; empty for a set that the paper does not have."""
    if "paper_pairs" not in fact:
        return ""
    return f"{fact['paper_pairs']:,} ({fact['difference']:+,}: {fact['why']})"


def measured(fact: dict[str, Any]) -> list[str]:
    """Tokens of the parts, and how often the longer is chosen, as in the paper's Table 5; empty where nothing was
    measured.
    """
    if "rows_measured" not in fact:
        return ["", ""]
    tokens = ", ".join(f"{fact[f'{part}_tokens']:.0f}" for part in ("prompt", "chosen", "rejected"))
    return [tokens, f"{fact['longer_is_chosen']:.0%}"]


def cells(name: str, fact: dict[str, Any]) -> list[str]:
    """A set of preferences, every column of HEADER."""
    about = [fact["dataset"], (fact["revision"] or "")[:8], fact["licence"] or ""]
    counts = [f"{fact[key]:,}" for key in ("rows_read", "pairs_made", "pairs_kept")]
    return [name, *about, *counts, beside_the_paper(fact), *measured(fact), drops_told(fact["drops"])]


def table(sets: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """All sets, without the columns that are empty for each."""
    lines = [cells(name, fact) for name, fact in sets.items()]
    kept = [k for k in range(len(HEADER)) if any(line[k] for line in lines)]
    return [HEADER[k] for k in kept], [[line[k] for k in kept] for line in lines]


def prompts(account: dict[str, Any]) -> list[str]:
    return ["prompts", f"{account['rows_in']:,}", f"{account['rows_out']:,}", drops_told(account["drops"])]


def shares(fact: dict[str, Any]) -> dict[str, float]:
    """What was kept of a set's pairs, and what each rule took, as shares of them."""
    counts = {"kept": fact["pairs_kept"]} | fact["drops"]
    return {rule: count / max(1, sum(counts.values())) for rule, count in counts.items()}


def picture(sets: dict[str, Any]) -> str:
    """The shares as one bar for each set, without rules that took nothing anywhere."""
    rows = [shares(fact) for fact in sets.values()]
    rules = [rule for rule in dict.fromkeys(rule for row in rows for rule in row) if any(row.get(rule) for row in rows)]

    def draw(plt: Any) -> Any:
        figure, axis = plt.subplots(figsize=(9, 1.2 + 0.4 * len(sets)), layout="constrained")
        left = [0.0] * len(rows)
        for k, rule in enumerate(dict.fromkeys(["kept", *rules])):
            lengths = [row.get(rule, 0.0) for row in rows]
            colour = html_pages.COLOUR if rule == "kept" else plt.get_cmap("tab20")(k % 20)
            axis.barh(list(sets), lengths, left=left, label=rule.replace("_", " "), color=colour)
            left = [start + length for start, length in zip(left, lengths, strict=True)]
        axis.invert_yaxis()
        axis.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
        return figure

    return html_pages.svg(draw)
