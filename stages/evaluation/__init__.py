"""From stored answers to numbers, verdicts and pages.

Holds     intervals, rules that stop a run, the choice of the policy, the report
Must not  load a model: what is dear was written before, so that an edited number costs seconds
An edit   reruns the stage and the report
"""
