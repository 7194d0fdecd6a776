"""The scorers on tiny random models: rewards that depend on nothing but their row, and models that cannot score."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages import chat, shards
from stages.signals import batching, comparison, forward, judging, pairs_as_candidates, pairwise
from stages.signals.scorers import implicit
from stages.signals.scorers import judge as judge_scorer
from stages.signals.scorers import preference_model as preference_scorer
from stages.signals.scorers import reward_model as reward_scorer
from stages.training import preference_model, reward_model
from tests.conftest import sh

ASK = [{"role": "user", "content": "Which animals make honey, and how do they do it?"}]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_common_prefix_is_common_and_leaves_something_of_each(rows):
    n = batching.common_prefix(rows)
    assert all(row[:n] == rows[0][:n] and n < len(row) for row in rows)
    assert n == min(map(len, rows)) - 1 or len({row[n] for row in rows}) > 1


@pytest.fixture(scope="module")
def reward(tiny_model, tmp_path_factory) -> Path:
    """A reward model with an untrained head that is saved with it."""
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("reward") / "model"
    torch.manual_seed(0)
    tokenizer = chat.load_tokenizer(tiny_model)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    torch.nn.init.normal_(model.score.weight, std=0.5)  # an untrained head tells hardly anything apart
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def candidates() -> list[dict]:
    """Answers of very unlike lengths, an empty one and two equal ones among them, to two prompts."""
    texts = ["Bees.", "Bees, by dancing " * 12, "", "Bees do; they carry nectar home.", "no idea", "no idea"]
    prompts = [ASK, [{"role": "user", "content": "q"}]]
    return [
        {"id": f"p{p}", "prompt": prompt, "sample": k, "completion": text, "finished": k % 3 != 1}
        for p, prompt in enumerate(prompts)
        for k, text in enumerate(texts)
    ]


def alone(model: Path, rows: list[forward.Row]) -> list[float]:
    """Each row's reward by itself, padded on the left: no batch, no shared beginning, the other side."""
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    found = []
    for prompt, completion in rows:
        ids = [network.config.pad_token_id] * 5 + prompt + completion
        mask, position = [0] * 5 + [1] * (len(ids) - 5), [0] * 5 + list(range(len(ids) - 5))
        with torch.inference_mode():
            made = network(
                torch.tensor([ids]), attention_mask=torch.tensor([mask]), position_ids=torch.tensor([position])
            )
        found.append(float(made.logits[0, 0]))
    return found


@pytest.mark.parametrize("tokens", [1, 64, 4096])
def test_a_reward_is_the_same_whatever_the_batching_the_order_the_padding_side_and_what_is_shared(
    reward, runtime, tokens
):
    runtime.forward_batch_tokens = tokens
    asked = candidates()
    rows = forward.tokenized(chat.load_tokenizer(reward), asked)
    expected, names = alone(reward, rows), [row["id"] for row in asked]
    assert max(expected) - min(expected) > 0.1
    apart, mixed = (forward.rewards(reward, "float32", runtime, alone) for alone in (True, False))
    assert apart(rows, names, quiet) == pytest.approx(expected, abs=1e-4)
    assert mixed(rows, names, quiet) == pytest.approx(expected, abs=1e-4)
    assert apart(rows[::-1], names[::-1], quiet)[::-1] == pytest.approx(expected, abs=1e-4)


def test_log_probabilities_do_not_depend_on_what_is_shared(tiny_model, runtime):
    asked = candidates()
    rows = forward.tokenized(chat.load_tokenizer(tiny_model), asked)
    names = [row["id"] for row in asked]
    apart, mixed = (forward.logprobs(tiny_model, "float32", runtime, alone) for alone in (True, False))
    assert apart(rows, names, quiet) == pytest.approx(mixed(rows, names, quiet), abs=1e-3)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 3)), max_size=12))
def test_every_row_is_in_one_pass_and_only_single_tokens_behind_one_prompt_of_a_group_meet(drawn):
    tokens, names = [([7, prompt], list(range(length))) for _, prompt, length in drawn], [name for name, *_ in drawn]
    answered = forward.passes(tokens, names)
    assert sorted(row for of in answered for row in of) == list(range(len(drawn)))
    single = {(name, prompt) for name, prompt, length in drawn if length == 1}
    assert len(answered) == len(single) + sum(length != 1 for *_, length in drawn)
    for of in answered:
        assert len({(names[row], *tokens[row][0]) for row in of}) == 1
        assert len(of) == 1 or all(len(tokens[row][1]) == 1 for row in of)


