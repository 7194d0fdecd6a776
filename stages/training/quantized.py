"""Frozen weights in 4 bits: how `dpo` loads the policy under an adapter, and `reference` the model that it is measured
against.

Source  NF4 with double quantisation: Dettmers et al. 2023, arXiv 2305.14314, section 3
"""

import os
from typing import Any


def options(dtype: str) -> dict[str, Any]:
    """Options of from_pretrained, for this process's own GPU; what is computed with the weights is computed in
    `dtype`.
    """
    import bitsandbytes  # noqa: F401  transformers quantises with it: named here for the fingerprint
    import torch
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    if not torch.cuda.is_available():
        return {"quantization_config": settings}
    mine = int(os.environ.get("LOCAL_RANK", "0"))  # else all would load on the first
    return {"quantization_config": settings, "device_map": {"": mine}}
