import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stages import words


def test_a_word_is_a_run_of_letters_and_digits_in_lower_case():
    text = "Don't PANIC: snake_case, élan 42-times. 你好!"
    assert words.words(text) == ["don", "t", "panic", "snake", "case", "élan", "42", "times", "你好"]


@given(st.text(st.characters(max_codepoint=0x2FFF, categories=["L", "N", "P", "Z", "S", "Cc"])))
def test_one_text_and_a_column_of_them_have_the_same_words(text):
    column = pl.Series([text]).str.to_lowercase().str.extract_all(words.LETTERS_AND_DIGITS)
    assert column.to_list()[0] == words.words(text)
