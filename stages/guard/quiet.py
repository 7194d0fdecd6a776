"""A quiet terminal: no bar but the stage's own, and of the libraries nothing that a good run says too.

Whoever wants to hear more sets the variable himself: VLLM_LOGGING_LEVEL=INFO dvc repro
"""

import logging

ENVIRONMENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' too: weights loaded, shards written
    "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning,ignore:OMP_NUM_THREADS",  # accelerate sets it
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # how memory is bound to NUMA nodes
    "VLLM_LOGGING_LEVEL": "ERROR",
}
SAID = {
    "DeepSpeed": "Setting accelerator to CPU",
    "accelerate.accelerator": "Gradient accumulation steps mismatch",  # a trainer's accumulation is the layout's
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "lm_eval.api.task": "Custom kwargs can be passed",
    "torch._library.triton": "Triton not available",
    "transformers.modeling_utils": "LOAD REPORT",  # some part of a base is left out, as a reward model does its head
    "trl.trainer.sft_trainer": "You are using a per_device_train_batch_size of 1",  # a packed row is one
}
"""Loggers that no variable reaches, and words of what each says in a run where all is well: that alone is not heard."""


def loggers() -> None:
    """Leave those records out, by a filter: a library sets its level and handlers anew when it is imported."""
    for name, words in SAID.items():
        logging.getLogger(name).addFilter(lambda record, words=words: words not in str(record.msg))
