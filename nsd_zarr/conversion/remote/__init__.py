"""What a conversion does otherwise where sources or its store lie behind URLs.

generations  one run a store, by numbered generations that are created where there is none
fetching     where session files are fetched to
"""