@pytest.mark.parametrize("alone", [True, False])
def test_the_letters_of_a_question_are_one_pass_and_each_has_the_log_probability_of_a_pass_of_its_own(
    tiny_model, runtime, monkeypatch, alone
):
    """Six questions behind the same shots with four letters each, among longer answers and an empty one: 13 passes."""
    questions = [[*range(9, 49), *range(50, 53 + k)] for k in range(6)]
    rows = [(question, [letter]) for question in questions for letter in (5, 6, 7, 8)]
    rows += [*((question, [5, 6, 7]) for question in questions), ([*questions[5], 60, 61, 62, 63], [])]
    names, passed = ["subject"] * len(rows), []
    separate = forward.logprobs(tiny_model, "float32", runtime, alone=False)
    expected = [separate([row], [name], quiet)[0] for row, name in zip(rows, names, strict=True)]
    monkeypatch.setattr(
        forward, "over_batches", lambda *asked: passed.append(asked[1]) or batching.over_batches(*asked)
    )
    told = []
    values = forward.logprobs(tiny_model, "float32", runtime, alone)
    assert values(rows, names, told.append) == pytest.approx(expected, abs=1e-5)
    assert len(passed[0]) == 13 and expected[-1] == 0 and sum(told) == len(rows)


def quiet(rows: float) -> None:
    """No bar."""


def scored(main, path: Path, *models: Path, rows: list[dict] | None = None, params=None, runtime=None) -> list[dict]:
    for folder in ("candidates", "scores"):
        shutil.rmtree(path / folder, ignore_errors=True)
    asked = candidates() if rows is None else rows
    shards.write(path / "candidates", asked, pairs_as_candidates.SCHEMA, 6)
    numbers = {
        "dtype": "float32",
        "runtime": runtime,
        "pairwise": SimpleNamespace(ranking="tournament"),
        "dpo": SimpleNamespace(beta=0.1),
    }
    main(SimpleNamespace(**(numbers | (params or {}))), *models, path / "candidates", scores=path / "scores")
    return shards.read(path / "scores")


def test_no_candidates_make_no_scores_and_load_no_model(reward, tiny_model, runtime, tmp_path):
    form = {"implicit": SimpleNamespace(form="ratio")}
    assert scored(reward_scorer.main, tmp_path, reward, rows=[], runtime=runtime) == []
    assert scored(preference_scorer.main, tmp_path, tiny_model, rows=[], runtime=runtime) == []
    assert scored(implicit.main, tmp_path, tiny_model, tiny_model, rows=[], params=form, runtime=runtime) == []


def changed(model: Path, folder: Path, **config) -> Path:
    """A copy of a model with other entries in config.json; None removes one."""
    shutil.copytree(model, folder)
    found = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return folder


