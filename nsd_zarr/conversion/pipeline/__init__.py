"""How reading, adding up and writing the trials of one session overlap.

in_order    files that hold one trial after the other: the next shard is read while those before are written
"""
