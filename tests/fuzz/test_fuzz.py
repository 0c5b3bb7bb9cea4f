"""The fuzz targets, for a moment; by hand for longer: python -m tests.fuzz.decode --seconds 600."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGETS = ["decode", "hdf5_index"]
KEPT = sorted(path for path in (HERE / "kept").glob("*") if path.suffix != ".txt")
RUN = """
import sys
sys.path.insert(0, ".")
from tests.fuzz.child import fuzz
import json
print(json.dumps(fuzz(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guarded pages and memfd are Linux's")
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_crashes_or_is_read_wrongly(target):
    command = [sys.executable, "-c", RUN, target, "2", "11"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    assert not {"crash", "wrong"} & set(tally), tally
    assert sum(tally.values()) > 50, tally


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_input_that_once_crashed_is_refused_or_read_rightly(path):
    target = path.name.rsplit("-", 1)[0]
    code = f"import sys; sys.path.insert(0, '.'); from tests.fuzz.{target} import make_try; " + (
        "make_try()(open(sys.argv[1], 'rb').read())"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent.parent, timeout=120)
    assert done.returncode == 0, done.stderr
