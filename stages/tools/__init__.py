"""What a person runs: the plan, profiles, pins, all signals, benchmarks, ablations, seeds, the reader's proof, a card.

Holds     commands
Must not  be imported by a stage
An edit   reruns the fingerprint and nothing else
"""
