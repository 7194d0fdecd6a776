"""How the work is laid out on this machine: tracked by no stage, and of a result it moves the last digits at most."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.guard.sections.kinds import Count, Section


class Runtime(Section):
    processes: Count
    nodes: Count
    deepspeed: Annotated[int, Field(ge=0, le=3)]
    threads: Count | None
    micro_batch_rows: Count
    forward_batch_tokens: Count
    gradient_checkpointing: bool
    report_to: Literal["none", "tensorboard", "trackio", "wandb", "mlflow"]
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    engine_sequences: Count
    engine_memory_share: Annotated[float, Field(gt=0, le=1)]
    engine_cpu_cache_gib: Count
    workers: Count
    gpus_per_worker: Count
    judge_url: str
    judge_connections: Count

    @model_validator(mode="after")
    def processes_can_be_shared(self) -> Self:
        if self.deepspeed and self.processes == 1:
            told = f"deepspeed = {self.deepspeed} shares a model among processes, and processes = 1"
            raise ValueError(f"{told}; raise it or set deepspeed = 0")
        if self.processes % self.nodes:
            told = f"processes = {self.processes} cannot be shared evenly among nodes = {self.nodes}"
            raise ValueError(f"{told}; make it a multiple")
        return self
