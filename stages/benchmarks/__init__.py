"""From a benchmark's questions to a policy's scores: ask, answer, grade.

Holds     lm-eval's tasks over local files, one pass of a policy, scores from stored answers, the sandbox of programs
Must not  train, rank; a grader must not load a model
An edit   of `ask` reruns what is asked, of `answer` the answers of every policy, of `grade` seconds; never a policy
"""
