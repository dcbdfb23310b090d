"""Training on the Numba backend: gradients of every class and option, learning, and runs that resume to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import VERSIONS, GoldenCase, load

import npprelnorm as nl
from npprelnorm import backend
from npprelnorm.kernels import training as twins
from npprelnorm.ops import activations
from npprelnorm.training.loop import Trainer
from npprelnorm.training.settings import TrainingSettings

CASES = [pytest.param(case, id=f"{version}-{case}") for version in VERSIONS for case in load(version) if case.gradients]


@pytest.fixture(autouse=True)
def numba() -> Iterator[None]:
    with nl.use_backend("numba"):
        yield


def gradients(case: GoldenCase, dtype: str) -> dict[str, np.ndarray]:
    model = getattr(nl, case.class_name).from_params(
        nl.RobertaPreLayerNormConfig(**case.config), case.params, dtype=dtype
    )
    arguments = case.calls[-1].arguments | {"input_grads": case.input_gradients.keys()}
    if case.cotangents:
        return model.vjp(case.cotangents, **arguments)[1]
    return model.loss_and_grads(**arguments)[1]


def error_of_all(computed: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> float:
    """By the norm of all gradients together: some are 0 but for rounding."""
    difference = np.concatenate([(computed[name] - value).ravel() for name, value in exact.items()])
    return float(np.linalg.norm(difference) / np.linalg.norm(np.concatenate([v.ravel() for v in exact.values()])))


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_is_as_exact_as_the_reference(case: GoldenCase) -> None:
    """Against torch's float64; float32 numbers are off by 6e-8 each, and some twenty are passed on the way."""
    exact = case.gradients
    assert exact is not None
    ours = gradients(case, "float32")
    with nl.use_backend("numpy"):
        theirs = gradients(case, "float32")
    assert {n: (v.shape, v.dtype) for n, v in ours.items()} == {n: (v.shape, v.dtype) for n, v in theirs.items()}
    assert error_of_all(ours, exact) <= max(2.0 * error_of_all(theirs, exact), 2e-6)


def test_every_twin_is_in_its_place() -> None:
    """A run in which every op that has a twin is called from the twins' module."""
    called: set[str] = set()

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            called.add(name)
            return getattr(twins, name)

    original = backend.twins_in_use()
    assert original is twins
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "_twins", Recorder())
        for activation in activations.ACTIVATIONS:
            trainer = _trainer(Path(), hidden_act=activation)
            _, grads = trainer.model.loss_and_grads(**trainer.data.collate(np.arange(4), np.random.default_rng(0)))
            trainer.optimizer.step(trainer.model.params, grads, 1e-3)
    assert called == set(twins.__all__) - {"prepare"}


class _Sentences:
    lengths = np.array([9, 7, 9, 4, 8, 6, 9, 5])

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        ids = np.full((len(indices), 9), 1)
        for row, index in enumerate(indices):
            ids[row, : self.lengths[index]] = 3 + (np.arange(self.lengths[index]) * (index + 2)) % 37
        labels = np.where((rng.random(ids.shape) < 0.4) & (ids != 1), ids, -100)
        labels[:, 1] = ids[:, 1]
        return {"input_ids": ids, "attention_mask": ids != 1, "labels": labels}


class _Killed(Exception):
    pass


def _trainer(folder: Path, stop_after: int | None = None, **changes: Any) -> Trainer:
    config = nl.RobertaPreLayerNormConfig(
        **{
            "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 50, "max_position_embeddings": 20, "layer_norm_eps": 1e-5,
        } | changes
    )  # fmt: skip

    def report(step: int, total: int, loss: float) -> None:
        if step == stop_after:
            raise _Killed

    settings = TrainingSettings(steps=12, batch_size=4, learning_rate=1e-2, save_every=3, warmup=0.0)
    return Trainer(nl.RobertaPreLayerNormForMaskedLM(config), _Sentences(), settings, folder, progress=report)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    whole = _trainer(tmp_path / "whole")
    whole.run()
    with pytest.raises(_Killed):
        _trainer(tmp_path / "resumed", stop_after=8).run()
    resumed = _trainer(tmp_path / "resumed")
    resumed.run()
    assert resumed.progress.step == 12
    for name, value in whole.model.params.items():
        np.testing.assert_array_equal(resumed.model.params[name], value, err_msg=name)
        assert not np.array_equal(value, nl.RobertaPreLayerNormForMaskedLM(whole.model.config).params[name]), name
    shutil.rmtree(tmp_path / "whole")
    with nl.use_backend("numpy"):
        reference = _trainer(tmp_path / "whole")
        reference.run()
    logs = [trainer.log_path.read_text() for trainer in (reference, resumed)]
    assert logs[0] != logs[1]  # it was another backend
    assert reference.progress.loss_sum == resumed.progress.loss_sum == 0.0


def test_threads_change_no_bit(tmp_path: Path) -> None:
    params = []
    for count in (1, 2, 5):
        backend.set_threads(count)
        try:
            trainer = _trainer(tmp_path / str(count))
            trainer.run()
        finally:
            backend.set_threads(None)
        params.append(trainer.model.params)
    for other in params[1:]:
        for name, value in params[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


def test_float64_keeps_to_the_reference() -> None:
    case = CASES[0].values[0]
    ours = gradients(case, "float64")
    with nl.use_backend("numpy"):
        theirs = gradients(case, "float64")
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
