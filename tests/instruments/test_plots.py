"""The plots: what is drawn, and what they say when they cannot draw."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.errors import InputError, NpprelnormError
from npprelnorm.inspect import plots

TEXT = "The capital of France is <mask>."


@pytest.fixture(scope="module")
def model() -> Any:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    return nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return nl.Tokenizer.from_pretrained(nl.embedded_model_path())


def saved(axes: Any, folder: Path) -> None:
    path = folder / "plot.png"
    with np.errstate(all="ignore"):  # matplotlib's own arithmetic
        axes.figure.savefig(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_residual_norms(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    norms = nl.inspect.residual_norms(model, **tokenizer([TEXT]))
    axes = plots.plot_residual_norms(norms)
    assert len(axes.lines) == 10  # nine tokens and their mean
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), norms.per_layer)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one token", "mean"]
    saved(axes, tmp_path)


def test_gradient_norms(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    batch = tokenizer([TEXT])
    _, grads = model.loss_and_grads(**batch, labels=batch["input_ids"], frozen=["*.layer.0.*.query.*"])
    axes = plots.plot_gradient_norms(nl.inspect.gradient_norms(grads))
    assert len(axes.lines) == 9
    assert axes.get_yscale() == "log"
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 9  # no two alike
    assert list(axes.lines[-1].get_xdata()) == [1, 2, 3, 4]
    saved(axes, tmp_path)
    with pytest.raises(InputError, match="no layer with a gradient"):
        plots.plot_gradient_norms(nl.inspect.gradient_norms({"lm_head.bias": np.ones(2)}))


def test_attention(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    batch = tokenizer([TEXT])
    weights = nl.inspect.attention_maps(model, **batch)[0, 0, 1]
    names = [tokenizer.decode([token]) for token in batch["input_ids"][0]]
    axes = plots.plot_attention(weights, names, title="layer 1, head 2, $x")
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), weights)
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    saved(axes, tmp_path)
    with pytest.raises(InputError, match=r"weights has shape \(2, 2, 2\)"):
        plots.plot_attention(np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="there are 1 tokens"):
        plots.plot_attention(np.ones((2, 2)), ["a"])


def test_logit_lens(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    top = nl.inspect.logit_lens_top(model, k=2, positions=[6, 7], **tokenizer([TEXT]))
    axes = plots.plot_logit_lens(top, tokenizer, ["<mask>", "$5$"])
    texts = [text.get_text() for text in axes.texts]
    assert texts == [tokenizer.decode([token]) for token in top.ids[:, 0, :, 0].reshape(-1)]
    assert " Paris" in texts
    saved(axes, tmp_path)
    with pytest.raises(InputError, match="there are 1 tokens, but 2 positions"):
        plots.plot_logit_lens(top, tokenizer, ["a"])
    with pytest.raises(InputError, match="row is 1; allowed: 0 to 0"):
        plots.plot_logit_lens(top, tokenizer, row=1)


def test_axes_of_the_caller_are_used(model: Any, tokenizer: Any) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert plots.plot_attention(np.eye(2), axes=axes) is axes


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NpprelnormError, match=r"npprelnorm\[plot\]"):
        plots.plot_attention(np.eye(2))
