"""What a run would do and cost, before it is paid: which stages and why, tokens, hours, memory, disk.

Holds     the graph as it would run, the work of each stage, devices and their rates
Must not  import torch, transformers or a stage; decide what the guard refuses (stages/guard/feasible.py)
An edit   reruns the fingerprint and nothing else
"""
