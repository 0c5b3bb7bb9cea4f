"""Objects behind URLs (s3://, gs://, az://, https://) as a place: the one door to obstore, which is imported on demand.

access   how they are reached: storage_options, the environment, profiles of ~/.aws
client   the client of a bucket, one a process
explain  what servers refuse, in words that say what to do
file     one object, read by ranges
place    a prefix of a bucket as a place
path     URLs where the package takes paths
cache    whole objects kept in a local folder
fetch    objects fetched to this machine, to be read as files are
"""
