"""What stands around every stage: whole outputs, checked inputs, checked params, no process left behind.

Holds     the guard, the one loader of params.yaml, the code keys
Must not  decide a result
An edit   reruns the fingerprint and nothing else
"""
