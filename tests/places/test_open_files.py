import subprocess
import sys

THREADS = """
import os, random, sys, threading
from nsd_zarr.places import open_files

sys.setswitchinterval(1e-6)
threading.settrace(lambda *_: (lambda *_: None))  # At each line, also of __del__, another thread may come in.
open_files.count_allowed = lambda: 2

def use_files(seed):
    choose = random.Random(seed)
    for _ in range(2000):
        file = choose.randrange(5)
        descriptor = open_files.find(file)
        if descriptor is None:
            descriptor = open_files.Descriptor(os.open(os.devnull, os.O_RDONLY))
            open_files.keep(file, descriptor)
        os.fstat(descriptor.number)  # Open for as long as it is used.
        if choose.random() < 0.05:
            open_files.forget(file)

threads = [threading.Thread(target=use_files, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("right" if len(os.listdir("/proc/self/fd")) < 8 + 2 * 8 else "left open")
"""


def test_threads_that_close_files_of_each_other_do_no_harm():
    # From Python 3.12 on an entry that was replaced, and closed in between, was a segmentation fault.
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr[-2000:]
