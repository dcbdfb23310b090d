"""The body: embeddings, the stack of layers, the final LayerNorm; and the model class without a head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .cache import KeyValueCache
from .config import RobertaPreLayerNormConfig
from .errors import InputError
from .inputs import Inputs, prepare
from .layers import embeddings, layer
from .ops.activations import tanh
from .ops.linear import LinearCache, linear
from .ops.normalization import layer_norm
from .outputs import BaseModelOutput, ModelOutput
from .params import View
from .pretrained import PreTrainedModel

CONVENTIONS = ("v5", "v4")


def body(
    p: View,
    config: RobertaPreLayerNormConfig,
    inputs: Inputs,
    *,
    attentions: bool = False,
    hidden_states: str | None = None,
    use_cache: bool = False,
) -> BaseModelOutput:
    """Embeddings -> N layers -> final LayerNorm, keeping on the way what is asked for.

    `hidden_states` is a convention: "v5" ends with the output of the final LayerNorm, "v4" with its input.
    """
    x, _ = embeddings(
        p.at("embeddings."), config, inputs.input_ids, inputs.inputs_embeds, inputs.token_type_ids, inputs.position_ids
    )
    stream, own, crossed, key_values = [x], [], [], []
    for index in range(config.num_hidden_layers):
        here = p.at(f"encoder.layer.{index}.")
        x, cache = layer(
            x,
            here,
            config,
            mask=inputs.bias,
            head_mask=None if inputs.head_masks is None else inputs.head_masks[index],
            relative=inputs.relative(here, config.position_embedding_type),
            past=inputs.past[index] if inputs.past else None,
            encoder_states=inputs.encoder_states,
            encoder_mask=inputs.encoder_bias,
        )
        if hidden_states:
            stream.append(x)
        if attentions:
            own.append(cache.attention[1].core.weights)
            if cache.cross:
                crossed.append(cache.cross[1].core.weights)
        if use_cache:
            key_values.append(cache.key_values())
    last, _ = layer_norm(x, *p.affine("LayerNorm"), config.layer_norm_eps)
    if hidden_states == "v5":
        stream[-1] = last
    return BaseModelOutput(
        last_hidden_state=last,
        hidden_states=tuple(stream) if hidden_states else None,
        past_key_values=KeyValueCache(key_values) if use_cache else None,
        attentions=tuple(own) if attentions else None,
        cross_attentions=tuple(crossed) if crossed else None,
    )


class PoolerCache(NamedTuple):
    """What the backward needs."""

    dense: LinearCache
    activation: tuple[np.ndarray, ...]


def pooler(p: View, hidden: np.ndarray) -> tuple[np.ndarray, PoolerCache]:
    """tanh of a linear map of row 0. (B, T, C) -> (B, C)."""
    h, dense_cache = linear(hidden[:, 0], *p.affine("pooler.dense"))
    y, activation_cache = tanh(h)
    return y, PoolerCache(dense_cache, activation_cache)


class BodyModel(PreTrainedModel):
    """What the model classes share: running the body on checked inputs."""

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
            What cross-attention looks at (decoders with ``add_cross_attention``; others ignore it).
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

        Returns
        -------
        BaseModelOutput

        Raises
        ------
        InputError
            For inputs that do not fit the model or each other.
        """
        if hidden_states_convention not in CONVENTIONS:
            raise InputError(f"hidden_states_convention is {hidden_states_convention!r}; allowed: 'v5', 'v4'")
        config = self.config
        inputs = prepare(
            config,
            self.dtype,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            head_mask=head_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
        )
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        return body(
            View(self.params, self.base_prefix),
            config,
            inputs,
            attentions=config.output_attentions if output_attentions is None else output_attentions,
            hidden_states=hidden_states_convention if output_hidden_states else None,
            use_cache=config.is_decoder and (config.use_cache if use_cache is None else use_cache),
        )

    def finish(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """The output itself, or a tuple where `return_dict` (or the configuration's) is False."""
        as_output = self.config.return_dict if return_dict is None else return_dict
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
        output = self.base(input_ids, attention_mask, **inputs)
        if self.has_pooler:
            output.pooler_output, _ = pooler(View(self.params, self.base_prefix), output.last_hidden_state)
        return self.finish(output, return_dict)
