"""What sets the model types apart, as data: the order of normalisation, names in checkpoints, how positions count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """Where the LayerNorm of a residual block stands, and what it is called in a checkpoint.

    Attributes
    ----------
    name : str
        ``"pre-LN"``: x + f(LN(x)), or ``"post-LN"``: LN(x + f(x)).
    attention_norm : str
        Its name below ``attention.`` and ``crossattention.``.
    feed_forward_norm : str
        Its name below the layer.
    has_final_norm : bool
        Whether a last LayerNorm follows the layers. A post-LN layer ends with one already.
    """

    name: str
    attention_norm: str
    feed_forward_norm: str
    has_final_norm: bool


PRE_LN = Order("pre-LN", "LayerNorm", "intermediate.LayerNorm", has_final_norm=True)
POST_LN = Order("post-LN", "output.LayerNorm", "output.LayerNorm", has_final_norm=False)


@dataclass(frozen=True)
class LMHeadNames:
    """What the parts of the language-model head are called, and which activation stands between them.

    Attributes
    ----------
    dense, norm, decoder : str
        The linear map, the LayerNorm and the map to the vocabulary.
    bias : str
        The decoder's bias where the decoder is tied to the word embeddings.
    activation : str or None
        None: the one of the feed-forward blocks.
    """

    dense: str = "lm_head.dense"
    norm: str = "lm_head.layer_norm"
    decoder: str = "lm_head.decoder"
    bias: str = "lm_head.bias"
    activation: str | None = "gelu"


@dataclass(frozen=True)
class Family:
    """One way to build, name and count.

    Attributes
    ----------
    order : Order
    prefix : str
        Before the body's names in a model with a head.
    lm_head : LMHeadNames
    positions_after_padding : bool
        Whether positions count the tokens that are not padding, from ``pad_token_id + 1`` on, as fairseq does;
        or all tokens from 0.
    pairs_by_token_type : bool
        Whether the second text of a pair has token type 1; or all tokens have 0.
    pretraining_only : tuple of str
        Beginnings of names that published files hold for the pretraining alone (a pooler for the next-sentence
        task, and its classifier): a class without a place for them passes over them in silence.
    """

    order: Order
    prefix: str
    lm_head: LMHeadNames = LMHeadNames()
    positions_after_padding: bool = True
    pairs_by_token_type: bool = False
    pretraining_only: tuple[str, ...] = ()


ROBERTA_PRELAYERNORM = Family(PRE_LN, "roberta_prelayernorm.")
ROBERTA = Family(POST_LN, "roberta.", pretraining_only=("roberta.pooler.",))
BERT = Family(
    POST_LN,
    "bert.",
    LMHeadNames(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions.bias",
        activation=None,
    ),
    positions_after_padding=False,
    pairs_by_token_type=True,
    pretraining_only=("bert.pooler.", "cls.seq_relationship."),
)
