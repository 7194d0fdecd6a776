"""The stage `generate` against a bare vLLM loop with the same settings on the same prompts, both in this run, each in
a process of its own.

Run     python tests/perf/generate.py   (after `make repro`)
Prints  tokens/s of each, of the sampling alone, and their ratio: the median of three rounds taken in turn
"""

import json
import re
import statistics
import subprocess
import sys

SHARD = "data/prompts/t0/shard-0.parquet"
BARE = """
import json, os, time
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="2", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")
import pyarrow.parquet as pq
from vllm import LLM, SamplingParams
rows = pq.read_table("SHARD").to_pylist()
llm = LLM("models/pi0", dtype="float32", enforce_eager=True, enable_chunked_prefill=False, max_model_len=256, max_num_batched_tokens=4096,
          max_num_seqs=128, enable_prefix_caching=False)
tok = llm.get_tokenizer()
prompts, params = [], []
for i, row in enumerate(rows):
    ids = tok.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    for k in range(8):
        prompts.append({"prompt_token_ids": ids})
        params.append(SamplingParams(temperature=1.0 if k < 4 else 0.7, seed=8 * i + k, max_tokens=64, stop_token_ids=[tok.eos_token_id]))
start = time.monotonic()
outputs = llm.generate(prompts, params, use_tqdm=False)
print(json.dumps(sum(len(o.outputs[0].token_ids) for o in outputs) / (time.monotonic() - start)))
"""
READS = ["--policy", "models/pi0", "--rival", "models/base", "--prompts", SHARD, "--iteration", "t0"]
STAGE = ["-m", "stages.guard.run", "sampling.generate", *READS, "--candidates", ".scratch/bench.parquet"]


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


def main() -> None:
    rates: dict[str, list[float]] = {"stage": [], "bare": []}
    for _ in range(3):
        said = re.search(r"([\d,]+) tokens in .* (\d+) tokens/s", run(*STAGE))
        assert said
        rates["stage"].append(float(said[2]))
        rates["bare"].append(json.loads(run("-c", BARE.replace("SHARD", SHARD)).splitlines()[-1]))
        print({name: [round(r) for r in values] for name, values in rates.items()}, flush=True)
    stage, bare = (statistics.median(values) for values in rates.values())
    print(f"generate {stage:.0f} tokens/s, bare vLLM {bare:.0f} tokens/s, ratio {stage / bare:.2f}")


if __name__ == "__main__":
    main()
