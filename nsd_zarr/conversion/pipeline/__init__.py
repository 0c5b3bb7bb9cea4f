"""How opening, reading, adding up and writing the trials of one session overlap.

work                what there is to do: one session a unit, and in which passes over its file
opening             the next file is opened while the present session is compressed
passes              files that hold one voxel after the other: some trials of all voxels at a time
in_order            files that hold one trial after the other: the next shard is read while those before are written
session_statistics  mean, deviation and rails of each voxel of a session, as they are stored
"""
