"""Machine code on disk: kept where one can write, done without where not, and used by the next process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, warnings
import numpy as np, npprelnorm as nl
nl.use_backend("numba")
config = nl.RobertaPreLayerNormConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                      intermediate_size=16, max_position_embeddings=40)
model = nl.RobertaPreLayerNormModel(config)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    fast = [model.base(np.arange(3, 23)[None]).last_hidden_state for _ in range(2)]
nl.use_backend("numpy")
assert np.abs(fast[1] - model.base(np.arange(3, 23)[None]).last_hidden_state).max() < 1e-5
assert np.array_equal(*fast)
print("fast" if "numba" in sys.modules else "slow", [str(w.message) for w in seen])
"""


ONE_KERNEL = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from npprelnorm.kernels import weights
    x = np.arange(9, dtype=np.float32)
    assert weights.sums_of(x) == weights.sums_of(x.copy()) != weights.sums_of(x[::-1])
print("fast", [str(w.message) for w in seen])
"""


def run(folder: Path, program: str = PROGRAM, **environment: str) -> str:
    here = {"NUMBA_CACHE_DIR": str(folder), "HOME": str(folder), "NPPRELNORM_BACKEND": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **here, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")  # a file where a folder is wanted: not even root can write below it
    output = run(file, ONE_KERNEL)
    assert output.startswith("fast [")
    assert output.count("compiled kernels cannot be kept") == 1
    assert output.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.parametrize("content", ["raise ImportError('broken by the test')", "raise RuntimeError('no such LLVM')"])
def test_a_broken_numba_leaves_the_reference_and_one_warning(tmp_path: Path, content: str) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    output = run(tmp_path, PYTHONPATH=path)
    assert output.count("the Numba kernels cannot be used") == 1
    assert "NumPy computes instead" in output
