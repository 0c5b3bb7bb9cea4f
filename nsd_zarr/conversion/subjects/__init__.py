"""Several subjects in one store: a group for each, and the root document above them.

Reading order:

choice   which subjects are meant, and what of the options goes to each
each     one thing done for each subject in turn; one that fails does not hold up the others
root     the root document of the whole, written again when a group is finished
"""
