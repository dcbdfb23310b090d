"""The model classes with a task head, as users of transformers know them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .config import RobertaPreLayerNormConfig
from .errors import ConfigError, InputError, InputWarning
from .heads import (
    classification_head,
    classifier_dropout,
    label_loss,
    linear_head,
    lm_head,
    next_token_labels,
    sequence_loss,
    span_loss,
    told_problem_type,
)
from .inputs import as_array, as_floats
from .model import BodyModel, pooler
from .outputs import CausalLMOutput, ClassifierOutput, MaskedLMOutput, QuestionAnsweringOutput
from .params import Shapes, View, linear_shapes, norm_shapes


class LMModel(BodyModel):
    """What the two language models share: the LM head."""

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the LM head; a tied one has no decoder of its own."""
        width, vocabulary = config.hidden_size, config.vocab_size
        shapes = linear_shapes("lm_head.dense", width, width) | norm_shapes("lm_head.layer_norm", width)
        shapes["lm_head.bias"] = (vocabulary,)
        if not config.tie_word_embeddings:
            shapes |= linear_shapes("lm_head.decoder", width, vocabulary)
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
        array = as_array("hidden", hidden)
        rows = as_floats("hidden", array.reshape(-1, array.shape[-1]), (None, self.config.hidden_size), self.dtype)
        logits, _ = lm_head(View(self.params), rows, self.config.layer_norm_eps)
        return logits.reshape(*array.shape[:-1], self.config.vocab_size)


