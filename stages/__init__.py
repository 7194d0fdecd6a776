"""The pipeline's code, a room for each part of the data's way: data, training, sampling, signals, pairs, evaluation.

A stage is a module with a `main`; `dvc.yaml` names it by its path, `pairs.rank` is `stages/pairs/rank.py`. Beside the
rooms stand the contracts that they share: `chat.py` and `messages.py`, how a conversation becomes tokens and how
it stands in a file; `rows.py` and `shards.py`, how rows go through a model; `words.py`, what a word is; and `guard`
and `tools`, on which no result depends. Imports go one way only: tests/test_rooms.py draws the arrows.
"""
