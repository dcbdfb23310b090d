"""An encoder and a decoder that reads its states through cross-attention: transformers' EncoderDecoderModel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .arguments import boolean, choice_of_names, random_generator
from .encoder_decoder_base import DECODER, ENCODER, PROJECTION, PreTrainedPair
from .errors import InputError
from .gradients import frozen_names
from .heads import IGNORE, label_loss, label_loss_backward
from .inputs import as_array, as_floats, as_integers
from .model import Cotangents, checked_cotangents
from .ops.linear import LinearCache, linear_backward_input, linear_backward_weight, sum_rows
from .outputs import BaseModelOutput, Seq2SeqLMOutput
from .params import Params, View
from .stored import affine

DECODER_ARGUMENT = "decoder_"  # what the arguments of the decoder begin with
_SHARED = ("output_attentions", "output_hidden_states", "hidden_states_convention")
# inputs of the pair that have a gradient, and the part and name that they belong to
_INPUT_GRADIENTS = {"inputs_embeds": (ENCODER, "inputs_embeds"), "decoder_inputs_embeds": (DECODER, "inputs_embeds")}


class EncoderDecoderModel(PreTrainedPair):
    """An encoder and a decoder with cross-attention and a language-model head, trained and used as one.

    Parameters
    ----------
    config : EncoderDecoderConfig
        Copied; later changes of it do not reach the model.
    rng : int or numpy.random.Generator
        Source of the fresh weights.
    dtype : {"float32", "float64"}
        Type that everything is stored and computed in.

    Attributes
    ----------
    config : EncoderDecoderConfig
    params : dict of str to numpy.ndarray
        Every parameter by its checkpoint name, ``encoder.*``, ``decoder.*`` and, where the two parts differ in width,
        ``enc_to_dec_proj.*``: exactly what `save_pretrained` writes.
    dtype : numpy.dtype
    generation_config : GenerationSettings
        What `generate` does unless it is told otherwise.
    """

    differentiable = ("loss", "logits", "encoder_last_hidden_state")

    def __call__(
        self, input_ids: Any = None, attention_mask: Any = None, *, return_dict: bool | None = None, **inputs: Any
    ) -> Any:
        """Run both parts.

        Parameters
        ----------
        input_ids, inputs_embeds : (B, S) or (B, S, C), optional
            The encoder's tokens. One of them, or `encoder_outputs`.
        attention_mask : (B, S), optional
            Which of them are real, for the encoder and for the decoder's cross-attention.
        decoder_input_ids, decoder_inputs_embeds : (B, T) or (B, T, C), optional
            The decoder's tokens. By default made of the labels, moved right by one behind
            ``config.decoder_start_token_id``.
        decoder_attention_mask : (B, T), optional
            Which of these are real; of those made of labels, all but padding.
        encoder_outputs : optional
            What the encoder returned, or a tuple that begins with its last hidden state: it is not run again.
        past_key_values, use_cache : optional
            The decoder's cache, as for `RobertaPreLayerNormForCausalLM`.
        labels : integers (B, T), optional
            The tokens to write, -100 where one does not count. The loss is the mean cross entropy over the others.
        output_attentions, output_hidden_states, hidden_states_convention : optional
            Of both parts.
        return_dict : bool, optional
            False for a plain tuple.
        **inputs
            Further arguments of the encoder, such as ``token_type_ids``, and of the decoder, with ``decoder_`` in
            front.

        Returns
        -------
        Seq2SeqLMOutput
        """
        labels, given, of_encoder, of_decoder = self._split(input_ids, attention_mask, inputs)
        encoded = self.encode(given, **of_encoder)
        states, _ = self.project(encoded.last_hidden_state)
        decoded = self.decoder(**of_decoder, encoder_hidden_states=states, return_dict=True)
        loss = None if labels is None else label_loss(decoded.logits, labels)[0]
        output = _output(loss, encoded, decoded)
        of_config = self.config.extra.get("return_dict", True)
        as_output = of_config if return_dict is None else boolean("return_dict", return_dict)
        return output if as_output else output.to_tuple()

    def loss_and_grads(
        self,
        *,
        rng: int | np.random.Generator | None = None,
        frozen: Collection[str] = (),
        input_grads: Collection[str] = (),
        recompute: bool = False,
        **inputs: Any,
    ) -> tuple[Seq2SeqLMOutput, Params]:
        """Run both parts on labelled inputs, forward and backward.

        Arguments, results and errors are those of `RobertaPreLayerNormModel.loss_and_grads`; `frozen` has names as in
        ``params``, such as ``"encoder.*"``, and `input_grads` may hold ``"inputs_embeds"`` and
        ``"decoder_inputs_embeds"``.
        """
        if inputs.get("labels") is None:
            raise InputError("there is no loss without labels; give labels")
        return self.vjp({"loss": 1.0}, rng=rng, frozen=frozen, input_grads=input_grads, recompute=recompute, **inputs)

    def vjp(
        self,
        cotangents: Cotangents | Callable[[Any], Cotangents],
        *,
        rng: int | np.random.Generator | None = None,
        frozen: Collection[str] = (),
        input_grads: Collection[str] = (),
        recompute: bool = False,
        input_ids: Any = None,
        attention_mask: Any = None,
        **inputs: Any,
    ) -> tuple[Seq2SeqLMOutput, Params]:
        """Vector-Jacobian product: gradients of the sum of the outputs' fields times given arrays.

        As `RobertaPreLayerNormModel.vjp`; fields are ``"loss"``, ``"logits"`` and ``"encoder_last_hidden_state"``.
        """
        wanted_grads = choice_of_names("input_grads", input_grads, _INPUT_GRADIENTS)
        labels, given, of_encoder, of_decoder = self._split(input_ids, attention_mask, inputs)
        if given is not None:
            raise InputError("gradients do not go through encoder_outputs; give input_ids")
        still = frozen_names(self.params, frozen)
        generator = None if rng is None else random_generator(rng)

        def options(prefix: str) -> dict[str, Any]:
            wanted = [name for part, name in map(_INPUT_GRADIENTS.__getitem__, wanted_grads) if part == prefix]
            held = [name.removeprefix(prefix) for name in still if name.startswith(prefix)]
            return {"rng": generator, "recompute": recompute, "frozen": held, "input_grads": wanted}

        outputs: list[Seq2SeqLMOutput] = []
        grads: Params = {}

        def through_decoder(encoded: BaseModelOutput) -> Cotangents:
            """The rest of the forward, and its backward down to the encoder's last hidden state."""
            states, projected = self.project(encoded.last_hidden_state)
            d: dict[str, np.ndarray] = {}

            def of_decoder_output(decoded: Any) -> Cotangents:
                loss, loss_cache = (None, None) if labels is None else label_loss(decoded.logits, labels)
                outputs.append(_output(loss, encoded, decoded))
                d.update(checked_cotangents(cotangents, outputs[0], self.differentiable, self.dtype))
                dlogits = d.get("logits", np.zeros_like(decoded.logits))
                if loss_cache is not None and "loss" in d:
                    dlogits = dlogits + label_loss_backward(d["loss"], loss_cache, decoded.logits.shape)
                return {"logits": dlogits}

            more = options(DECODER)
            more["input_grads"] = [*more["input_grads"], "encoder_hidden_states"]
            _, of_part = self.decoder.vjp(of_decoder_output, **more, **of_decoder, encoder_hidden_states=states)
            dstates = of_part.pop("encoder_hidden_states")
            if "inputs_embeds" in of_part:
                grads["decoder_inputs_embeds"] = of_part.pop("inputs_embeds")
            grads.update({DECODER + name: value for name, value in of_part.items()})
            if projected is not None:  # undoes states W^T + b
                grads[PROJECTION + ".weight"] = linear_backward_weight(dstates, projected)
                grads[PROJECTION + ".bias"] = sum_rows(dstates)
                dstates = linear_backward_input(dstates, projected)
            own = d.get("encoder_last_hidden_state")
            return {"last_hidden_state": dstates if own is None else dstates + own}

        _, of_part = self.encoder.vjp(through_decoder, **options(ENCODER), **of_encoder)
        if "inputs_embeds" in of_part:
            grads["inputs_embeds"] = of_part.pop("inputs_embeds")
        grads |= {ENCODER + name: value for name, value in of_part.items()}
        order = [name for name in self.params if name not in still] + [n for n in _INPUT_GRADIENTS if n in grads]
        return outputs[0], {name: grads[name] for name in order}

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        generation_config: Any = None,
        rng: int | np.random.Generator | None = None,
        tokenizer: Any = None,
        streamer: Any = None,
        progress: Any = None,
        logits_processor: Sequence[Any] = (),
        stopping_criteria: Sequence[Any] = (),
        use_cache: bool | None = None,
        inputs_embeds: Any = None,
        **settings: Any,
    ) -> Any:
        """Read a text with the encoder, once, and write another with the decoder, token by token.

        Parameters
        ----------
        input_ids, inputs_embeds : (B, S) or (B, S, C), optional
            What the encoder reads. One of them, or `encoder_outputs`.
        attention_mask : (B, S), optional
            Which of its tokens are real; by default all, with a warning if there is padding, as for calling the model.
        decoder_input_ids : integers (B, T), optional
            How the rows begin; ``decoder_start_token_id`` is put in front if no row has it there, and is all there is
            by default.
        decoder_attention_mask : (B, T), optional
            Which of these tokens are real; by default all.
        encoder_outputs : optional
            As for calling the model.
        generation_config, rng, tokenizer, streamer, progress, logits_processor, stopping_criteria, use_cache
        **settings
            As for `RobertaPreLayerNormForCausalLM.generate`.

        Returns
        -------
        numpy.ndarray (B * num_return_sequences, T + new tokens), or GenerateOutput
            The decoder's rows, their beginning included.

        Raises
        ------
        InputError, ConfigError
            As from `RobertaPreLayerNormForCausalLM.generate`, and without a token for the decoder to begin with.
        """
        from .generation.pair import generate_pair  # built on this class

        return generate_pair(
            self,
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            generation_config=generation_config,
            changes=settings,
            rng=random_generator(rng),
            tokenizer=tokenizer,
            streamer=streamer,
            progress=progress,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            use_cache=use_cache,
        )

    def encode(self, encoder_outputs: Any, **of_encoder: Any) -> BaseModelOutput:
        """What the encoder returns for its arguments, or `encoder_outputs` if it is given, checked."""
        if encoder_outputs is None:
            output: BaseModelOutput = self.encoder(**of_encoder, return_dict=True)
            return output
        if hasattr(encoder_outputs, "last_hidden_state"):
            fields = {name: getattr(encoder_outputs, name, None) for name in ("hidden_states", "attentions")}
            states = encoder_outputs.last_hidden_state
        else:
            fields = {}
            states = encoder_outputs[0] if isinstance(encoder_outputs, tuple | list) else encoder_outputs
        width = self.config.encoder.hidden_size
        return BaseModelOutput(as_floats("encoder_outputs", states, (None, None, width), self.dtype), **fields)

    def project(self, states: np.ndarray) -> tuple[np.ndarray, LinearCache | None]:
        """The encoder's states (B, S, C) in the decoder's width; unchanged where they have it."""
        if not self.config.has_projection:
            return states, None
        return affine(states, View(self.params), PROJECTION)

    def shift_right(self, labels: np.ndarray) -> np.ndarray:
        """The decoder's input that labels (B, T) stand for: the start token, then all labels but the last."""
        ids = {name: getattr(self.config, name) for name in ("decoder_start_token_id", "pad_token_id")}
        for name, value in ids.items():
            if value is None:
                raise InputError(
                    f"{name} of the pair's configuration is None, so labels cannot become the decoder's input; set "
                    f"model.config.{name}, or give decoder_input_ids"
                )
        start = np.full_like(labels[:, :1], ids["decoder_start_token_id"])
        shifted = np.concatenate([start, labels[:, :-1]], axis=1)
        return np.where(shifted == IGNORE, ids["pad_token_id"], shifted)

    def _split(
        self, input_ids: Any, attention_mask: Any, inputs: dict[str, Any]
    ) -> tuple[np.ndarray | None, Any, dict[str, Any], dict[str, Any]]:
        """Labels, given encoder outputs, and the arguments of each part."""
        inputs = dict(inputs)
        labels, given = inputs.pop("labels", None), inputs.pop("encoder_outputs", None)
        shared = {name: inputs.pop(name) for name in _SHARED if name in inputs}
        of_decoder: dict[str, Any] = {n: inputs.pop(n) for n in ("past_key_values", "use_cache") if n in inputs}
        of_decoder |= {n.removeprefix(DECODER_ARGUMENT): v for n, v in inputs.items() if n.startswith(DECODER_ARGUMENT)}
        of_encoder = {n: v for n, v in inputs.items() if not n.startswith(DECODER_ARGUMENT)}
        if labels is not None:
            labels = as_array("labels", labels)
            if labels.ndim != 2:
                raise InputError(f"labels has shape {labels.shape}; expected (batch, tokens)")
            if labels.dtype.kind == "u":  # which cannot hold IGNORE
                labels = labels.astype(np.int64)
            as_integers("labels", np.where(labels == IGNORE, 0, labels), self.config.decoder.vocab_size, "vocab_size")
        if of_decoder.get("input_ids") is None and of_decoder.get("inputs_embeds") is None:
            if labels is None:
                raise InputError(
                    "the decoder has nothing to read; give labels, or decoder_input_ids or decoder_inputs_embeds"
                )
            of_decoder["input_ids"] = self.shift_right(labels)
            if of_decoder.get("attention_mask") is None:
                of_decoder["attention_mask"] = of_decoder["input_ids"] != self.config.pad_token_id
        of_encoder |= shared | {"input_ids": input_ids, "attention_mask": attention_mask}
        return labels, given, of_encoder, of_decoder | shared | {"encoder_attention_mask": attention_mask}


def _output(loss: np.ndarray | None, encoded: BaseModelOutput, decoded: Any) -> Seq2SeqLMOutput:
    return Seq2SeqLMOutput(
        loss=loss,
        logits=decoded.logits,
        past_key_values=decoded.past_key_values,
        decoder_hidden_states=decoded.hidden_states,
        decoder_attentions=decoded.attentions,
        cross_attentions=decoded.cross_attentions,
        encoder_last_hidden_state=encoded.last_hidden_state,
        encoder_hidden_states=encoded.hidden_states,
        encoder_attentions=encoded.attentions,
    )
