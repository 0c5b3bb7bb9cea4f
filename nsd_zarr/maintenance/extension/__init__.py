"""Sessions that are added to a finished store, or replaced in it.

Reading order:

extend        what is added or replaced, and its plan; then its conversion
allowed       what a store and a source must be for that, and whose settings count
kept          the sessions that stay, as the next generation holds them
generation    the next generation: made beside the store, then put in its place as a whole
"""
