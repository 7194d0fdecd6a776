"""A quiet terminal: of the libraries only errors are heard, and no bar but the stage's own.

Whoever wants to hear more sets the variable himself: VLLM_LOGGING_LEVEL=INFO dvc repro
"""

import logging

ENVIRONMENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' too: weights loaded, shards written
    "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # how memory is bound to NUMA nodes
    "VLLM_LOGGING_LEVEL": "ERROR",
}
LOGGERS = {
    "DeepSpeed": "says at every start that it found no GPU",
    "accelerate.accelerator": "finds the steps of accumulation in two places",
    "bitsandbytes.backends.cpu.ops": "misses an optional kernel",
    "lm_eval.api.task": "explains an option of its command line for every task",
    "torch._library.triton": "misses triton",
    "transformers.modeling_utils": "reports which weights a reward model leaves out of its base",
    "trl.trainer.sft_trainer": "advises against a micro-batch of one packed row",
}
"""Loggers that no variable reaches, and what they say in a run where all is well."""


def loggers() -> None:
    """Let errors through alone, by a filter: a library sets its level and handlers anew when it is imported."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
