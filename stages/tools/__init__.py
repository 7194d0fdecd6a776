"""What a person runs: profiles, pins, all signals, the reader's proof, a reward model of yours, an adapter, ablations.

Holds     commands
Must not  be imported by a stage
An edit   reruns the fingerprint and nothing else
"""
