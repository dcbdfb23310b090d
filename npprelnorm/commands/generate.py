"""`npprelnorm generate`: continue a prompt, and show the text as it comes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .common import MODEL_HELP, UsageError, add_weight_dtype_argument, folder_of, positive_int, print_json, printable

if TYPE_CHECKING:
    import numpy as np

    from ..tokenizer import Tokenizer

SUMMARY = "continue a prompt with a causal language model"
DESCRIPTION = """\
Continue a prompt token by token with a causal language model, and show the text as it comes. With an encoder-decoder
model the prompt is what the encoder reads, and only the decoder's text is shown.

Without further options the best token is taken each time; --sample draws at random, --beams searches, both together
draw the beams. A generation_config.json beside the model is honoured; options go before it. With --json one JSON object
a result:
  {"prompt": ..., "text": ..., "ids": [...]}
where text is that of ids, without the special tokens; a causal model's begin with the prompt's."""
EXAMPLES = """\
examples:
  npprelnorm generate "The capital of France" --model ./my-decoder
  npprelnorm generate "Once" --model ./my-decoder --sample --temperature 0.8 --top-p 0.9 --seed 1
  npprelnorm generate "Once" --model ./my-decoder --beams 4 --results 2 --json
  npprelnorm generate "Once" --model ./my-decoder --sample --beams 4 --seed 1
  npprelnorm generate "A text to be rewritten." --model ./my-pair --beams 4 --length-penalty 2"""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("prompt", metavar="PROMPT", help="the text to continue")
    parser.add_argument(
        "--model", required=True, metavar="PATH_OR_ID", help=f"{MODEL_HELP}, of a causal or an encoder-decoder model"
    )
    add_weight_dtype_argument(parser)
    parser.add_argument(
        "--max-new-tokens", type=positive_int, metavar="N", help="how many tokens at most (default: 20)"
    )
    parser.add_argument(
        "--min-new-tokens", type=positive_int, metavar="N", help="how many tokens at least, before an end"
    )
    parser.add_argument(
        "--sample", "--do-sample", action="store_true", help="draw tokens at random by their probability"
    )
    parser.add_argument(
        "--temperature", type=_number, metavar="T", help="of --sample: below 1 is bolder, above 1 wilder"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="of --sample: only the K best tokens (default: 50)")
    parser.add_argument(
        "--top-p", type=_number, metavar="P", help="of --sample: only the best tokens of this probability"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of --sample: the same seed gives the same text")
    parser.add_argument("--beams", "--num-beams", type=positive_int, metavar="K", help="search with so many beams")
    parser.add_argument(
        "--length-penalty", type=_number, metavar="X", help="of --beams: above 0 is for longer texts (default: 1)"
    )
    parser.add_argument("--results", type=positive_int, metavar="R", help="how many texts (with --sample or --beams)")
    parser.add_argument("--repetition-penalty", type=_number, metavar="X", help="above 1: repeat less")
    parser.add_argument(
        "--no-repeat-ngram", type=positive_int, metavar="N", help="never the same N tokens in a row twice"
    )
    parser.add_argument("--stop", nargs="+", metavar="TEXT", help="end where one of these texts has come")
    parser.add_argument("--json", action="store_true", help="print JSON Lines instead of plain text")


def run(args: argparse.Namespace) -> int:
    """Generate and print."""
    if args.seed is not None and (args.seed < 0 or not args.sample):
        raise UsageError(f"--seed {args.seed}: give a number of at least 0, together with --sample")
    from ..auto import AutoModelForCausalLM
    from ..encoder_decoder import EncoderDecoderModel
    from ..tokenizer import Tokenizer

    is_pair = _is_pair(args.model)
    tokenizer = Tokenizer.from_pretrained(args.model)
    model = (EncoderDecoderModel if is_pair else AutoModelForCausalLM).from_pretrained(
        args.model, weight_dtype=args.weight_dtype, init_missing=False
    )
    asked = {
        "max_new_tokens": args.max_new_tokens,
        "min_new_tokens": args.min_new_tokens,
        "do_sample": args.sample or None,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "num_beams": args.beams,
        "length_penalty": args.length_penalty,
        "num_return_sequences": args.results,
        "repetition_penalty": args.repetition_penalty,
        "no_repeat_ngram_size": args.no_repeat_ngram,
        "stop_strings": args.stop,
    }
    ids = tokenizer(args.prompt).input_ids if is_pair else prompt_ids(tokenizer, args.prompt)
    settings = model.generation_config.updated(**asked)
    one_by_one = settings.num_beams == settings.num_return_sequences == 1
    streamer = TextStreamer(tokenizer) if one_by_one and not args.json else None
    rows = model.generate(ids, rng=args.seed, tokenizer=tokenizer, streamer=streamer, **asked)
    if streamer is None:
        for row in rows:
            text = tokenizer.decode(row, skip_special_tokens=True)
            if args.json:
                print_json({"prompt": args.prompt, "text": text, "ids": row.tolist()})
            else:
                sys.stdout.write(printable(text) + "\n")
    return 0


def _is_pair(model: str) -> bool:
    """Whether a folder or hub id holds an encoder-decoder pair."""
    from ..encoder_decoder_config import EncoderDecoderConfig
    from ..files import read_json

    file = folder_of(model) / "config.json"
    return file.is_file() and read_json(file).get("model_type") == EncoderDecoderConfig.model_type


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """The prompt as the model saw texts begin: with ``<s>``, without ``</s>``. -> (1, T)."""
    ids: np.ndarray = tokenizer(prompt).input_ids
    ends = ids.shape[1] > 1 and ids[0, -1] == tokenizer.eos_token_id
    return ids[:, :-1] if ends else ids


class TextStreamer:
    """Writes the text of one row as its tokens come; a character of several tokens waits until it is whole."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.written = 0

    def put(self, ids: np.ndarray) -> None:
        """The prompt (1, T), then single tokens (1,)."""
        self.ids.extend(ids.ravel().tolist())
        self._write(self.tokenizer.decode(self.ids, skip_special_tokens=True).rstrip("\ufffd"))

    def end(self) -> None:
        """Write what still waits, and end the line."""
        self._write(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        sys.stdout.write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(printable(text[self.written :]))
        self.written = max(self.written, len(text))
        sys.stdout.flush()
