"""One conversion that several processes share without a scheduler: tasks of an array job, each with its part.

begin       joining the run, or beginning it: one part at a time
convert     the sessions of one part
"""
