"""What the model classes share (running the body forward and backward), and the class without a head."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from .arguments import boolean, random_generator
from .body import BodyCache, BodyOutput, Recording, body, body_backward, first_layer_needed, pooler, pooler_backward
from .config import RobertaPreLayerNormConfig
from .errors import InputError
from .gradients import Gradients, GradientView
from .inputs import as_array, prepare
from .outputs import BaseModelOutput, ModelOutput
from .params import Params, View
from .pretrained import PreTrainedModel
from .rows import Reading, all_real, real_and_first

CONVENTIONS = ("v5", "v4")
INPUTS = tuple(inspect.signature(prepare).parameters)[2:]  # after the configuration and the dtype

Cotangents = Mapping[str, Any]


def output_gradient(
    d: Mapping[str, np.ndarray], logits_shape: tuple[int, ...], from_loss: np.ndarray | None
) -> np.ndarray:
    """Both shares of the logits' gradient: the one given, and the one that comes through the loss."""
    parts = [part for part in (d.get("logits"), from_loss) if part is not None]
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1]).reshape(logits_shape)


def _either(given: Any, otherwise: bool) -> Any:
    """An optional argument, or what the configuration says."""
    return otherwise if given is None else given


def _checked_reading(read: Any, shape: tuple[int, ...]) -> np.ndarray:
    wanted = as_array("read", read)
    if wanted.dtype != np.bool_ or wanted.shape != shape:
        raise InputError(f"read has shape {wanted.shape} and dtype {wanted.dtype}; expected booleans of shape {shape}")
    return wanted


def checked_cotangents(
    cotangents: Cotangents | Callable[[Any], Cotangents],
    output: ModelOutput,
    differentiable: Collection[str],
    dtype: np.dtype[np.floating],
) -> dict[str, np.ndarray]:
    """What a caller of `vjp` gave, as arrays of the shapes of the output's fields: at least one."""
    given = cotangents(output) if callable(cotangents) else cotangents
    have = [field for field in differentiable if field in output]
    if not isinstance(given, Mapping):
        what = "None" if given is None else f"of type {type(given).__name__}"
        raise InputError(f"cotangents is {what}; give a dict of arrays by field of the output: {', '.join(have)}")
    if not given:
        raise InputError(f"cotangents is empty; give an array for at least one field of the output: {', '.join(have)}")
    result = {}
    for name, value in given.items():
        if name not in have:
            raise InputError(f"cotangents holds {name!r}; allowed for this output: {', '.join(have)}")
        array = as_array(f"the cotangent of {name}", value)
        if array.dtype.kind not in "biuf":
            raise InputError(f"the cotangent of {name} has dtype {array.dtype}; give floats")
        if array.shape != output[name].shape:
            raise InputError(
                f"the cotangent of {name} has shape {array.shape}; it must have the output's, {output[name].shape}"
            )
        result[name] = array.astype(dtype, copy=False)
    return result