def test_models_that_cannot_score_are_told_apart_in_one_line(reward, tiny_model, runtime, tmp_path):
    from safetensors.torch import load_file, save_file

    two = changed(reward, tmp_path / "two", id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    weights = load_file(two / "model.safetensors")
    save_file(
        weights | {"score.weight": weights["score.weight"].repeat(2, 1)}, two / "model.safetensors", {"format": "pt"}
    )
    broken = changed(reward, tmp_path / "broken")
    save_file(
        weights | {"score.weight": weights["score.weight"] * float("nan")},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    short = changed(reward, tmp_path / "short", max_position_embeddings=32)
    unpadded = changed(reward, tmp_path / "unpadded", pad_token_id=None)
    bare = shutil.copytree(reward, tmp_path / "bare")
    for file in bare.glob("token*"):
        file.unlink()
    for model, told in (
        (tiny_model, "has no weights for score.weight, so it is no ForSequenceClassification"),
        (two, "its head has 2 outputs, a reward is one"),
        (unpadded, "has no pad_token_id"),
        (bare, "no tokenizer can be loaded from this model folder"),
        (short, "tokens, the context is 32; lower filter.max_tokens or generate.max_new_tokens"),
        (broken, "reward of a row of prompt p0 is nan"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            scored(reward_scorer.main, tmp_path, model, runtime=runtime)
        assert str(caught.value).startswith(str(model)) and "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_the_models_is_found_by_its_tokens(reward, runtime):
    size = json.loads((reward / "config.json").read_text())["vocab_size"]
    with pytest.raises(
        ValueError, match=rf"its tokenizer gives token {size}, its weights know {size}; save the tokenizer"
    ):
        forward.rewards(reward, "float32", runtime)([([1, 2], [size])], ["p"], quiet)


def test_padding_that_ends_a_turn_is_refused_since_rewards_would_be_read_at_the_wrong_place(reward, tmp_path):
    from transformers import AutoTokenizer

    folder = shutil.copytree(reward, tmp_path / "pad")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.decode([chat.end_of_turn(tokenizer)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="padding token must exist and differ from the end of a turn"):
        chat.load_tokenizer(folder)


def test_a_reward_model_of_ones_own_is_rated_in_one_command(reward, tmp_path):
    rows = [
        {"prompt": f"q{k}", "chosen": "yes " * (k % 3 + 1), "rejected": "no", "subset": subset}
        for k in range(8)
        for subset in ("math-prm", "mine")
    ]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "stages.tools.rate", str(reward), str(tmp_path / "bench.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "| reward model | reasoning | own subsets |" in done.stdout
        and "(1 of 7)" in done.stdout
        and "| math-prm | 8 |" in done.stdout
    )
    assert "| preference model (mix2), the paper's | 94.7 |" in done.stdout
    for model, pairs, line in (
        ("owner/model", "x", "rate: owner/model: is no folder here, and as a hub model it needs its commit"),
        (str(reward), str(tmp_path / "none"), "rate: "),
    ):
        (tmp_path / "none").mkdir(exist_ok=True)
        done = subprocess.run([*command[:3], model, pairs], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(line)


HEADER = "{{ '<|im_start|>assistant\\n' }}"
ALWAYS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + HEADER
WHEN_ASKED = ALWAYS.replace(HEADER, "{% if add_generation_prompt %}" + HEADER + "{% endif %}")


def test_the_letters_are_read_at_the_assistant_header_whether_the_template_always_appends_it_or_not(
    tiny_model, runtime, tmp_path
):
    from transformers import AutoModelForCausalLM

    odds = []
    for name, template in (("always", ALWAYS), ("asked", WHEN_ASKED)):
        folder = shutil.copytree(tiny_model, tmp_path / name)
        (folder / "chat_template.jinja").write_text(template)
        ask = comparison.Local(folder, pairwise.question, "float32", runtime).load()
        odds.append(ask([("p", ASK, "bees", "wasps"), ("p", ASK, "wasps", "bees")]))
    tokenizer = chat.load_tokenizer(tmp_path / "asked")
    ids = tokenizer.apply_chat_template(
        pairwise.instruction(ASK, "bees", "wasps"), add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    a, b = (tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in "AB")
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model)(torch.tensor([ids])).logits[0, -1]
    expected = float(torch.softmax(logits[[a, b]], 0)[0])
    assert odds[0] == pytest.approx(odds[1], abs=1e-5) and odds[0][0] == pytest.approx(expected, abs=1e-4)


def test_a_judges_template_must_show_everything_and_nothing_unknown(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(
        "{% for m in prompt %}{{ m.role }}: {{ m.content }}{% endfor %} A {{ response_a }} B {{ response_b }}"
    )
    assert (
        judging.renderer(path)(("p", ASK, "one", "two"))
        == "user: Which animals make honey, and how do they do it? A one B two"
    )
    for text, told in (
        ("{{ prompt }} {{ response_a }}", "shows no <second>"),
        ("{{ prompt }} {{ answer }}", "'answer' is undefined; it may use prompt"),
        ("{{ prompt", "it may use prompt"),
        ("{{ prompt.__class__.__base__ }} {{ response_a }} {{ response_b }}", "is unsafe|shows no"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=told):
            judging.renderer(path)


def test_the_order_of_a_pair_is_a_fair_coin_of_seed_and_id():
    first = [preference_model.chosen_is_first(1, str(k)) for k in range(2000)]
    assert 900 < sum(first) < 1100 and first != [preference_model.chosen_is_first(2, str(k)) for k in range(2000)]


def lesson(number: int) -> list[dict]:
    """Pairs in which the answer with the word yes wins."""
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    return [
        {"id": str(k), "prompt": [{"role": "user", "content": f"ask {k % 3}"}],
         "chosen": said("yes " * (k % 4 + 1)), "rejected": said("no " * (k % 3 + 1)),
         "chosen_finished": True, "rejected_finished": True, "margin": 1.0, "source": "s"}
        for k in range(number)
    ]  # fmt: skip


def numbers(runtime, **changes):
    section = {
        "layers": None,
        "learning_rate": 3e-3,
        "epochs": 4,
        "global_batch_rows": 4,
        "warmup_share": 0.0,
        "max_tokens": 160,
    } | changes
    return SimpleNamespace(
        seed=1,
        dtype="float32",
        runtime=runtime,
        preference_model=SimpleNamespace(**section),
        reward_model=SimpleNamespace(**section),
    )


def curve(path: Path, name: str) -> list[float]:
    header, *lines = [line.split(",") for line in path.read_text().splitlines()]
    return [float(line[header.index(name)]) for line in lines if line[header.index(name)]]


@pytest.mark.slow
def test_a_preference_model_learns_the_letter_and_packed_rows_teach_the_same(tiny_model, runtime, tmp_path):
    pq.write_table(pa.Table.from_pylist(lesson(24)), tmp_path / "train.parquet")
    for packing in (False, True):
        out = tmp_path / f"packed-{packing}"
        params = numbers(runtime, packing=packing, max_tokens=400 if packing else 160)
        preference_model.main(
            params,
            tiny_model,
            tmp_path / "train.parquet",
            preference=out,
            curve=tmp_path / f"{packing}.csv",
            metrics=tmp_path / f"{packing}.json",
        )
        losses = curve(tmp_path / f"{packing}.csv", "loss")
        assert losses[-1] < 0.4 * losses[0]
    ask = comparison.Local(tmp_path / "packed-False", pairwise.question, "float32", runtime).load()
    told = ask([("p", [{"role": "user", "content": "ask 1"}], *sides) for sides in (("yes ", "no "), ("no ", "yes "))])
    assert told[0] is not None and told[1] is not None and told[0] > told[1]


@pytest.mark.slow
def test_rows_packed_together_do_not_see_each_other(tiny_model, runtime):
    """The loss of a packed batch is that of its rows one by one: attention, positions and labels stop at the seams."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer, pack_dataset

    tokenizer = chat.load_tokenizer(tiny_model)
    rows = [preference_model.tokenize(tokenizer, row, pairwise.letters(tokenizer), 1) for row in lesson(6)]
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.inference_mode():
        each = [float(network(torch.tensor([r["input_ids"]]), labels=torch.tensor([r["labels"]])).loss) for r in rows]
    packed = pack_dataset(Dataset.from_list(rows), 1000, "bfd")
    assert len(packed) < len(rows)
    args = SFTConfig(
        output_dir="/tmp",
        padding_free=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = SFTTrainer(network, args=args, train_dataset=packed, processing_class=tokenizer)
    batch = trainer.data_collator([packed[0]])
    with torch.inference_mode():
        loss = float(network(**batch).loss)
    assert len(packed) == 1 and loss == pytest.approx(sum(each) / len(each), abs=1e-4)


def rewarded(tiny_model, runtime, folder: Path, **changes) -> Path:
    pq.write_table(pa.Table.from_pylist(lesson(40)), folder / "train.parquet")
    options = {"margin": 0.0, "centring": 0.0, "validation_share": 0.0, "evaluations": 0, "epochs": 1} | changes
    name = "-".join(f"{k}{v}" for k, v in changes.items())
    reward_model.main(
        numbers(runtime, **options),
        tiny_model,
        folder / "train.parquet",
        0,
        reward=folder / name,
        curve=folder / f"{name}.csv",
        metrics=folder / f"{name}.json",
    )
    return folder / f"{name}.csv"


@pytest.mark.slow
def test_margin_and_centring_are_in_the_loss_as_their_formulas_say(tiny_model, runtime, tmp_path):
    plain, margin, centred = (
        curve(rewarded(tiny_model, runtime, tmp_path, **c), "loss")
        for c in ({"layers": None}, {"margin": 2.0}, {"centring": 0.5})
    )
    header = rewarded(tiny_model, runtime, tmp_path, layers=None)
    difference, mean = curve(header, "margin")[0], curve(header, "mean_reward")[0]
    assert plain[0] == pytest.approx(
        -torch.nn.functional.logsigmoid(torch.tensor(difference)).item(), abs=0.02
    )  # the mean over a batch of 4
    assert margin[0] == pytest.approx(-torch.nn.functional.logsigmoid(torch.tensor(difference - 2.0)).item(), abs=0.05)
    assert centred[0] >= plain[0] and (centred[0] - plain[0]) == pytest.approx(0.5 * (2 * mean) ** 2, abs=0.05)


@pytest.mark.slow
def test_validation_takes_whole_prompts_and_the_best_checkpoint_is_kept(tiny_model, runtime, tmp_path, capsys):
    path = rewarded(tiny_model, runtime, tmp_path, validation_share=0.4, evaluations=3, epochs=2)
    said = capsys.readouterr().out
    losses = curve(path, "eval_loss")
    assert len(losses) >= 3 and f"best validation loss {min(losses):.3f}" in said
    assert not list(tmp_path.glob("*-checkpoints"))
    held = [row for row in lesson(40) if reward_model.validates(row, 0.4)]
    assert held and not {str(r["prompt"]) for r in held} & {
        str(r["prompt"]) for r in lesson(40) if not reward_model.validates(r, 0.4)
    }
    assert f"'validation': {len(held)}" in said


@pytest.mark.slow
def test_a_pair_with_one_side_too_long_is_left_out_whole_and_counted(tiny_model, runtime, tmp_path):
    tokenizer = chat.load_tokenizer(tiny_model)
    longest = [max(len(ids) for ids in reward_model.tokenize(tokenizer, row, 0.0).values()) for row in lesson(40)]
    limit = sorted(longest)[20]
    made = rewarded(tiny_model, runtime, tmp_path, max_tokens=limit)
    kept = sum(n <= limit for n in longest)
    facts = json.loads(made.with_suffix(".json").read_text())
    assert facts["rows_out"] == kept < 40 and facts["drops"] == {"over_max_tokens": 40 - kept, "validation": 0}


@pytest.fixture(scope="module")
def exported_policy(smoke_to_read, tmp_path_factory):
    """What `python -m stages.tools.export` gives, for vLLM's own server to take as it is."""
    out = tmp_path_factory.mktemp("exported") / "pi2"
    done = sh(f"python -m stages.tools.export models/pi2 {out} --licence apache-2.0", smoke_to_read)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def endpoint(exported_policy):
    """A real OpenAI-compatible endpoint: vLLM's own server on this CPU, with a tiny policy."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "--model",
        str(exported_policy),
        "--served-model-name",
        "tiny",
        "--port",
        str(port),
        "--enforce-eager",
        "--max-model-len",
        "1024",
        "--dtype",
        "float32",
    ]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], env=environment, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, "vllm serve ended"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


@pytest.mark.slow
def test_a_judge_behind_a_real_endpoint_gives_the_verdicts_of_the_same_model_read_here(
    endpoint, exported_policy, runtime, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_HOME", raising=False)
    monkeypatch.setattr("stages.signals.endpoint.MOST_UNREADABLE", 10**6)  # a random model seldom says a letter
    template = Path(__file__).parent.parent / "data/raw/judge.jinja"
    found = {}
    for served in (None, "tiny"):
        runtime.judge_url, runtime.judge_connections = endpoint, 4
        params = {"judge": SimpleNamespace(served=served, top_logprobs=20, max_tokens=4, limit_by="max_tokens")}
        found[served] = scored(judge_scorer.main, tmp_path, exported_policy, template, params=params, runtime=runtime)
    here, there = ([row["reward"] for row in found[served] if row["reward"] is not None] for served in (None, "tiny"))
    assert len(here) == len(candidates()) and len(there) <= len(
        here
    )  # a random model seldom has a letter among its likeliest 20 tokens
    assert all(row["unreadable"] == 1 for row in found["tiny"] if row["reward"] is None and row["sample"])
    kept = (tmp_path / ".scratch/judge/tiny.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in kept]
    assert len(answers) >= 10 and all(answer["tokens"] for answer in answers if answer["text"])
    assert any(answer["tokens"] for answer in answers)
