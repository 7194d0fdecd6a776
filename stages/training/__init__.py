"""From a model and rows to another model: pi_0, the reward and preference models, and each iteration's policy.

Holds     the trainers, their losses, the order of their rows, the reference's log-probabilities
Must not  choose pairs, sample, or judge
An edit   of a trainer reruns that trainer and what follows; of `harness` or `steps` all of them
"""
