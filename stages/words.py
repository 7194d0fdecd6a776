"""What counts as a word where texts are compared: a run of letters and digits, whatever its case.

Punctuation, spacing and the underscore stand between words. Two forms of one rule, for one text and for a column of
them; a test holds them equal.
"""

import re

LETTERS_AND_DIGITS = r"[\p{L}\p{N}]+"
"""The rule as polars and other engines of Rust's regex read it; the text in lower case first."""


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())
