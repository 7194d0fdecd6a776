"""Other families than Llama: sharing what a prompt's rows begin with, and batching, change no log-probability and no
reward, sliding windows and untied heads included. `make families` takes each through the whole pipeline.
"""

from types import SimpleNamespace

import pytest

from stages import chat
from stages.signals import batching, forward
from stages.training import base, digest
from tests.conftest import ROOT
from tests.trust.families import FAMILIES, SETTINGS, make

LAYOUT = batching.Layout(threads=1, forward_batch_tokens=256)
NAMES = ["p"] * 3


@pytest.fixture(params=FAMILIES)
def brought(request, tmp_path):
    own = make(request.param, tmp_path / "own")
    entry = SimpleNamespace(
        model=str(own),
        revision=digest.model(own),
        template_settings=SETTINGS.get(request.param, {}),
        system_role="keep",
    )
    params = SimpleNamespace(bases={"base": entry}, dtype="float32")
    base.main(params, "base", ROOT / "data/raw/templates/base", model=tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.slow
def test_log_probabilities_and_rewards_are_those_of_one_row_alone(brought, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    tokenizer = chat.load_tokenizer(brought)
    question = [{"role": "user", "content": "What is rain and why does it fall?"}]
    said = ("Water.", "It is water that falls from the clouds, mostly", "No")
    asked = [{"id": "p", "prompt": question, "completion": text, "finished": True} for text in said]
    tokens = forward.tokenized(tokenizer, asked)
    network = AutoModelForCausalLM.from_pretrained(brought).eval()
    head = AutoModelForSequenceClassification.from_pretrained(brought, num_labels=1).eval()
    head.save_pretrained(tmp_path / "reward")
    with torch.inference_mode():
        logits = [network(torch.tensor([prompt + answer])).logits[0].log_softmax(-1) for prompt, answer in tokens]
        rewards = [float(head(torch.tensor([prompt + answer])).logits[0, 0]) for prompt, answer in tokens]
    alone = [
        float(sum(row[len(prompt) - 1 + place, token] for place, token in enumerate(answer)))
        for (prompt, answer), row in zip(tokens, logits, strict=True)
    ]
    for shared in (True, False):
        values = forward.logprobs(brought, "float32", LAYOUT, alone=shared)
        assert values(tokens, NAMES, lambda done: None) == pytest.approx(alone, abs=2e-4)
        values = forward.rewards(tmp_path / "reward", "float32", LAYOUT, alone=shared)
        assert values(tokens, NAMES, lambda done: None) == pytest.approx(rewards, abs=1e-5)
