"""What tells a better answer from a worse one: forward passes, comparisons, a judge, labels.

Holds     how answers are scored, compared and labelled, and r*, the simulated annotator
Must not  choose pairs
An edit   of `forward` reruns all scoring by models; of one scorer that scorer and what follows
"""
