"""Batches of trials, decoded ahead by threads: arrays in and out, no PyTorch. Knows the store and its views.

Reading order:

request   what is asked for of each trial, resolved against a store
trials    the trials of one store, so asked for
subjects  those of several subjects as one
order     which trial comes when: a pure function of seed and epoch
ring      slots that threads fill ahead of a consumer
loader    batches of trials, decoded into the slots
in_flight  requests that wait for answers, and batches ahead for them
pairing   whether images are those that the trials showed
images    the image that each trial showed
stimuli   single images out of the stimulus HDF5 files
"""