class RobertaPreLayerNormForMaskedLM(LMModel):
    """The body with a language-model head over every token."""

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        labels : integers (B, T), optional
            The true ids; -100 where a token does not count. The loss is the mean cross entropy over the others.

        Returns
        -------
        MaskedLMOutput
        """
        out = self.base(input_ids, attention_mask, **inputs)
        logits = self.lm_head(out.last_hidden_state)
        loss = None if labels is None else label_loss(logits, labels)[0]
        return self.finish(MaskedLMOutput(loss, logits, out.hidden_states, out.attentions), return_dict)


class RobertaPreLayerNormForCausalLM(LMModel):
    """The body as a decoder, with a language-model head that predicts the next token."""

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
        if not self.config.is_decoder:
            warnings.warn(
                "this RobertaPreLayerNormForCausalLM is no decoder: every token sees those after it; for a "
                "left-to-right model load it with is_decoder=True",
                InputWarning,
                stacklevel=2,
            )
        out = self.base(input_ids, attention_mask, use_cache=False if labels is not None else use_cache, **inputs)
        logits = self.lm_head(_kept(out.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            if shift_labels is None:
                own = as_array("labels", labels)
                shift_labels = next_token_labels(own) if own.ndim == 2 else own
            loss, _ = label_loss(logits, shift_labels, divisor=num_items_in_batch)
        return self.finish(
            CausalLMOutput(loss, logits, out.past_key_values, out.hidden_states, out.attentions, out.cross_attentions),
            return_dict,
        )


def _kept(hidden: np.ndarray, keep: Any) -> np.ndarray:
    """The last `keep` positions (0: all), or those of an index array. (B, T, C) -> (B, K, C)."""
    tokens = hidden.shape[1]
    if isinstance(keep, int) and not isinstance(keep, bool):
        if keep < 0:
            raise InputError(f"logits_to_keep is {keep}; allowed: 0 (all), a number of positions, or their indices")
        return hidden[:, -keep:] if keep else hidden
    index = as_array("logits_to_keep", keep)
    if index.ndim != 1 or index.dtype.kind not in "iu" or ((index < -tokens) | (index >= tokens)).any():
        raise InputError(
            f"logits_to_keep is {keep!r}; allowed: 0 (all), a number of positions, or indices below {tokens}"
        )
    return hidden[:, index]


class RobertaPreLayerNormForSequenceClassification(BodyModel):
    """The body with a classification or regression head on row 0."""

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the two linear maps."""
        width = config.hidden_size
        return linear_shapes("classifier.dense", width, width) | linear_shapes(
            "classifier.out_proj", width, config.num_labels
        )

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        labels : optional
            By ``config.problem_type``: integers (B,) for a single label (cross entropy; -100 is not counted),
            numbers (B, K) of 0 to 1 for several labels (binary cross entropy), numbers (B,) or (B, K) for
            regression (mean squared error). Where it is None it is told from the first labels: one output means
            regression, 32- or 64-bit integers a single label, all else several; ``model.config`` remembers it.

        Returns
        -------
        ClassifierOutput
        """
        out = self.base(input_ids, attention_mask, **inputs)
        logits, _ = classification_head(View(self.params), out.last_hidden_state, classifier_dropout(self.config))
        loss = None
        if labels is not None:
            array = as_array("labels", labels)
            if self.config.problem_type is None:
                self.config.problem_type = told_problem_type(logits.shape[-1], array)
            loss, _ = sequence_loss(logits, array, self.config.problem_type)
        return self.finish(ClassifierOutput(loss, logits, out.hidden_states, out.attentions), return_dict)


class RobertaPreLayerNormForMultipleChoice(BodyModel):
    """The body with a pooler and one score for each choice."""

    pooler = True

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the linear map to one score."""
        return linear_shapes("classifier", config.hidden_size, 1)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        *,
        labels: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; every per-token argument has an axis of choices after the batch. Others as for `base`.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids : (B, choices, T)
        inputs_embeds : floats (B, choices, T, C), optional
        labels : integers (B,), optional
            Index of the right choice.

        Returns
        -------
        ClassifierOutput
            ``logits`` (B, choices); hidden states and attentions of the B * choices sequences.
        """
        tokens = {
            "input_ids": (input_ids, 3),
            "attention_mask": (attention_mask, 3),
            "token_type_ids": (token_type_ids, 3),
            "position_ids": (position_ids, 3),
            "inputs_embeds": (inputs_embeds, 4),
        }
        flat: dict[str, Any] = {}
        choices = None
        for name, (value, axes) in tokens.items():
            if value is None:
                continue
            array = as_array(name, value)
            if array.ndim != axes or (choices is not None and array.shape[1] != choices):
                shape = "(batch, choices, tokens)" if axes == 3 else "(batch, choices, tokens, hidden)"
                raise InputError(f"{name} has shape {array.shape}; expected {shape}, the same choices in all")
            choices = array.shape[1]
            if choices == 0:
                raise InputError(f"{name} has shape {array.shape}: no choices; give at least one")
            flat[name] = array.reshape(-1, *array.shape[2:])  # (B, choices, T) -> (B * choices, T)
        out = self.base(**flat, **inputs)
        pooled, _ = pooler(View(self.params, self.base_prefix), out.last_hidden_state)
        logits, _ = linear_head(View(self.params), "classifier", pooled)
        logits = logits.reshape(-1, choices or 1)  # (B * choices, 1) -> (B, choices)
        loss = None if labels is None else label_loss(logits, labels)[0]
        return self.finish(ClassifierOutput(loss, logits, out.hidden_states, out.attentions), return_dict)


class RobertaPreLayerNormForTokenClassification(BodyModel):
    """The body with a linear map of every token."""

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the linear map."""
        return linear_shapes("classifier", config.hidden_size, config.num_labels)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        labels : integers (B, T), optional
            Class of each token; -100 where one does not count.

        Returns
        -------
        ClassifierOutput
        """
        out = self.base(input_ids, attention_mask, **inputs)
        logits, _ = linear_head(View(self.params), "classifier", out.last_hidden_state)
        loss = None if labels is None else label_loss(logits, labels)[0]
        return self.finish(ClassifierOutput(loss, logits, out.hidden_states, out.attentions), return_dict)


class RobertaPreLayerNormForQuestionAnswering(BodyModel):
    """The body with two scores for every token: an answer starts here, an answer ends here."""

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the linear map to two scores."""
        if config.num_labels != 2:
            raise ConfigError(f"num_labels is {config.num_labels}; question answering needs 2: a start and an end")
        return linear_shapes("qa_outputs", config.hidden_size, 2)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        start_positions: Any = None,
        end_positions: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`.

        Parameters
        ----------
        start_positions, end_positions : integers (B,) or (B, 1), optional
            Tokens of the answer's ends, clamped to [0, T]; T itself, so any place past the end, does not count.
            The loss is the mean of both cross entropies.

        Returns
        -------
        QuestionAnsweringOutput
        """
        out = self.base(input_ids, attention_mask, **inputs)
        logits, _ = linear_head(View(self.params), "qa_outputs", out.last_hidden_state)
        start, end = (np.ascontiguousarray(logits[..., i]) for i in (0, 1))  # (B, T, 2) -> (B, T) each
        loss = None
        if start_positions is not None and end_positions is not None:
            loss, _ = span_loss(logits, start_positions, end_positions)
        return self.finish(QuestionAnsweringOutput(loss, start, end, out.hidden_states, out.attentions), return_dict)
