"""The model classes that classify: sequences, choices, tokens, and the ends of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arguments import boolean
from .body import Recording, pooler, pooler_backward
from .config import RobertaPreLayerNormConfig
from .errors import ConfigError, InputError
from .gradients import Gradients, GradientView
from .heads import (
    classification_head,
    classification_head_backward,
    classifier_dropout,
    label_loss,
    label_loss_backward,
    linear_head,
    linear_head_backward,
    real_and_labelled,
    sequence_loss,
    sequence_loss_backward,
    span_loss,
    span_loss_backward,
    told_problem_type,
)
from .inputs import as_array
from .layers import Rng
from .model import BodyModel, output_gradient
from .outputs import ClassifierOutput, QuestionAnsweringOutput
from .params import Shapes, View, linear_shapes
from .rows import everything, first


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
        output, _ = self._forward(None, labels, input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return self.finish(output, return_dict)

    def _forward(self, record: Recording | None, labels: Any = None, **inputs: Any) -> tuple[ClassifierOutput, Any]:
        out, body_cache = self._body(record, reading=first, **inputs)
        logits, head_cache = self._head(out.hidden, record.rng if record else None)
        loss, loss_cache = None, None
        if labels is not None:
            array = as_array("labels", labels)
            problem_type = self.config.problem_type or told_problem_type(logits.shape[-1], array)
            loss, loss_cache = sequence_loss(logits, array, problem_type)
            self.config.problem_type = problem_type  # only now: labels that do not fit shall not decide it
        output = ClassifierOutput(loss, logits, out.hidden_states, out.attentions)
        return output, (body_cache, head_cache, loss_cache, logits.shape)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, head_cache, loss_cache, shape = cache
        from_loss = None
        if "loss" in d:
            assert self.config.problem_type is not None, "the forward with labels settles it"
            from_loss = sequence_loss_backward(d["loss"], loss_cache, self.config.problem_type)
        dhidden = self._head_backward(output_gradient(d, shape, from_loss), head_cache, g)
        self._body_backward(dhidden, body_cache, g)

    def _head(self, hidden: np.ndarray, rng: Rng) -> tuple[np.ndarray, Any]:
        return classification_head(View(self.params), hidden, classifier_dropout(self.config), rng)

    def _head_backward(self, dlogits: np.ndarray, cache: Any, g: Gradients) -> np.ndarray:
        return classification_head_backward(dlogits, cache, GradientView(g))


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
        *,
        labels: Any = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model; further arguments as for `base`, each per-token one with an axis of choices after the batch.

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
        output, _ = self._forward(None, labels, input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return self.finish(output, return_dict)

    def _forward(self, record: Recording | None, labels: Any = None, **inputs: Any) -> tuple[ClassifierOutput, Any]:
        choices = 0
        for name, axes in (
            ("input_ids", 3),
            ("attention_mask", 3),
            ("token_type_ids", 3),
            ("position_ids", 3),
            ("inputs_embeds", 4),
        ):
            if inputs.get(name) is None:
                continue
            array = as_array(name, inputs[name])
            if array.ndim != axes or 0 in array.shape[1:2] or (choices and array.shape[1] != choices):
                shape = "(batch, choices, tokens)" if axes == 3 else "(batch, choices, tokens, hidden)"
                raise InputError(f"{name} has shape {array.shape}; expected {shape}, as many choices in all, 1 or more")
            choices = array.shape[1]
            inputs[name] = array.reshape(array.shape[0] * choices, *array.shape[2:])  # (B * choices, T)
        out, body_cache = self._body(record, reading=first, **inputs)
        pooled, pooler_cache = pooler(self._view(stored=record is None), out.hidden)
        scores, head_cache = linear_head(
            View(self.params), "classifier", pooled, self._dropout(), record.rng if record else None
        )
        logits = scores.reshape(-1, choices)  # (B * choices, 1) -> (B, choices)
        loss, loss_cache = (None, None) if labels is None else label_loss(logits, labels)
        output = ClassifierOutput(loss, logits, out.hidden_states, out.attentions)
        return output, (body_cache, pooler_cache, head_cache, loss_cache, scores.shape, choices)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, pooler_cache, head_cache, loss_cache, shape, choices = cache
        from_loss = label_loss_backward(d["loss"], loss_cache, (-1,)) if "loss" in d else None
        flat = {name: value.reshape(-1) for name, value in d.items()}
        dpooled = linear_head_backward(
            output_gradient(flat, shape, from_loss), head_cache, GradientView(g), "classifier"
        )
        dhidden = pooler_backward(dpooled, pooler_cache, GradientView(g, self.base_prefix))
        self._body_backward(dhidden, body_cache, g)
        g.regroup("inputs_embeds", choices)

    def _dropout(self) -> float:
        return self.config.hidden_dropout_prob  # not classifier_dropout: so it is in transformers


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
        output, _ = self._forward(None, labels, input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return self.finish(output, return_dict)

    def _forward(
        self, record: Recording | None, labels: Any = None, packed: bool = False, **inputs: Any
    ) -> tuple[ClassifierOutput, Any]:
        reading = real_and_labelled(labels) if boolean("packed", packed) and labels is not None else None
        out, body_cache = self._body(record, reading=reading, packed=packed, **inputs)
        drop = classifier_dropout(self.config)
        scores, head_cache = linear_head(
            View(self.params), "classifier", out.hidden, drop, record.rng if record else None
        )
        logits = out.rows.unpack(scores)  # (R, K) -> (B, T, K)
        loss, loss_cache = (None, None) if labels is None else label_loss(logits, labels)
        output = ClassifierOutput(loss, logits, out.hidden_states, out.attentions)
        return output, (body_cache, head_cache, loss_cache, logits.shape, out.rows)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, head_cache, loss_cache, shape, rows = cache
        from_loss = label_loss_backward(d["loss"], loss_cache, shape) if "loss" in d else None
        dscores = rows.unpack_backward(output_gradient(d, shape, from_loss))  # (B, T, K) -> (R, K)
        dhidden = linear_head_backward(dscores, head_cache, GradientView(g), "classifier")
        self._body_backward(dhidden, body_cache, g)


class RobertaPreLayerNormForQuestionAnswering(BodyModel):
    """The body with two scores for every token: an answer starts here, an answer ends here."""

    differentiable = ("loss", "start_logits", "end_logits")

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
            The loss is the mean of both cross entropies. They compare all tokens, padding too, so with positions
            given `packed` leaves nothing out.

        Returns
        -------
        QuestionAnsweringOutput
        """
        output, _ = self._forward(
            None, start_positions, end_positions, input_ids=input_ids, attention_mask=attention_mask, **inputs
        )
        return self.finish(output, return_dict)

    def _forward(
        self, record: Recording | None, start_positions: Any = None, end_positions: Any = None, **inputs: Any
    ) -> tuple[QuestionAnsweringOutput, Any]:
        has_loss = start_positions is not None and end_positions is not None
        # the loss is a softmax over every token of a row, padding included
        out, body_cache = self._body(record, reading=everything if has_loss else None, **inputs)
        scores, head_cache = linear_head(View(self.params), "qa_outputs", out.hidden)
        logits = out.rows.unpack(scores)  # (R, 2) -> (B, T, 2)
        start, end = (np.ascontiguousarray(logits[..., i]) for i in (0, 1))  # (B, T, 2) -> (B, T) each
        loss, loss_cache = span_loss(logits, start_positions, end_positions) if has_loss else (None, None)
        output = QuestionAnsweringOutput(loss, start, end, out.hidden_states, out.attentions)
        return output, (body_cache, head_cache, loss_cache, logits.shape, out.rows)

    def _backward(self, d: Mapping[str, np.ndarray], cache: Any, g: Gradients) -> None:
        body_cache, head_cache, loss_cache, shape, rows = cache
        dlogits = span_loss_backward(d["loss"], loss_cache) if "loss" in d else np.zeros(shape, self.dtype)
        for index, name in enumerate(("start_logits", "end_logits")):
            if name in d:
                dlogits[..., index] += d[name]
        dhidden = linear_head_backward(rows.unpack_backward(dlogits), head_cache, GradientView(g), "qa_outputs")
        self._body_backward(dhidden, body_cache, g)