class BodyModel(PreTrainedModel):
    """What the model classes share: running the body on checked inputs, and its backward."""

    def _view(self, *, stored: bool = False) -> View:
        """The parameters of the body: with all their bits, or for inference as `weight_dtype` stores them."""
        return View(self.params, self.base_prefix, self.weight_dtype if stored else "float32")

    @abstractmethod
    def __call__(self, input_ids: Any = None, attention_mask: Any = None, **inputs: Any) -> Any:
        """Run the model."""

    @abstractmethod
    def _forward(self, record: Recording | None, **arguments: Any) -> tuple[Any, Any]:
        """The output, and with `record` what `_backward` needs."""

    @abstractmethod
    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        """From gradients of the output's fields to those of everything that `g` wants."""

    def _body(
        self,
        record: Recording | None,
        *,
        reading: Reading | None = None,
        packed: bool = False,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        hidden_states_convention: str = "v5",
        **inputs: Any,
    ) -> tuple[BodyOutput, BodyCache | None]:
        """Run the body for the tokens that `reading` names; by default for all, or with `packed` for the real ones."""
        config = self.config
        packed = boolean("packed", packed)
        attentions = boolean("output_attentions", _either(output_attentions, config.output_attentions))
        hidden_states = boolean("output_hidden_states", _either(output_hidden_states, config.output_hidden_states))
        caching = boolean("use_cache", _either(use_cache, config.use_cache))
        if unknown := sorted(inputs.keys() - INPUTS):
            raise InputError(
                f"{unknown[0]} is no argument of {type(self).__name__}; of the body's: {', '.join(INPUTS)}"
            )
        if hidden_states_convention not in CONVENTIONS:
            raise InputError(f"hidden_states_convention is {hidden_states_convention!r}; allowed: 'v5', 'v4'")
        if record is not None and inputs.get("past_key_values") is not None:
            raise InputError(
                "past_key_values is given, but gradients do not go through a cache; give all tokens at once"
            )
        prepared = prepare(config, self.dtype, **inputs)
        if reading is None and packed:
            reading = all_real
        return body(
            self._view(stored=record is None),
            config,
            prepared,
            wanted=None if reading is None else reading(prepared.real),
            attentions=attentions,
            hidden_states=hidden_states_convention if hidden_states else None,
            use_cache=record is None and config.is_decoder and caching,
            record=record,
        )

    def _body_backward(self, dhidden: np.ndarray, cache: BodyCache, g: Gradients) -> None:
        body_backward(dhidden, cache, self._view(), self.config, GradientView(g, self.base_prefix))

    def base(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        *,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        hidden_states_convention: str = "v5",
        packed: bool = False,
        read: Any = None,
    ) -> BaseModelOutput:
        """Run the body without the head.

        Parameters
        ----------
        input_ids : integers (B, T), optional
            Token ids. Either these or `inputs_embeds`.
        attention_mask : optional
            (B, S) of 0 / 1 or booleans: which tokens are real, where S counts those of a cache too; (B, T, S) of
            0 / 1: what each query sees; (B, 1 or H, T, S) of booleans, or of floats to add to the scores.
            Without it every token is real, padding too.
        token_type_ids : integers (B, T), optional
            Zeros by default.
        position_ids : integers (B, T), optional
            By default counted from ``pad_token_id + 1`` over the tokens that are not padding.
        inputs_embeds : floats (B, T, C), optional
            Vectors in place of the word embeddings.
        head_mask : floats (H,) or (N, H), optional
            Factor of each head's attention weights.
        encoder_hidden_states : floats (B, E, C), optional
            What cross-attention looks at (decoders with ``add_cross_attention``; others ignore it). Without them
            and without a cache of them, cross-attention is skipped, as in transformers. With a cache of them they need
            not be given again, and are not looked at if they are; transformers skips cross-attention in every call
            that does not give them, whatever its cache holds, and so has to be given them each time.
        encoder_attention_mask : optional
            As `attention_mask`, for the encoder's tokens.
        past_key_values : KeyValueCache or sequence of (key, value[, cross_key, cross_value]), optional
            What an earlier call of a decoder returned.
        use_cache : bool, optional
            Whether a decoder returns its cache; by default ``config.use_cache``.
        output_attentions, output_hidden_states : bool, optional
            What to return besides; by default as the configuration says.
        hidden_states_convention : {"v5", "v4"}
            Whether the last of `hidden_states` is after the final LayerNorm (transformers 5) or before it (4).
        packed : bool
            Leave padding out of the computation: where a mask (B, S) is 0, the results of tokens are zeros, and
            nothing is spent on them; elsewhere they are the same, and so are losses and gradients. (A token whose
            label counts is computed even if it is padding, and so is the one that a pooler reads. Where attention
            weights or hidden states are asked for, everything is computed, and these are whole.)
        read : booleans (B, T), optional
            The only tokens whose vectors are wanted: `last_hidden_state` is then (R, C), row by row, and as little
            as possible is computed of the others.

        Returns
        -------
        BaseModelOutput

        Raises
        ------
        InputError
            For inputs that do not fit the model or each other.
        """
        output, _ = self._body(
            None,
            reading=None if read is None else lambda real: _checked_reading(read, real.shape),
            packed=packed,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            head_mask=head_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            hidden_states_convention=hidden_states_convention,
        )
        return output.named(output.hidden if read is not None else output.rows.unpack(output.hidden))

    def loss_and_grads(
        self,
        *,
        rng: int | np.random.Generator | None = None,
        frozen: Collection[str] = (),
        input_grads: Collection[str] = (),
        recompute: bool = False,
        **inputs: Any,
    ) -> tuple[Any, Params]:
        """Run the model on labelled inputs, forward and backward.

        Parameters
        ----------
        rng : int or numpy.random.Generator, optional
            Source of dropout. Without it there is none, as in evaluation.
        frozen : collection of str
            Shell-style patterns of parameters that get no gradient, such as ``"roberta_prelayernorm.*"`` to train a
            head only. The part of the backward that only they need is not run.
        input_grads : collection of str
            Inputs whose gradients are returned as well: ``"inputs_embeds"`` (B, T, C; those of the word vectors
            where ids were given), ``"encoder_hidden_states"`` (B, E, C), ``"head_mask"`` (N, H).
        recompute : bool
            Keep only each layer's input and run its forward again in the backward: the same gradients from less
            memory, at the price of one more forward.
        **inputs
            As for calling the model, the labels included.

        Returns
        -------
        output
            As from calling the model, without a key/value cache.
        grads : dict of str to numpy.ndarray
            The loss's gradient by each parameter that is not frozen, by the names and in the shapes of ``params``;
            and those asked for by `input_grads`.

        Raises
        ------
        InputError
            Without labels, or for unusable inputs.
        """

        def of_the_loss(output: ModelOutput) -> Cotangents:
            if "loss" not in output:
                raise InputError("there is no loss without labels; give labels (or start_positions and end_positions)")
            return {"loss": 1.0}

        return self.vjp(of_the_loss, rng=rng, frozen=frozen, input_grads=input_grads, recompute=recompute, **inputs)

    def vjp(
        self,
        cotangents: Cotangents | Callable[[Any], Cotangents],
        *,
        rng: int | np.random.Generator | None = None,
        frozen: Collection[str] = (),
        input_grads: Collection[str] = (),
        recompute: bool = False,
        **inputs: Any,
    ) -> tuple[Any, Params]:
        """Vector-Jacobian product: gradients of the sum of the outputs' fields times given arrays.

        With it any loss can be trained: give its gradient by the logits.

        Parameters
        ----------
        cotangents : mapping of str to array, or a function of the output that returns one
            For each output field (``"logits"``, ``"loss"``, ``"last_hidden_state"``, ...) an array of its shape.
        rng, frozen, input_grads, recompute, **inputs
            As for `loss_and_grads`.

        Returns
        -------
        output, grads
            As from `loss_and_grads`.

        Raises
        ------
        InputError
            Without any field, for one that the output lacks or that has no backward, or an array of another shape.
        """
        g = Gradients(self.params, frozen, input_grads)
        recompute = boolean("recompute", recompute)
        first = first_layer_needed(g, self.base_prefix, self.config.num_hidden_layers)
        generator = None if rng is None else random_generator(rng)
        output, cache = self._forward(Recording(first, generator, recompute), **inputs)
        self._backward(checked_cotangents(cotangents, output, self.differentiable, self.dtype), cache, g)
        return output, g.finish()

    # fields of the output that `vjp` takes cotangents of
    differentiable: tuple[str, ...] = ("loss", "logits")

    def finish(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """The output itself, or a tuple where `return_dict` (or the configuration's) is False."""
        as_output = boolean("return_dict", _either(return_dict, self.config.return_dict))
        return output if as_output else output.to_tuple()


class RobertaPreLayerNormModel(BodyModel):
    """The body with an optional pooler, and no head.

    Parameters
    ----------
    config : RobertaPreLayerNormConfig
        Copied; later changes of it do not reach the model.
    add_pooling_layer : bool
        Whether there is a pooler: tanh of a linear map of row 0.
    rng : int or numpy.random.Generator
        Source of the fresh weights.
    dtype : {"float32", "float64"}
        Type that everything is stored and computed in.
    """

    base_prefix = ""
    pooler = None

    def __init__(
        self,
        config: RobertaPreLayerNormConfig,
        add_pooling_layer: bool = True,
        *,
        rng: int | np.random.Generator = 0,
        dtype: str = "float32",
    ) -> None:
        self._draw(config, add_pooling_layer, rng, dtype)

    def __call__(
        self, input_ids: Any = None, attention_mask: Any = None, *, return_dict: bool | None = None, **inputs: Any
    ) -> Any:
        """Run the model; arguments as for `base`, and ``return_dict=False`` for a plain tuple.

        Returns
        -------
        BaseModelOutput
        """
        output, _ = self._forward(None, input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return self.finish(output, return_dict)

    differentiable = ("last_hidden_state", "pooler_output")

    def _forward(self, record: Recording | None, packed: bool = False, **arguments: Any) -> tuple[BaseModelOutput, Any]:
        reading = real_and_first if boolean("packed", packed) and self.has_pooler else None
        out, body_cache = self._body(record, reading=reading, packed=packed, **arguments)
        output = out.named(out.rows.unpack(out.hidden))
        pooler_cache = None
        if self.has_pooler:
            output.pooler_output, pooler_cache = pooler(
                self._view(stored=record is None), output.last_hidden_state[:, 0]
            )
        return output, (body_cache, pooler_cache, out.rows)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, pooler_cache, rows = cache
        dlast = np.zeros((*rows.shape, self.config.hidden_size), self.dtype)
        if "last_hidden_state" in d:
            dlast += d["last_hidden_state"]
        if "pooler_output" in d:
            dlast[:, 0] += pooler_backward(d["pooler_output"], pooler_cache, GradientView(g))
        self._body_backward(rows.unpack_backward(dlast), body_cache, g)
