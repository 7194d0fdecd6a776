"""From scored completions to the pairs that an iteration trains on.

Holds     which completions make a pair, which pairs stay, D_off
Must not  load a model
An edit   reruns seconds here, and the training that follows
"""
