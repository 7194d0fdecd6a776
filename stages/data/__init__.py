"""From raw releases to prompts, demonstrations and preference pairs that are clean and apart.

Holds     how a release is read, what each rule drops, what counts as the same text, which rows only measure
Must not  know a model's weights, a reward, a policy
An edit   of a stage reruns it and what follows; of `pair_format`, `releases`, `jsonl` or `overlap` every stage that
          reads raw data
"""
