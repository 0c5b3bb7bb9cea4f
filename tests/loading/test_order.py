import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.loading.order import PADDING, TrialOrder

orders = st.fixed_dictionaries(
    {
        "count": st.integers(0, 97),
        "batch_size": st.integers(1, 37),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**32),
        "drop_last": st.booleans(),
    }
)


def merge(order_options, world_size, epoch=0, first_step=0):
    """All ranks' samples in the order of steps, then ranks, without padding."""
    ranks = [
        list(TrialOrder(**order_options, rank=rank, world_size=world_size).iterate(epoch, first_step))
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert len({batch.samples.shape for batches in ranks for batch in batches}) <= 1
    samples = [batch.samples for step in zip(*ranks, strict=True) for batch in step]
    merged = np.concatenate(samples) if samples else np.empty(0, np.int64)
    return merged[merged != PADDING]


@given(orders, st.integers(1, 8), st.integers(0, 5))
def test_order_merged_over_ranks_is_the_global_order(options, world_size, epoch):
    alone = TrialOrder(**options)
    kept = alone.steps * alone.batch_size if alone.drop_last else alone.count
    expected = alone.permute(epoch)[:kept]
    np.testing.assert_array_equal(merge(options, world_size, epoch), expected)


@given(orders, st.integers(0, 5))
def test_order_of_an_epoch_has_each_sample_once(options, epoch):
    assert sorted(TrialOrder(**options).permute(epoch)) == list(range(options["count"]))


@given(orders, st.integers(1, 8), st.data())
def test_order_from_any_step_is_the_rest_of_the_epoch(options, world_size, data):
    steps = TrialOrder(**options).steps
    first = data.draw(st.integers(0, steps))
    whole, rest = merge(options, world_size), merge(options, world_size, first_step=first)
    np.testing.assert_array_equal(rest, whole[first * options["batch_size"] :])


def test_order_of_two_epochs_or_seeds_differs():
    order = TrialOrder(30_000, 32, True, 0)
    assert (order.permute(0) != order.permute(1)).any()
    assert (order.permute(0) != TrialOrder(30_000, 32, True, 1).permute(0)).any()
    np.testing.assert_array_equal(order.permute(3), TrialOrder(30_000, 64, True, 0, 1, 2).permute(3))


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}, {"world_size": 0}])
def test_order_with_an_impossible_share_is_refused(bad):
    with pytest.raises(ValueError, match="expected at least one row"):
        TrialOrder(**({"count": 5, "batch_size": 2, "shuffle": False, "seed": 0} | bad))
