"""What a conversion takes in time, requests and money: arithmetic on numbers that a plan knows.

Reading order:

rates         what the arithmetic rests on: what was measured, and what is assumed
processor     processor seconds
requests      requests to objects behind URLs
prices        what these cost
work          what is left to do, in the numbers that decide what it takes
estimate      what that takes: time, bytes, requests, dollars
planned       the same of a plan, on the machine where it is made
"""
