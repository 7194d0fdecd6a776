"""One module for each raw format of preferences, the only place that knows it.

Reads     `name` of the set in params.yaml, and its raw rows
Holds     the format's fields, its rule of which pairs to make, the paper's count of them
Must not  filter by content: that is `data.filter`'s
An edit   reruns the sets of that source, what is mixed after them, and what follows
"""
