"""The pipeline's code, a room for each part of the data's way: data, training, sampling, signals, pairs, evaluation.

A stage is a module with a `main`; `dvc.yaml` names it by its path, `pairs.rank` is `stages/pairs/rank.py`. Beside the
rooms stand `chat.py`, how a conversation becomes tokens, which all of them share, and `guard` and `tools`, of which no
result depends. Imports go one way only: tests/test_rooms.py draws the arrows.
"""
