"""A random model of a real one's shape, to learn what a step of it costs on a card without its weights.

Run     python -m tests.perf.blank models/base models/blank hidden_size=2048 ...     (keys of config.json; the
        tokenizer stays)
"""

import sys
from pathlib import Path

from stages import chat


def main() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    like, folder = map(Path, sys.argv[1:3])
    changes = dict(word.split("=") for word in sys.argv[3:])
    config = AutoConfig.from_pretrained(like)
    for name, value in changes.items():
        setattr(config, name, int(value))
    torch.manual_seed(1)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    chat.load_tokenizer(like).save_pretrained(folder)
    number = sum(weight.numel() for weight in model.parameters())
    print(f"blank: {number:,} weights")


if __name__ == "__main__":
    main()
