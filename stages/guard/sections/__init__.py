"""Every key of params.yaml, its type and range, and what the keys of one section ask of each other: a file per room.

A section carries the name of the stage that reads it. What one section asks of another stands in agreement.py.
"""
