"""A store with a group for each subject.

Reading order:

groups     is it one, and which groups are there
document   its root document
"""
