"""One module for each way to give candidates a reward; all write the same columns.

Holds     the reward, null where the scorer cannot tell
Must not  choose pairs, train
An edit   reruns what this scorer has scored, and what follows
"""
