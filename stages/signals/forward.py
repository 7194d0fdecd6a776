"""What a model says of a row: its reward, the log-probability of its completion, the odds between two words that may
come next.

The scorers, `reference` and `measure` share it; how rows are batched is in stages/signals/batching.py.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages import chat, rows
from stages.signals.batching import Layout, over_batches

Row = tuple[list[int], list[int]]
"""The token ids of a prompt, up to the assistant header, and of a completion."""
Values = Callable[[list[Row], list[str], rows.Tick], list[float]]
"""A number for each row; the second list names every row's prompt."""


def load(model_class: Any, model: Path, dtype: str, layout: Layout, **more: Any) -> tuple[Any, Any]:
    """A model in evaluation mode on the GPU if there is one, and its device; `more` options of from_pretrained.

    Raises ValueError where the folder lacks some of its weights.
    """
    import torch

    if layout.threads:
        torch.set_num_threads(layout.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    network, found = model_class.from_pretrained(model, **options, **more)
    if found["missing_keys"]:
        missing, wanted = sorted(found["missing_keys"])[0], model_class.__name__.removeprefix("AutoModel")
        raise ValueError(f"{model}: has no weights for {missing}, so it is no {wanted}; name a model with that head")
    return network.eval().to(device), device


def context(network: Any) -> float:
    """How many tokens the model was made for."""
    return getattr(network.config, "max_position_embeddings", None) or math.inf


def check_rows(sequences: list[list[int]], names: list[str], network: Any, model: Path) -> None:
    """Raise ValueError for a row that is longer than the model's context or holds a token that it does not know."""
    most, known = context(network), network.get_input_embeddings().num_embeddings
    for name, row in zip(names, sequences, strict=True):
        if len(row) > most:
            told = f"{model}: a row of prompt {name} has {len(row)} tokens, the context is {most}"
            raise ValueError(f"{told}; lower filter.max_tokens or generate.max_new_tokens")
        if max(row) >= known:
            told = f"{model}: its tokenizer gives token {max(row)}, its weights know {known}"
            raise ValueError(f"{told}; save the tokenizer that the model was trained with")


def finite(values: list[float], names: list[str], what: str) -> list[float]:
    """The values. Raises ValueError where one is not finite."""
    bad = [i for i, v in enumerate(values) if not math.isfinite(v)]
    if bad:
        told = f"{what} of a row of prompt {names[bad[0]]} is {values[bad[0]]}, and {len(bad) - 1} more like it"
        raise ValueError(f"{told}; the model is broken, train it again with a lower rate")
    return values


def tokenized(tokenizer: Any, asked: list[dict]) -> list[Row]:
    """Rows of prompt, completion, finished as ids, by the model's own tokenizer; a prompt that many rows share is
    rendered once.
    """
    prompts = {str(row["prompt"]): row["prompt"] for row in asked}
    known = {name: chat.prompt_ids(tokenizer, prompt) for name, prompt in prompts.items()}
    return [
        (known[str(row["prompt"])], chat.completion_ids(tokenizer, row["completion"], row["finished"])) for row in asked
    ]


def rewards(model: Path, dtype: str, layout: Layout, alone: bool = True) -> Values:
    """Load a reward model: r(x, a) of each row, a logit; `alone` batches every prompt's rows alone.

    Raises ValueError for a model without one scalar output, later for a reward that is not finite.
    """
    from transformers import AutoModelForSequenceClassification

    network, device = load(AutoModelForSequenceClassification, model, dtype, layout)
    if network.config.num_labels != 1:
        told = f"{model}: its head has {network.config.num_labels} outputs, a reward is one"
        raise ValueError(f"{told}; name a model that was trained with num_labels=1")
    if network.config.pad_token_id is None:
        told = f"{model}: config.json has no pad_token_id, and the head reads the last token that is not padding"
        raise ValueError(f"{told}; set it to the tokenizer's")

    def compute(ids: Any, options: dict, *_: Any) -> Any:
        return network(input_ids=ids, **options).logits[:, 0].float()

    def values(tokens: list[Row], names: list[str], tick: rows.Tick) -> list[float]:
        sequences = [prompt + completion for prompt, completion in tokens]
        check_rows(sequences, names, network, model)
        found = over_batches(network, sequences, layout, device, compute, tick, names if alone else None)
        return finite(found, names, f"{model}: reward")

    return values


def passes(tokens: list[Row], names: list[str]) -> list[list[int]]:
    """The rows that each pass of the model answers, from rows and the names of their groups: completions of one token
    behind one prompt, such as the letters of a question, stand side by side in its logits; any other row is alone.
    """
    found: dict[Any, list[int]] = {}
    for i, (prompt, completion) in enumerate(tokens):
        key = (names[i], tuple(prompt)) if len(completion) == 1 else i
        found.setdefault(key, []).append(i)
    return list(found.values())


def weighed(network: Any, ids: Any, options: dict, starts: list[int]) -> tuple[Any, Any]:
    """The sums over the completions of a batch (B,), and the log-probabilities of all tokens (B, L - least start, V)
    from where the first completion starts, in nats; `starts` are places in ids (B, L).
    """
    import torch

    first = min(starts)
    logits = network(input_ids=ids, logits_to_keep=ids.shape[1] - first + 1, **options).logits[:, :-1].float()
    known = logits.log_softmax(-1)
    each = torch.gather(known, 2, ids[:, first:, None])[..., 0]
    place = torch.arange(first, ids.shape[1], device=ids.device)
    begun = place >= torch.tensor(starts, device=ids.device)[:, None]
    is_token = options["attention_mask"][:, -ids.shape[1] :][:, first:]
    return (each * (is_token * begun)).sum(-1), known


def logprobs(model: Path, dtype: str, layout: Layout, alone: bool = True, **more: Any) -> Values:
    """Load a language model: log pi(a | x) of each row, the sum over the completion's tokens, in nats; `alone` as in
    `rewards`, `more` as in `load`.

    Raises ValueError, later, where one is not finite.
    """
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, layout, **more)

    def values(tokens: list[Row], names: list[str], tick: rows.Tick) -> list[float]:
        check_rows([prompt + completion for prompt, completion in tokens], names, network, model)
        answered = passes(tokens, names)
        read, groups = [tokens[of[0]] for of in answered], [names[of[0]] for of in answered]

        def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
            starts = [len(read[i][0]) - shared for i in batch]
            sums, known = weighed(network, ids, options, starts)
            found = []
            for k, i in enumerate(batch):
                letters = [tokens[row][1][0] for row in answered[i] if len(answered[i]) > 1]
                found.append(known[k, starts[k] - min(starts), letters] if letters else sums[k : k + 1])
                tick(len(answered[i]))
            return found

        # the last prompt token must be computed: the first completion token is predicted there
        sequences, limits = [prompt + completion for prompt, completion in read], [len(prompt) for prompt, _ in read]
        names_of = groups if alone else None
        told = over_batches(network, sequences, layout, device, compute, lambda rows: None, names_of, limits)
        known = [math.nan] * len(tokens)
        for of, found in zip(answered, told, strict=True):
            for row, value in zip(of, found, strict=True):
                known[row] = value
        return finite(known, names, f"{model}: log-probability")

    return values


