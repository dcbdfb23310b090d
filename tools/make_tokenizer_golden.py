"""Write tests/text/golden/tokenizer.json: what transformers' RobertaTokenizer makes of hard texts.

    python tools/make_tokenizer_golden.py

Uses the tokenizer of the embedded model. Needs transformers (5.2.0 made the committed file).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "text" / "golden" / "tokenizer.json"

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\t\t",
    " \n \r\n\t ",
    "The capital of France is Paris.",
    " The capital of France is Paris.",
    "The capital of France is Paris. ",
    "  two  spaces   three    four  ",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space, line\u2028separator, next\u0085line",
    "tab\tnewline\nreturn\r\nform\ffeed vertical\x0btab",
    "The capital of France is <mask>.",
    "<mask>",
    " <mask>",
    "<mask> ",
    "   <mask>   ",
    "<mask> is the capital of France.",
    "a<mask>b",
    "a <mask>b",
    "a<mask> b",
    "a\n<mask>",
    "a\u00a0<mask>",
    "<mask><mask>",
    "<mask> <mask>",
    "The <mask> of  <mask> is <mask>",
    "< mask > <MASK> <mask <mask>> [MASK]",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "a <s> b </s> c <pad> d <unk> e",
    "<s>a</s></s>b</s>",
    "I can't, he'll, we've, they're, I'm, she'd, it's: don't! 'quoted' ''",
    "I CAN'T; Don\u2019t \u201cquote\u201d \u2014 dash\u2026",
    "123 4567 89.01 1,000,000 3.14e-10 0x7f",
    "x=1;y=2//comment #tag @name a_b_c a-b-c a/b/c a\\b",
    "http://example.com/a?b=c&d=%20#e user@example.com",
    "na\u00efve caf\u00e9 \u00fcber \u00d8resund \u0142\u00f3d\u017a",
    "nai\u0308ve cafe\u0301",
    "a" + "\u0301" * 12,
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\u3002\uff76\uff85",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 <mask> \u202bRTL\u202c mark\u200f",
    "mixed \u0410A\u0391 \u4e16world\u754c \u05d0b\u05d2 \u0967\u0968\u0969 \u0663",
    "\U0001f600",
    "\U0001f600\U0001f600 \U0001f680<mask>\U0001f680 x\U0001f600y",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f44d\U0001f3fd thumb \u2764\ufe0f heart \U0001f1eb\U0001f1f7 flag 1\ufe0f\u20e3 key",
    "\U0001d54f\U0001d550 \U00010348 \U0002070e \U0010fffd",
    "zero\u200bwidth\u200cspaces\u200d \ufeffBOM soft\u00adhyphen",
    "\x00",
    "a\x00b \x01\x02\x7f\x80\x9f",
    "\ufffd \ufffe \uffff",
    "\ufb01 \u2460 \u00bd \u2122 \u210c \uff21\uff22\uff23",
    "\u0130I\u0131i \u00df \u1e9e \u01c5",
    "\u0120\u010a \u0120the Ġ Ċ",
    "!!!!!!!! ......... ---------- ??????? ((((()))))",
    "Donaudampfschifffahrtsgesellschaftskapit\u00e4n",
    "x" * 700,
    "The dog barks. " * 60,
]
PAIRS = [
    ("The dog barks.", "The cat purrs."),
    ("", ""),
    ("", "The cat purrs."),
    ("The dog barks.", ""),
    ("Where is <mask>?", " <mask> is in the garden."),
    ("\U0001f600 one", "two \U0001f468\u200d\U0001f469 \u4e16"),
]
LONG = "Anna went to the river, and Mary went to the river with her. The grass is green."
OTHER = "Tom gave the key to Max, so now Max has the key. The snow is white, and the sea is blue."
LIMITED: list[tuple[str, str | None, dict[str, Any]]] = [
    (LONG, None, {"truncation": True, "max_length": 10}),
    (LONG, None, {"truncation": True, "max_length": 3}),
    (LONG, None, {"truncation": True, "max_length": 100}),
    (LONG, None, {"truncation": True, "max_length": 9, "stride": 3}),
    (LONG, None, {"truncation": True, "max_length": 9, "add_special_tokens": False}),
    (LONG, OTHER, {"truncation": True, "max_length": 20}),
    (LONG, OTHER, {"truncation": "longest_first", "max_length": 31}),
    (LONG, "The grass is green.", {"truncation": "only_first", "max_length": 18}),
    (LONG, "The grass is green.", {"truncation": "only_first", "max_length": 16, "stride": 2}),
    ("The grass is green.", OTHER, {"truncation": "only_second", "max_length": 18, "stride": 4}),
    (LONG + " \U0001f600\u4e16 <mask>", None, {"add_special_tokens": False}),
]


def main() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "npprelnorm" / "assets" / "tiny")
    assert type(tokenizer).__name__.startswith("RobertaTokenizer")
    cases = [(text, None, {}) for text in TEXTS] + [(*pair, {}) for pair in PAIRS] + LIMITED
    records = []
    for text, pair, options in cases:
        # as a batch of one: alone, transformers takes an empty second text for none at all
        encoding = tokenizer(
            [text],
            None if pair is None else [pair],
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_overflowing_tokens=bool(options.get("truncation")),
            **options,
        )
        ids = encoding["input_ids"]
        records.append(
            {
                "text": text,
                "text_pair": pair,
                "options": options,
                "input_ids": ids,
                "offset_mapping": encoding["offset_mapping"],
                "special_tokens_mask": encoding["special_tokens_mask"],
                "decoded": [tokenizer.decode(row) for row in ids],
                "decoded_without_special": [tokenizer.decode(row, skip_special_tokens=True) for row in ids],
            }
        )
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    head = json.dumps({"transformers": transformers.__version__})[1:-1]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(f'{{{head}, "records": [\n{lines}\n]}}\n')
    print(f"{len(records)} records, {TARGET.stat().st_size:,} bytes in {TARGET}")


if __name__ == "__main__":
    main()
