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
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib", reason="the plot extra is not installed")


@pytest.fixture(scope="module")
def model(matplotlib: Any) -> Any:
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
    with pytest.raises(InputError, match="there are 1 tokens, but weights"):
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


@pytest.mark.usefixtures("matplotlib")
def test_names_of_tokens_leave_room_for_the_picture(tokenizer: Any, tmp_path: Path) -> None:
    long = "Donaudampfschifffahrtsgesellschaft"
    axes = plots.plot_attention(np.full((2, 3), 1 / 3), [long, "b"], ["x", "y", "z" * 16])
    labels = [[label.get_text() for label in side] for side in (axes.get_yticklabels(), axes.get_xticklabels())]
    assert labels == [["Donaudampfschif…", "b"], ["x", "y", "z" * 16]]
    saved(axes, tmp_path)
    box = axes.get_window_extent()
    assert box.height > 0.3 * axes.figure.bbox.height
    many = plots.plot_attention(np.full((128, 128), 1 / 128), ["token"] * 128)
    saved(many, tmp_path)
    boxes = [label.get_window_extent() for label in many.get_yticklabels()[:2]]
    assert not boxes[0].overlaps(boxes[1])
    for names in ((["a", "b"], None), (["a", "b"], ["x", "y"]), (["a"], ["x", "y", "z"])):
        with pytest.raises(InputError, match="tokens, but weights has shape"):
            plots.plot_attention(np.ones((2, 3)), *names)


@pytest.mark.usefixtures("matplotlib")
def test_a_stream_of_one_height_is_not_cut_off(tmp_path: Path) -> None:
    flat = nl.inspect.ResidualNorms(np.full((3, 1, 4), 8.0, np.float32), np.full(3, 8.0, np.float32))
    axes = plots.plot_residual_norms(flat)
    saved(axes, tmp_path)
    assert axes.get_ylim() == pytest.approx((0, 8.8))


def test_attention_entropy(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    batch = tokenizer([TEXT, "The dog barks."], padding=True)
    entropy = nl.inspect.attention_entropy(nl.inspect.attention_maps(model, **batch))
    axes = plots.plot_attention_entropy(entropy, attention_mask=batch["attention_mask"])
    real = batch["attention_mask"] == 1
    expected = [[entropy[layer, :, head][real].mean() for head in range(4)] for layer in range(4)]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected, rtol=1e-6)
    assert list(axes.get_xticks()) == list(axes.get_yticks()) == [1, 2, 3, 4]
    saved(axes, tmp_path)
    with pytest.raises(InputError, match=r"entropy has shape \(2, 2\); expected"):
        plots.plot_attention_entropy(np.ones((2, 2)))


def test_effective_depth(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    updates = nl.inspect.block_updates(model, **tokenizer([TEXT]))
    axes = plots.plot_effective_depth({"a": updates, "b": updates})
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), updates.effective_depth)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    saved(axes, tmp_path)
    assert plots.plot_effective_depth(updates).get_legend() is None
    with pytest.raises(InputError, match="updates is empty"):
        plots.plot_effective_depth({})
    for wrong, shown in ((3, "3"), (None, "None"), ([updates], "of type list"), ({"a": 3}, "{'a': 3}")):
        with pytest.raises(InputError, match=f"updates is {shown}; give what block_updates returned"):
            plots.plot_effective_depth(wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("matplotlib")
def test_op_times(tmp_path: Path) -> None:
    times = [nl.inspect.OpTime("a", "linear", 2, 0.003), nl.inspect.OpTime("b", "gelu", 1, 0.004)]
    axes = plots.plot_op_times(nl.inspect.ForwardProfile([*times, times[0]], 0.011))
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([6, 4, 1])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["linear", "gelu", "outside of the ops"]
    saved(axes, tmp_path)


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
