import itertools
import threading
import time

import numpy as np
import pytest

from nsd_zarr.buffers import Slots
from nsd_zarr.loading.order import TrialOrder
from nsd_zarr.loading.ring import Ring


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr read")]


def make_ring(fill, slots=3, threads=4):
    """A ring whose slots are numbers."""
    memory = Slots(itertools.count().__next__, slots - 1)
    return Ring(lambda slot, row, batch: fill(slot, row, int(batch.samples[row])), memory, threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_ring_hands_out_batches_in_order_and_whole(slots, threads):
    filled = np.full((slots, 4), -1)

    def fill(slot, row, sample):
        time.sleep(0.0002 * (sample % 3))
        filled[slot, row] = sample

    order = TrialOrder(26, 4, True, 7)
    handed = []
    for slot, batch in make_ring(fill, slots, threads).iterate(order.iterate(0)):
        np.testing.assert_array_equal(filled[slot], batch.samples)
        handed.append(batch.step)
    assert handed == list(range(7))
    assert not alive()


def test_ring_leaves_the_consumers_slot_alone_until_it_asks_for_the_next():
    writes = []
    ring = make_ring(lambda slot, row, sample: writes.append(slot), slots=3)
    for slot, _ in ring.iterate(TrialOrder(40, 4, False, 0).iterate(0)):
        count = writes.count(slot)
        time.sleep(0.005)
        assert writes.count(slot) == count


def test_ring_fills_no_further_ahead_than_it_has_slots():
    samples = []
    ring = make_ring(lambda slot, row, sample: samples.append(sample), slots=3, threads=2)
    iterator = ring.iterate(TrialOrder(400, 4, False, 0).iterate(0))
    next(iterator)
    time.sleep(0.05)
    assert max(samples) < 3 * 4
    iterator.close()


def test_ring_error_in_a_thread_is_raised_where_the_batch_is_asked_for():
    def fill(slot, row, sample):
        if sample == 9:
            raise ValueError("sample 9 is bad")

    iterator = make_ring(fill).iterate(TrialOrder(40, 4, False, 0).iterate(0))
    with pytest.raises(ValueError, match="sample 9"):
        list(iterator)
    assert not alive()


@pytest.mark.parametrize("leave", ["break", "raise", "close"])
def test_ring_left_early_stops_its_threads(leave):
    iterator = make_ring(lambda *_: time.sleep(0.0005)).iterate(TrialOrder(4000, 4, False, 0).iterate(0))
    next(iterator)
    if leave == "close":
        iterator.close()
    elif leave == "raise":
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt)
    else:
        for _ in iterator:
            break
        del iterator
    assert not alive()


def test_ring_of_an_empty_order_ends_at_once():
    assert list(make_ring(lambda *_: None).iterate(TrialOrder(0, 4, False, 0).iterate(0))) == []


def test_ring_counts_what_it_did():
    ring = make_ring(lambda *_: time.sleep(0.001))
    list(ring.iterate(TrialOrder(22, 4, False, 0).iterate(0)))
    assert (ring.stats.batches, ring.stats.samples) == (6, 24)
    assert ring.stats.fill_seconds >= 0.024
