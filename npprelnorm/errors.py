"""Every error and warning that this package raises on purpose.

Each message says what was wrong, with the value, and what to do about it. All errors derive from
`NpprelnormError`, and also from the built-in class that a caller would expect (`ValueError`, `FileNotFoundError`),
so that ``except ValueError`` keeps working for those who never import this module.
"""

from __future__ import annotations


class NpprelnormError(Exception):
    """Base of all errors of this package."""


class ConfigError(NpprelnormError, ValueError):
    """A configuration value is not allowed; the message names the field, the value and what is allowed."""


class InputError(NpprelnormError, ValueError):
    """An argument of a model, tokenizer or pipeline call is not usable."""


class CheckpointError(NpprelnormError):
    """A checkpoint cannot be used; base of the more exact errors below."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A file, folder or hub id does not exist (or is not in the cache while offline)."""

    # OSError would print its arguments as "[Errno ...]"; the message is all we have to say
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointFormatError(CheckpointError, ValueError):
    """A file is damaged, truncated or not of the format that it claims to be."""


class UnsafeCheckpointError(CheckpointFormatError):
    """A file asks for something that reading numbers never needs: running code, escaping its folder, a bomb."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A readable checkpoint does not fit: missing or mis-shaped tensors, or another architecture (post-LN)."""


class TokenizerError(NpprelnormError, ValueError):
    """A tokenizer file cannot be used, or a text cannot be tokenized as asked."""


class DataError(NpprelnormError, ValueError):
    """A training or evaluation file has a line that cannot be used; the message has its number."""


class TrainingError(NpprelnormError, ArithmeticError):
    """A training run cannot go on; the message names the step, the batch and the first bad tensor."""


class NpprelnormWarning(UserWarning):
    """Base of all warnings of this package."""


class CheckpointWarning(NpprelnormWarning):
    """A checkpoint was loaded, but not all of it was used or not all that was needed was in it."""


class InputWarning(NpprelnormWarning):
    """A call is legal, but probably not what was meant (padding without a mask, all labels ignored)."""


class BackendWarning(NpprelnormWarning):
    """The fast path was asked for and cannot run, or cannot keep its machine code; results are right all the same."""
