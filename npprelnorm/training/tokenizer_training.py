"""A byte-level BPE tokenizer from text, with RoBERTa's special tokens where RoBERTa has them."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from ..errors import InputError
from ..tokenizer import Tokenizer
from ..tokenizer_files import ROBERTA_TOKENS, TokenizerFiles, rust_errors

# ids 0 to 3, as in every RoBERTa vocabulary; <mask> comes last
FIRST = ("<s>", "<pad>", "</s>", "<unk>")
SMALLEST = len(FIRST) + 256 + 1  # the special tokens and every byte


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, model_max_length: int) -> Tokenizer:
    """Learn a vocabulary from texts.

    Parameters
    ----------
    texts : iterable of str
    vocab_size : int
        Tokens, special ones included; little text may give fewer.
    model_max_length : int
        What the model can take, special tokens included; goes into the settings.

    Returns
    -------
    Tokenizer
        Any text can be spelled with it. Its files are read by this package and by transformers' ``RobertaTokenizer``.

    Raises
    ------
    InputError
        If `vocab_size` has no room for the bytes and the special tokens.
    """
    if vocab_size < SMALLEST:
        raise InputError(
            f"vocab_size is {vocab_size}; allowed: {SMALLEST} or more (256 bytes and {SMALLEST - 256} special tokens)"
        )
    backend = tokenizers.Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=list(FIRST),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with rust_errors("no tokenizer can be trained from these texts"):
        backend.train_from_iterator(texts, trainer)
        # a mask takes the space before it with it, as RoBERTa's does
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", backend.token_to_id("</s>")),
            ("<s>", backend.token_to_id("<s>")),
            add_prefix_space=False,
            trim_offsets=True,
        )
    settings = {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"}
    return Tokenizer(TokenizerFiles(backend, dict(ROBERTA_TOKENS), model_max_length, settings=settings))
