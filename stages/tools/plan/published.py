"""What is known of models and data sets before they are brought: shapes of architectures, rows of sets.

Source  the config.json of each model as published; the sets' cards; of preferences the paper's Table 5, which every
        module of stages/data/sources names
"""

import ast
import gzip
import json
import re
from pathlib import Path

from stages.guard import facts
from stages.guard.facts import Shape

ARCHITECTURES = {
    "tiny-random": Shape(2, 64, 128, 2, 1, 32, 259, True, 1024),
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 64, 49_152, True, 8192),
    "smollm2-360m": Shape(32, 960, 2560, 15, 5, 64, 49_152, True, 8192),
    "smollm2-1.7b": Shape(24, 2048, 8192, 32, 32, 64, 49_152, True, 8192),
    "qwen2.5-0.5b": Shape(24, 896, 4864, 14, 2, 64, 151_936, True, 32_768),
    "qwen2.5-1.5b": Shape(28, 1536, 8960, 12, 2, 128, 151_936, True, 32_768),
    "qwen2.5-7b": Shape(28, 3584, 18_944, 28, 4, 128, 152_064, False, 32_768),
    "qwen3-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151_936, True, 40_960),
    "qwen3-8b": Shape(36, 4096, 12_288, 32, 8, 128, 151_936, False, 40_960),
    "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 64, 128_256, True, 131_072),
    "llama-3.2-3b": Shape(28, 3072, 8192, 24, 8, 128, 128_256, True, 131_072),
    "llama-3.1-8b": Shape(32, 4096, 14_336, 32, 8, 128, 128_256, False, 131_072),
    "llama-3-8b": Shape(32, 4096, 14_336, 32, 8, 128, 128_256, False, 8192),
    "mistral-7b": Shape(32, 4096, 14_336, 32, 8, 128, 32_768, False, 32_768),
}
"""By a part of a model's name, in small letters."""
NAMED = re.compile(r"(\d+(?:\.\d+)?)([bm])(?![a-z])")
"""A number of weights in a model's name: 8B, 0.6b, 135M."""
ROWS = {
    "RLHFlow/iterative-prompt-v1-iter1-20K": 20_000,
    "RLHFlow/iterative-prompt-v1-iter2-20K": 20_000,
    "RLHFlow/iterative-prompt-v1-iter3-20K": 20_000,
    "OpenRLHF/prompt-collection-v0.1": 179_000,
    "WizardLMTeam/WizardLM_evol_instruct_V2_196k": 143_000,
    "teknium/GPT4-LLM-Cleaned": 54_600,
    "teknium/GPTeacher-General-Instruct": 89_300,
    "ise-uiuc/Magicoder-Evol-Instruct-110K": 111_000,
    "TIGER-Lab/MathInstruct": 262_000,
    "microsoft/orca-math-word-problems-200k": 200_000,
    "anon8231489123/ShareGPT_Vicuna_unfiltered": 94_000,
    "Open-Orca/SlimOrca": 518_000,
    "openbmb/UltraInteract_sft": 289_000,
    "berkeley-nest/Nectar": 183_000,
    "allenai/reward-bench": 2_985,
    "allenai/reward-bench-2": 1_865,
    "openai/gsm8k": 1_319,  # as are the next: of the split that is asked
    "cais/mmlu": 14_042,
    "truthfulqa/truthful_qa": 817,
    "allenai/ai2_arc": 1_172,
}
UNKNOWN_ROWS = 100_000
"""Of a hub set that is not among them."""
PAIR_TOKENS = 300.0
"""Of a prompt, and of an answer, in a hub set of preferences, prompts or demonstrations: the paper's 700,000 pairs are
0.85 G tokens of both sides."""
READ = 64 * 2**20  # bytes of a raw file that are read to count its lines


def shape(name: str) -> Shape | None:
    """Of a model by its name: as published, or as the published one that is nearest in size; None for a name that tells
    no size.
    """
    small = name.lower()
    if found := next((shape for part, shape in ARCHITECTURES.items() if part in small.replace("meta-", "")), None):
        return found
    if not (sized := NAMED.search(small)):
        return None
    wanted = int(float(sized[1]) * {"b": 1e9, "m": 1e6}[sized[2]])
    nearest = min(ARCHITECTURES.values(), key=lambda shape: abs(facts.weights(shape) - wanted))
    return nearest._replace(weights=wanted, context=None)


def table_5(source: Path) -> int | None:
    """`pairs=` of a source's RELEASE, the paper's count after its rule."""
    calls = [node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [word.value for call in calls for word in call.keywords if word.arg == "pairs"]
    return next((value.value for value in named if isinstance(value, ast.Constant) and value.value), None)  # pyright: ignore[reportReturnType]


def raw_rows(path: Path) -> int | None:
    """Rows of a raw file, of a hub pin, of a folder of either; None of a hub set whose size we do not know."""
    if path.is_dir():
        each = [
            raw_rows(file) for file in sorted(path.iterdir()) if file.suffix in (".json", ".jsonl", ".gz", ".parquet")
        ]
        return None if None in each else sum(each)  # pyright: ignore[reportArgumentType, reportCallIssue]
    if path.suffix == ".parquet":
        found = facts.table(path)
        return found.rows if found else None
    if path.suffix == ".json":
        return ROWS.get(json.loads(path.read_text(encoding="utf-8")).get("dataset", ""))
    return lines(path) if path.exists() else None


def lines(path: Path) -> int:
    """Lines of a text file; of a longer one than READ as many as its beginning lets expect."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        text = file.read(READ)
    whole = path.stat().st_size if path.suffix != ".gz" else len(text)
    return round(text.count(b"\n") * max(1.0, whole / max(1, len(text))))


def unpinned(raw: Path) -> int:
    """How many hub pins under a raw path name no revision."""
    pins = sorted(raw.glob("*.json")) if raw.is_dir() else [raw] if raw.suffix == ".json" and raw.exists() else []
    found = [json.loads(pin.read_text(encoding="utf-8")) for pin in pins]
    return sum("dataset" in pin and pin.get("revision") is None for pin in found)
