import numpy as np
import pytest

from nsd_zarr.read.percent import round_to_bfloat16, scale_into

CODES = np.arange(-32768, 32768).astype(np.int16)


def test_scale_into_of_all_codes_is_the_float32_division():
    out = np.empty(CODES.shape, np.float32)
    scale_into(CODES, out)
    assert (out.view(np.uint32) == (CODES.astype(np.float32) / np.float32(300)).view(np.uint32)).all()


def test_round_to_bfloat16_of_all_codes_equals_torch():
    torch = pytest.importorskip("torch")
    values = CODES.astype(np.float32) / np.float32(300)
    out = np.empty(values.shape, np.uint16)
    round_to_bfloat16(values, out)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(out, expected)


def test_round_to_bfloat16_of_ties_nan_and_infinities_equals_torch():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    bits[:1000] = (bits[:1000] & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    values = np.concatenate([bits.view(np.float32), np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)])
    out = np.empty(values.shape, np.uint16)
    round_to_bfloat16(values, out)
    ours = torch.from_numpy(out.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(ours, torch.from_numpy(values).to(torch.bfloat16).float().numpy())
