"""Where bytes live, behind one small protocol. Knows no format.

place       the protocol: what a store asks of where its bytes live
choose      which place a path names
local       a folder as a place: durable writes, and reads that never leave the folder
durable     files that survive a power cut: written under another name, flushed, renamed
open_files  descriptors that stay open, within the limit of the process
files       opening files inside a folder: regular, bounded, behind no link that leads out
locks       the operating system's lock on an open file
swap        folders that change places as a whole; files that are in two folders
free        bytes and inodes that are free
page_cache  what it holds of a file, and giving it back
read_ahead  files read into the page cache before they are needed
"""
