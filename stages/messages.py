"""How a conversation stands in a parquet file: a list of {role, content}."""

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
