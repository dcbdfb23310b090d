"""The model classes with a language-model head."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import boolean, random_generator
from .body import Recording
from .config import RobertaPreLayerNormConfig
from .errors import InputError, InputWarning
from .generation.settings import GenerationSettings
from .gradients import Gradients, GradientView
from .heads import (
    IGNORE,
    label_loss,
    label_loss_backward,
    lm_head,
    lm_head_backward,
    lm_head_top_k,
    next_token_labels,
    real_and_labelled,
)
from .inputs import as_array, as_floats
from .logit_rows import kept, kept_positions, labelled
from .model import BodyModel, output_gradient
from .ops.top_k import TopK
from .outputs import CausalLMOutput, MaskedLMOutput
from .params import Params, Shapes, View, linear_shapes, norm_shapes
from .rows import Columns, Reading


class LMModel(BodyModel):
    """What the two language models share: the LM head."""

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the LM head; a tied one has no decoder of its own."""
        width, vocabulary = config.hidden_size, config.vocab_size
        names = config.family.lm_head
        shapes = linear_shapes(names.dense, width, width) | norm_shapes(names.norm, width)
        shapes[names.bias] = (vocabulary,)
        if not config.tie_word_embeddings:
            shapes |= linear_shapes(names.decoder, width, vocabulary)
        return shapes

    def lm_head(self, hidden: Any) -> np.ndarray:
        """Logits of any rows of the body's last hidden state.

        Parameters
        ----------
        hidden : floats (..., C)
            For example only the rows of the masked tokens: the vocabulary projection is the most expensive step.

        Returns
        -------
        numpy.ndarray, (..., V)
        """
        rows, shape = self._hidden_rows(hidden)
        logits, _ = self._lm_head(rows)
        return logits.reshape(*shape, self.config.vocab_size)

    def top_tokens(self, hidden: Any, k: int, among: Any = None) -> TopK:
        """The tokens of the largest logits of any rows of the body's last hidden state, and their probabilities.

        With the kernels nothing is kept of the other logits, up to some tens of rows.

        Parameters
        ----------
        hidden : floats (R, C)
            Rows of the last hidden state.
        k : int
            How many tokens, at least 1; at most as many as there are.
        among : booleans (V,), optional
            Tokens that may be chosen; all by default. Probabilities are always among all.

        Returns
        -------
        TopK
            ``ids`` (R, K), best first and of equal ones the lower id first, their ``logits``, and the method
            ``probabilities()``, (R, K).

        Raises
        ------
        InputError
            For a `k` below 1, or arrays of another shape.
        """
        rows, shape = self._hidden_rows(hidden)
        if len(shape) != 1:
            raise InputError(f"hidden has shape {(*shape, rows.shape[1])}; expected (rows, {rows.shape[1]})")
        if type(k) is not int or k < 1:
            raise InputError(f"k is {k!r}; it must be a whole number from 1")
        if among is not None:
            among = as_array("among", among)
            if among.dtype != np.bool_ or among.shape != (self.config.vocab_size,):
                raise InputError(
                    f"among has shape {among.shape} and dtype {among.dtype}; "
                    f"expected booleans of shape ({self.config.vocab_size},)"
                )
        return lm_head_top_k(View(self.params, "", self.weight_dtype), rows, self.config, k, among)

    def _hidden_rows(self, hidden: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        """Checked rows (R, C), and the shape that they had, without its last axis."""
        array = as_array("hidden", hidden)
        width = self.config.hidden_size
        if array.shape[-1:] != (width,):
            raise InputError(f"hidden has shape {array.shape}; expected (..., {width})")
        return as_floats("hidden", array.reshape(-1, width), (None, width), self.dtype), array.shape[:-1]

    def _lm_head(self, hidden: np.ndarray, record: Recording | None = None) -> tuple[np.ndarray, Any]:
        return lm_head(View(self.params, "", "float32" if record else self.weight_dtype), hidden, self.config)

    def _lm_head_backward(self, dlogits: np.ndarray, cache: Any, g: Gradients) -> np.ndarray:
        return lm_head_backward(dlogits, cache, GradientView(g), self.config)


class RobertaPreLayerNormForMaskedLM(LMModel):
    """The body with a language-model head over every token."""

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        labelled_only: bool = False,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        labels : integers (B, T), optional
            The true ids; -100 where a token does not count. The loss is the mean cross entropy over the others.
        labelled_only : bool
            Logits of the tokens whose label counts alone, row by row, (N, V): the same loss and gradients (but for
            which elements a seed's dropout drops) for a part of the work, since the vocabulary projection is the
            most expensive step of a small model.

        Returns
        -------
        MaskedLMOutput
        """
        output, _ = self._forward(
            None, labels, labelled_only, input_ids=input_ids, attention_mask=attention_mask, **inputs
        )
        return self.finish(output, return_dict)

    def _forward(
        self,
        record: Recording | None,
        labels: Any = None,
        labelled_only: bool = False,
        packed: bool = False,
        **inputs: Any,
    ) -> tuple[MaskedLMOutput, Any]:
        reading: Reading | None = None
        if boolean("labelled_only", labelled_only):
            reading = labelled(labels)
        elif boolean("packed", packed) and labels is not None:
            reading = real_and_labelled(labels)
        out, body_cache = self._body(record, reading=reading, packed=packed, **inputs)
        logits, head_cache = self._lm_head(out.hidden, record)  # (R, C) -> (R, V)
        if labelled_only:
            own = np.asarray(labels)
            labels = own[own != IGNORE]
        else:
            logits = out.rows.unpack(logits)  # (R, V) -> (B, T, V)
        loss, loss_cache = (None, None) if labels is None else label_loss(logits, labels)
        output = MaskedLMOutput(loss, logits, out.hidden_states, out.attentions)
        return output, (body_cache, head_cache, loss_cache, logits.shape, None if labelled_only else out.rows)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, head_cache, loss_cache, shape, rows = cache
        from_loss = label_loss_backward(d["loss"], loss_cache, shape) if "loss" in d else None
        dlogits = output_gradient(d, shape, from_loss)
        if rows is not None:
            dlogits = rows.unpack_backward(dlogits)  # (B, T, V) -> (R, V)
        self._body_backward(self._lm_head_backward(dlogits, head_cache, g), body_cache, g)


class RobertaPreLayerNormForCausalLM(LMModel):
    """The body as a decoder, with a language-model head that predicts the next token.

    Attributes
    ----------
    generation_config : GenerationSettings
        What `generate` does unless it is told otherwise: those of the folder's ``generation_config.json``, or else of
        its ``config.json``. Assign others to change them; `save_pretrained` writes them.
    """

    generation_config: GenerationSettings

    def _adopt(self, config: RobertaPreLayerNormConfig, params: Params, dtype: np.dtype[np.floating]) -> None:
        super()._adopt(config, params, dtype)
        self.generation_config = GenerationSettings.from_model_config(config.extra)

    def _read_beside(self, folder: Path, overrides: Mapping[str, Any]) -> None:
        own = GenerationSettings.of_folder(folder, self.config.eos_token_id, overrides)
        if own is not None:
            self.generation_config = own

    def _write_beside(self, folder: Path) -> None:
        self.generation_config.complete(self.config).save_pretrained(folder)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        logits_to_keep: Any = 0,
        num_items_in_batch: float | None = None,
        shift_labels: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        labels : integers (B, T), optional
            The ids themselves (-100 where one does not count): each position is scored on the next one's label.
            With labels no cache is returned.
        logits_to_keep : int or integers (K,), optional
            Only the last so many positions, or the positions named, get logits (and a loss); 0 means all.
        num_items_in_batch : float, optional
            Divisor of the summed loss in place of the number of labels, for batches that are parts of a larger one.
        shift_labels : integers (B, T), optional
            Labels that are already shifted by one, used in place of `labels` (which must be given too).

        Returns
        -------
        CausalLMOutput
        """
        output, _ = self._forward(
            None,
            labels,
            logits_to_keep,
            num_items_in_batch,
            shift_labels,
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False if labels is not None else use_cache,
            **inputs,
        )
        return self.finish(output, return_dict)

    def generate(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        generation_config: Any = None,
        rng: int | np.random.Generator | None = None,
        tokenizer: Any = None,
        streamer: Any = None,
        progress: Any = None,
        logits_processor: Sequence[Any] = (),
        stopping_criteria: Sequence[Any] = (),
        past_key_values: Any = None,
        use_cache: bool | None = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        **settings: Any,
    ) -> Any:
        """Continue prompts token by token: greedy by default, ``do_sample=True``, or ``num_beams`` of 2 or more.

        Parameters
        ----------
        input_ids : integers (B, T)
            Prompts, padded on the left to one length.
        attention_mask : (B, T) of 0 / 1, optional
            Which tokens are real; by default all but padding (all, where padding is also an end token).
        generation_config : GenerationSettings, dict or path, optional
            Settings that go before the model's own `generation_config`; a path is that of a
            ``generation_config.json`` or its folder.
        rng : int or numpy.random.Generator, optional
            Source of sampling: the same one gives the same tokens.
        tokenizer : optional
            Anything with ``batch_decode``, for `stop_strings`.
        streamer : optional
            Its ``put`` gets the prompt and then each step's tokens (B,), its ``end`` is called last.
        progress : callable, optional
            Called after each step with the number of new tokens and their maximum.
        logits_processor : sequence of functions ``f(ids, scores) -> scores``
            The caller's own, after those of the settings and before those of sampling.
        stopping_criteria : sequence of functions ``f(ids) -> (B,) booleans``
            The caller's own rules of which rows have ended.
        past_key_values : optional
            Cache of the first tokens of `input_ids`.
        use_cache, encoder_hidden_states, encoder_attention_mask : optional
            As for calling the model; a decoder with cross-attention needs `encoder_hidden_states`.
        **settings
            Any field of `npprelnorm.generation.GenerationSettings`, such as ``max_new_tokens=40``.

        Returns
        -------
        numpy.ndarray (B * num_return_sequences, T + new tokens), or GenerateOutput
            The latter with ``return_dict_in_generate=True``.

        Raises
        ------
        InputError, ConfigError
            For unusable inputs, settings that contradict each other, or more tokens than there are positions.
        """
        from .generation.generate import generate, put_together  # built on this class

        return generate(
            self,
            input_ids,
            attention_mask,
            settings=put_together(self.generation_config, generation_config, settings),
            rng=random_generator(rng),
            tokenizer=tokenizer,
            streamer=streamer,
            progress=progress,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            past_key_values=past_key_values,
            use_cache=use_cache,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )

    def _forward(
        self,
        record: Recording | None,
        labels: Any = None,
        logits_to_keep: Any = 0,
        num_items_in_batch: float | None = None,
        shift_labels: Any = None,
        packed: bool = False,
        **inputs: Any,
    ) -> tuple[CausalLMOutput, Any]:
        if not self.config.is_decoder:
            warnings.warn(
                f"this {type(self).__name__} is no decoder: every token sees those after it; for a "
                "left-to-right model load it with is_decoder=True",
                InputWarning,
                stacklevel=3,
            )
        next_labels = None
        if labels is not None:
            next_labels = as_array("labels", labels if shift_labels is None else shift_labels)
            if shift_labels is None and next_labels.ndim == 2:
                next_labels = next_token_labels(next_labels)

        def reading(real: np.ndarray) -> np.ndarray:
            return kept(kept_positions(real.shape[1], logits_to_keep), real, next_labels, packed)

        out, body_cache = self._body(record, reading=reading, packed=packed, **inputs)
        columns = Columns(out.rows, kept_positions(out.rows.shape[1], logits_to_keep))
        scores, head_cache = self._lm_head(columns.take(out.hidden), record)  # (R, C) -> (M, C) -> (M, V)
        logits = columns.unpack(scores)  # (M, V) -> (B, K, V)
        loss, loss_cache = None, None
        if next_labels is not None:
            loss, loss_cache = label_loss(logits, next_labels, divisor=_item_count(num_items_in_batch))
        output = CausalLMOutput(
            loss, logits, out.past_key_values, out.hidden_states, out.attentions, out.cross_attentions
        )
        return output, (body_cache, head_cache, loss_cache, logits.shape, columns)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, head_cache, loss_cache, shape, columns = cache
        from_loss = label_loss_backward(d["loss"], loss_cache, shape) if "loss" in d else None
        dscores = columns.unpack_backward(output_gradient(d, shape, from_loss))  # (B, K, V) -> (M, V)
        dtaken = self._lm_head_backward(dscores, head_cache, g)
        self._body_backward(columns.take_backward(dtaken), body_cache, g)


def _item_count(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise InputError(f"num_items_in_batch is {value!r}; allowed: a number above 0")
    return number
