"""From a policy and prompts to completions, with vLLM.

Holds     the engine, a seed for each sample
Must not  judge a text
An edit   of `engine` reruns all sampling and what follows; nothing that was trained on raw data
"""
