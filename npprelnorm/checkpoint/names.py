"""Names in files and names in a model: which architecture a file holds, and how its names map to ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..params import BASE_PREFIX

_PRINCETON_PREFIX = "roberta."

# modules of the body, whose names may or may not carry a prefix
_BODY = ("embeddings.", "encoder.", "LayerNorm.", "pooler.")

# saved by old versions or by the princeton-nlp code, and used by nobody
_DEAD_ENDINGS = ("embeddings.position_ids", "embeddings.token_type_ids")
_DEAD_PARTS = (".attention.self.LayerNorm.",)


@dataclass(frozen=True)
class Layout:
    """What the tensor names of a file say.

    Attributes
    ----------
    order : str
        ``"pre-LN"``, ``"post-LN"`` or ``"unknown"``.
    prefix : str
        Prefix of the body's names: ``"roberta_prelayernorm."``, ``"roberta."``, another one, or none.
    """

    order: str
    prefix: str

    @property
    def is_princeton(self) -> bool:
        """Whether these are the names of the princeton-nlp code: pre-LN under RoBERTa's own prefix."""
        return self.order == "pre-LN" and self.prefix == _PRINCETON_PREFIX


def modern(name: str) -> str:
    """``LayerNorm.gamma`` and ``.beta``, as the first checkpoints have it, are weight and bias."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith("LayerNorm" + old):
            return name.removesuffix(old) + new
    return name


def layout(names: Iterable[str]) -> Layout:
    """Tell the order of normalisation and the prefix from tensor names.

    Only pre-LN has ``intermediate.LayerNorm``; only post-LN has ``attention.output.LayerNorm`` (and
    ``output.LayerNorm``).
    """
    known = [modern(name) for name in names]
    prefix = ""
    for name in known:
        head, found, _ = name.partition("embeddings.word_embeddings.")
        if found:
            prefix = head
            break
    if any(name.endswith("attention.output.LayerNorm.weight") for name in known):
        return Layout("post-LN", prefix)
    if any(name.endswith("intermediate.LayerNorm.weight") for name in known):
        return Layout("pre-LN", prefix)
    return Layout("unknown", prefix)


def canonical(name: str, prefix: str, base: str = BASE_PREFIX) -> str | None:
    """The name as a head model of this package has it; None for tensors that nobody uses.

    Parameters
    ----------
    name : str
        As in the file.
    prefix : str
        Of the file's body, see `Layout`.
    base : str
        Prefix of the body in a model with a head, see `npprelnorm.family.Family`.
    """
    name = modern(name)
    if name.endswith(_DEAD_ENDINGS) or any(part in name for part in _DEAD_PARTS):
        return None
    if prefix and name.startswith(prefix):
        return base + name[len(prefix) :]
    if not prefix and name.startswith(_BODY):
        return base + name
    return name


def in_model(name: str, base_prefix: str, base: str = BASE_PREFIX) -> str:
    """A canonical name as a class with this prefix has it: the base model has none."""
    return base_prefix + name[len(base) :] if name.startswith(base) else name
