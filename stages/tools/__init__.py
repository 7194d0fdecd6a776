<<<<<<< HEAD
"""What a person runs: the plan, profiles, pins, all signals, benchmarks, ablations, seeds, the reader's proof, a card.
=======
"""What a person runs: the plan, profiles, pins, signals, the reader's proof, a reward model of yours, ablations.
>>>>>>> 995db76 (docs: the plan among the tools)

Holds     commands
Must not  be imported by a stage
An edit   reruns the fingerprint and nothing else
"""
