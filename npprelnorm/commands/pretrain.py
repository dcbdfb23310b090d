"""`npprelnorm pretrain`: a tokenizer and a masked language model from text, from nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError, NpprelnormError
from ..training.settings import TrainingSettings
from .common import UsageError, folder_of, positive_int, printable, table
from .training_options import Progress, add_settings_arguments, run_to_the_end, settings_of

if TYPE_CHECKING:
    from ..config import RobertaPreLayerNormConfig
    from ..tokenizer import Tokenizer
    from ..training.pretraining import Masking, PretrainingData

SUMMARY = "pretrain a tokenizer and a masked language model from text"
DESCRIPTION = """\
Pretrain a RoBERTa-PreLayerNorm as a masked language model, on the CPU, from text files or the built-in small world,
and write a folder that from_pretrained of this package and of transformers both load.

Files are UTF-8 text, one sentence or paragraph a line (.gz: unpacked). A byte-level BPE tokenizer is trained on them
first, unless --tokenizer names one. Texts are packed into rows of --sequence-length tokens in which they do not see
each other.

DIR gets config.json, model.safetensors, the tokenizer, metrics.json (of the model that was kept: the best on the texts
held back by --eval-part, or the last), metrics.jsonl (a log, one JSON object a line) and training.json (what was asked
for). A run that was killed or interrupted goes on from its last checkpoint when the same command is given again, and
ends with the same parameters, bit for bit."""
EXAMPLES = """\
examples:
  npprelnorm pretrain --text book.txt letters.txt.gz --out ./my-model --epochs 10 --whole-words
  npprelnorm pretrain --smallworld 20000 --out ./world --hidden-size 64 --num-hidden-layers 2 --steps 500
  npprelnorm pretrain --text lines.txt --tokenizer ./my-checkpoint --config config.json --out ./again"""

_DEFAULTS = TrainingSettings(learning_rate=2e-3, beta2=0.98, save_every=100)
# sizes of a configuration -> their defaults, for a model that learns something in minutes
_SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
_VOCABULARY, _LENGTH = 4096, 128


def _number_from_0(text: str) -> int:
    return 0 if text.strip() == "0" else positive_int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="text files, one text a line")
    parser.add_argument(
        "--smallworld", type=_number_from_0, default=0, metavar="N", help="add N sentences of the built-in small world"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder, or that of the same run")
    parser.add_argument(
        "--eval-part", type=float, default=0.02, metavar="P", help="part of the texts to judge by (default: 0.02)"
    )
    what = parser.add_argument_group("the model")
    what.add_argument("--config", metavar="JSON", help="a config.json; the options below replace what it says")
    for name, default in _SIZES.items():
        what.add_argument(
            "--" + name.replace("_", "-"), type=positive_int, metavar="N", help=f"(default: {default}, or --config's)"
        )
    what.add_argument("--hidden-act", metavar="NAME", help="activation (default: gelu, or --config's)")
    what.add_argument(
        "--initializer-range", type=float, metavar="S",
        help="standard deviation of fresh weights (default: 1 / sqrt(hidden size), or --config's); with the usual 0.02 "
        "a small model may learn nothing but how often words occur",
    )  # fmt: skip
    what.add_argument("--vocab-size", type=positive_int, metavar="N", help=f"(default: {_VOCABULARY}, or --config's)")
    what.add_argument("--tokenizer", metavar="PATH_OR_ID", help="use this one instead of training one")
    what.add_argument(
        "--sequence-length", type=positive_int, metavar="N",
        help=f"tokens of a row, and the longest text of the model (default: {_LENGTH}, or --config's)",
    )  # fmt: skip
    masking = parser.add_argument_group("masking")
    masking.add_argument(
        "--mask-rate", type=float, nargs="+", default=[0.15], metavar="P",
        help="part that is hidden; of several each batch takes one (default: 0.15)",
    )  # fmt: skip
    masking.add_argument("--mask-strategy", choices=("mask", "80-10-10"), default="mask", help="(default: mask)")
    masking.add_argument("--whole-words", action="store_true", help="hide whole words")
    add_settings_arguments(parser, _DEFAULTS)


def run(args: argparse.Namespace) -> int:
    """Train, write the folder, print the metrics."""
    settings = settings_of(args)
    if not args.text and not args.smallworld:
        raise UsageError("there is no text; name files with --text, or ask for the small world with --smallworld N")
    if args.tokenizer is not None and args.vocab_size is not None:
        raise UsageError("--vocab-size is about a tokenizer to be trained; leave out it or --tokenizer")
    if not 0 <= args.eval_part < 1:
        raise UsageError(f"--eval-part is {args.eval_part}; allowed: 0 up to, but not with, 1")
    if args.patience and not args.eval_part:
        raise UsageError("--patience is about evaluations; give an --eval-part above 0")
    from ..training import folder
    from ..training.pretraining import Masking
    from ..training.tokenizer_training import SMALLEST

    masking = Masking(tuple(args.mask_rate), args.mask_strategy, args.whole_words)
    try:
        masking.check()
        config, length = _config(args)
    except (ConfigError, InputError) as error:
        raise UsageError(str(error)) from None
    if args.tokenizer is None and config.vocab_size < SMALLEST:
        raise UsageError(f"--vocab-size is {config.vocab_size}; allowed: {SMALLEST} or more (every byte is a token)")
    out = Path(args.out)
    request = {
        "task": "pretrain",
        "text": [{"file": path, "sha256": folder.digest(path)} for path in args.text],
        "smallworld": args.smallworld,
        "eval_part": args.eval_part,
        "tokenizer": args.tokenizer,
        "sequence_length": length,
        "masking": masking._asdict(),
        "config": config.to_dict(),
        "settings": settings.to_dict(),
    }
    if folder.claim(out, request):
        sys.stderr.write(f"npprelnorm: {printable(str(out))} is finished already; nothing to do\n")
        folder.clean(out)
    else:
        try:
            _pretrain(args, config, length, masking, settings, out)
        except KeyboardInterrupt:
            sys.stderr.write("npprelnorm: interrupted; the same command goes on from the last checkpoint\n")
            raise
        except NpprelnormError:
            folder.unclaim(out)  # such as texts that cannot be read
            raise
    sys.stdout.write(_for_people(folder.result(out)) + f"written: {printable(str(out))}\n")
    return 0


def _config(args: argparse.Namespace) -> tuple[RobertaPreLayerNormConfig, int]:
    """The configuration that the options and the file say, and the tokens of a row."""
    from ..config import RobertaPreLayerNormConfig

    changes: dict[str, Any] = {name: getattr(args, name) for name in (*_SIZES, "hidden_act", "initializer_range")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if args.vocab_size is not None:
        changes["vocab_size"] = args.vocab_size
    if args.config is None:
        length = args.sequence_length or _LENGTH
        width = changes.get("hidden_size", _SIZES["hidden_size"])
        defaults = {
            **_SIZES,
            "vocab_size": _VOCABULARY,
            "initializer_range": round(width**-0.5, 4),
            "max_position_embeddings": length + 2,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
        }
        return RobertaPreLayerNormConfig(**{**defaults, **changes}), length
    if args.sequence_length:
        changes["max_position_embeddings"] = args.sequence_length + 2
    config = RobertaPreLayerNormConfig.from_pretrained(args.config, **changes)
    if config.is_decoder:
        raise InputError(f"{args.config} has is_decoder true; a masked language model is no decoder")
    return config, config.max_position_embeddings - (config.pad_token_id or 0) - 1


def _pretrain(
    args: argparse.Namespace,
    config: RobertaPreLayerNormConfig,
    length: int,
    masking: Masking,
    settings: TrainingSettings,
    out: Path,
) -> None:
    from ..language_models import RobertaPreLayerNormForMaskedLM
    from ..training import folder
    from ..training.loop import Trainer
    from ..training.pretraining import masked_loss

    tokenizer, train, held = _data(args, config, length, masking, settings.seed, out)
    config.vocab_size = len(tokenizer)
    model = RobertaPreLayerNormForMaskedLM(config, rng=settings.seed)
    progress = Progress()
    trainer = Trainer(
        model,
        train,
        settings,
        out,
        evaluate=progress.telling(lambda one: masked_loss(one, held)) if held is not None else None,
        progress=progress.step,
    )
    sys.stderr.write(
        f"npprelnorm: {model.num_parameters():,} parameters, vocabulary {len(tokenizer):,}, {len(train.packed):,} rows "
        f"of {length} tokens, {trainer.total:,} steps\n"
    )
    metrics = run_to_the_end(trainer, progress) | {
        "task": "pretrain",
        "rows": len(train.packed),
        "tokens": int((train.packed.texts > 0).sum()),
    }
    folder.finish(out, model, tokenizer, metrics)


def _data(
    args: argparse.Namespace,
    config: RobertaPreLayerNormConfig,
    length: int,
    masking: Masking,
    seed: int,
    out: Path,
) -> tuple[Tokenizer, PretrainingData, PretrainingData | None]:
    """The tokenizer (trained once, and then kept in `out`), and the rows to learn from and to judge by."""
    from ..smallworld import small_world
    from ..tokenizer import Tokenizer
    from ..training.pretraining import PretrainingData, pack, read_texts, split
    from ..training.tokenizer_training import train_tokenizer

    texts = list(read_texts(args.text))
    if args.smallworld:
        texts += small_world().sentences(args.smallworld, seed)
    if not texts:
        raise InputError(f"there is no text in {', '.join(args.text)}: nothing but empty lines")
    learnt, judged = split(texts, args.eval_part, seed)
    if args.tokenizer is not None:
        tokenizer = Tokenizer.from_pretrained(folder_of(args.tokenizer))
    elif (out / "tokenizer_config.json").exists():  # written after tokenizer.json
        tokenizer = Tokenizer.from_pretrained(out)
    else:
        tokenizer = train_tokenizer(learnt, config.vocab_size, model_max_length=length)
        tokenizer.save_pretrained(out)
    for role in ("pad", "bos", "eos"):
        number, own = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if own is not None and number != own:
            raise InputError(f"the configuration has {role}_token_id {number}, but the tokenizer {own}; make them one")
    train = PretrainingData(pack(learnt, tokenizer, length), tokenizer, masking)
    held = PretrainingData(pack(judged, tokenizer, length), tokenizer, masking) if judged else None
    return tokenizer, train, held


def _for_people(metrics: Mapping[str, Any]) -> str:
    rows = [["steps", f"{metrics['steps']:,}"], ["kept step", f"{metrics['kept_step']:,}"]]
    rows += [["tokens", f"{metrics['tokens']:,}"]]
    rows += [[f"eval {name}", f"{value:.4f}"] for name, value in metrics["eval"].items()]
    return table(rows)
