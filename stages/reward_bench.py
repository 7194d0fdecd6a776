"""Let the reward model judge the held-out pairs.

Reads   reward: the reward model; heldout: preference pairs with `chosen_finished`, `rejected_finished`
Writes  judged: the pairs' columns, and reward_chosen, reward_rejected (float64, logits)
Params  dtype
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import forward


def main(params: Any, reward: Path, heldout: Path, *, judged: Path) -> None:
    table = pq.read_table(heldout)
    pairs = table.to_pylist()
    values = forward.rewards(reward, forward.sides(reward, pairs), params.dtype, params.runtime)
    for name, part in (("reward_chosen", values[: len(pairs)]), ("reward_rejected", values[len(pairs) :])):
        table = table.append_column(name, pa.array(part, pa.float64()))
    pq.write_table(table, judged)
    print(f"reward_bench: {len(pairs)} held-out pairs judged")
