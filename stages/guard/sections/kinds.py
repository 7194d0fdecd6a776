"""Kinds of values that the sections of params.yaml share, and what every section is."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NOT_HANDED_ON = re.compile(r'["$`\\\x00-\x1f\x7f]')
"""What a shell does not leave as it is between double quotes; sh, bash and zsh leave all else."""


def quotable(path: str) -> str:
    """A path that dvc.yaml puts into a command as `"${...}"`. Raises ValueError that says what to rename."""
    if not path.strip():
        raise ValueError("is empty; name a file or a folder")
    if path.startswith("-"):
        raise ValueError(f"begins with -, as an option does; write ./{path}")
    if "  " in path:  # dvc.lock may fold a long command there and lose one: the stage would count as changed
        raise ValueError("holds two spaces in a row, which dvc.lock does not always keep; rename the file")
    if found := NOT_HANDED_ON.search(path):
        raise ValueError(f"holds {found[0]!r}, which a shell does not hand on; rename the file")
    return path


Raw = Annotated[str, AfterValidator(quotable)]
"""A path that a command receives."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
