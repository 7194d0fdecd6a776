"""How a conversation stands in every parquet file: a list of {role, content}, the ecosystem's form.

`datasets.load_dataset("parquet")`, TRL and vLLM read it as it is.
"""

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""Roles are system, user and assistant; either field may be null in raw data, in no set that `filter` wrote."""