def next_token_odds(
    model: Path, letters: tuple[int, int], dtype: str, layout: Layout
) -> Callable[[list[list[int]], list[str]], list[float | None]]:
    """Load a language model: p_first / (p_first + p_second) of the two `letters` as the token that follows each prompt,
    from prompts and their groups.

    None for a prompt that is longer than the model's context. Raises ValueError, later, where a probability is not
    finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, layout)

    def odds(prompts: list[list[int]], groups: list[str]) -> list[float | None]:
        fit = [i for i, prompt in enumerate(prompts) if len(prompt) <= context(network)]
        short, names = [prompts[i] for i in fit], [groups[i] for i in fit]
        check_rows(short, names, network, model)

        def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
            last = torch.tensor([len(short[i]) - shared - 1 for i in batch], device=device)
            kept, where = last.unique(return_inverse=True)
            logits = network(input_ids=ids, logits_to_keep=kept, **options).logits
            each = logits[torch.arange(len(batch), device=device), where].float()
            return (each[:, letters[0]] - each[:, letters[1]]).sigmoid()

        values = over_batches(network, short, layout, device, compute, lambda rows: None, names)
        known = dict(zip(fit, finite(values, names, f"{model}: probability"), strict=True))
        return [known.get(i) for i in range(len(prompts))]

    return odds
