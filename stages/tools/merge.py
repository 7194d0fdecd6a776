"""Put a kept adapter into the model that it was trained on: what `dpo` does itself at the end of a run with LoRA.

    python -m stages.tools.merge models/pi0 models/pi1/adapter merged

An adapter is a hundredth of a model, so it is what one shares; it is refused for any other model than its own.
"""

import json
import sys
from pathlib import Path

from stages import chat
from stages.training import lora


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("merge: give a model, its adapter, and the folder to write")
    model, adapter, merged = map(Path, sys.argv[1:])
    try:
        tokenizer = chat.load_tokenizer(model)
        lora.merge(model, adapter, merged, json.loads((model / "config.json").read_text(encoding="utf-8"))["dtype"])
    except (OSError, ValueError) as error:
        sys.exit(f"merge: {' '.join(str(error).split())}")
    tokenizer.save_pretrained(merged)
    print(f"merge: {adapter} into {model} -> {merged}")


if __name__ == "__main__":
    main()
