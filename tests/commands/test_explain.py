"""`npprelnorm explain`: the summary, the page, and the page in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import dom_of
from hypothesis import given, settings
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.commands import main
from npprelnorm.errors import InputError, NpprelnormError
from npprelnorm.inspect import attention_maps, explain, logit_lens_top, report_html, residual_norms

FRANCE = "The capital of France is <mask>."
HOSTILE = "<mask> </script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>&lt;b&gt; @@DATA@@ \u202e"


@pytest.fixture(scope="module")
def model() -> Any:
    return nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return nl.Tokenizer.from_pretrained(nl.embedded_model_path())


def data_of(page: str) -> Any:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_a_summary_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", FRANCE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == FRANCE
    assert lines[2] == "at token 6, <mask>: the likeliest tokens"
    assert lines[3].split() == ["after", "norm"]
    assert [line.split("  ")[0] for line in lines[4:9]] == ["embeddings", *(f"layer {n}" for n in (1, 2, 3, 4))]
    assert lines[8].split()[2] == "Paris"
    assert lines[10] == "it attends most to (mean of all heads)"
    assert lines[-6] == "norm of the residual stream, mean of all tokens"


def test_the_numbers_are_the_models(model: Any, tokenizer: Any) -> None:
    found = explain(model, tokenizer, FRANCE, k=3)
    batch = tokenizer([FRANCE])
    maps = attention_maps(model, **batch)[:, 0]
    stored = np.array(found["attention"]).reshape(maps.shape) / 10_000
    assert np.abs(stored - maps).max() <= 0.5e-4 + 1e-7
    top, norms = logit_lens_top(model, k=3, **batch), residual_norms(model, **batch)
    for layer, rows in enumerate(found["lens"]):
        for place, words in enumerate(rows):
            assert [word for word, _ in words] == [tokenizer.decode([i]) for i in top.ids[layer, 0, place]]
            np.testing.assert_allclose([p for _, p in words], top.probabilities[layer, 0, place], rtol=1e-3)
    np.testing.assert_allclose(found["norms"]["mean"], norms.per_layer, rtol=1e-3)
    np.testing.assert_allclose(found["norms"]["tokens"], norms.per_token[:, 0], rtol=1e-3)
    assert found["tokens"] == ["<s>", "The", " capital", " of", " France", " is", "<mask>", ".", "</s>"]
    assert found["start"] == found["fills"][0]["position"] == 6
    assert found["fills"][0]["best"] == found["lens"][-1][6]
    assert found["cut"] == ""


def test_long_texts_are_cut_around_the_mask_and_say_so(model: Any, tokenizer: Any) -> None:
    text = "The dog barks. " * 9 + FRANCE + " The cat purrs." * 9
    row = tokenizer([text])["input_ids"][0]
    mask = int((row == tokenizer.mask_token_id).argmax())
    found = explain(model, tokenizer, text, max_tokens=10)
    assert found["positions"] == list(range(mask - 5, mask + 5))
    assert found["tokens"][5] == "<mask>"
    assert f"Shown are 10 of {len(row)} tokens, from token {mask - 5} on" in found["cut"]
    maps = attention_maps(model, input_ids=row[None])[:, 0, :, mask - 5 : mask + 5, mask - 5 : mask + 5]
    np.testing.assert_allclose(np.array(found["attention"]).reshape(maps.shape) / 1e4, maps, atol=1e-4)
    np.testing.assert_allclose(found["norms"]["mean"], residual_norms(model, input_ids=row[None]).per_layer, rtol=1e-3)
    beginning = explain(model, tokenizer, "The dog barks. " * 9, max_tokens=10)
    assert (beginning["positions"], beginning["fills"], beginning["start"]) == (list(range(10)), [], 0)
    assert beginning["cut"] in report_html(beginning)
    at_the_end = explain(model, tokenizer, "The dog barks. " * 9 + FRANCE, max_tokens=10)
    assert at_the_end["positions"][-1] == mask + 2
    assert len(at_the_end["positions"]) == 10
    two = explain(model, tokenizer, FRANCE + " The dog barks." * 4 + " The <mask> purrs.", max_tokens=10)
    assert two["cut"].endswith(" Masks shown: 1 of 2.")


def test_an_empty_text_has_a_title(model: Any, tokenizer: Any) -> None:
    assert "<title>(an empty text)</title>" in report_html(explain(model, tokenizer, " "))


def test_the_page_stays_small_however_many_heads_there_are(tokenizer: Any) -> None:
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=6144, hidden_size=128, num_hidden_layers=24, num_attention_heads=64, intermediate_size=8
    )
    deep = nl.RobertaPreLayerNormForMaskedLM(config)
    found = explain(deep, tokenizer, "The dog barks. " * 30 + "<mask>")
    assert 10 <= len(found["tokens"]) < 64
    assert len(found["attention"]) * len(found["attention"][0]) * len(found["tokens"]) ** 2 <= 2_400_000
    assert len(report_html(found)) < 10_000_000


def test_what_cannot_be_explained(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for options, message in (({"k": 0}, "k is 0"), ({"max_tokens": 0}, "max_tokens is 0")):
        with pytest.raises(InputError, match=message):
            explain(model, tokenizer, FRANCE, **options)
    with pytest.raises(InputError, match="text is a list"):
        explain(model, tokenizer, [FRANCE])  # type: ignore[arg-type]
    page = tmp_path / "report.html"
    assert main(["explain", "dog " * 500, "--html", str(page)]) == 1
    assert "tokens, more than the" in capsys.readouterr().err
    assert not page.exists()
    assert main(["explain", "dog " * 500 + "<mask>", "--truncate", "--html", str(page)]) == 0
    cut = data_of(page.read_text(encoding="utf-8"))["cut"]
    tokens = len(tokenizer(["dog " * 500 + "<mask>"])["input_ids"][0])
    assert cut.startswith(
        f"The text has {tokens} tokens, and was cut to the 128 that this model takes. Shown are 64 of "
    )
    assert cut.endswith(" Masks shown: 0 of 1.")
    assert main(["explain", FRANCE, "--html", str(tmp_path)]) == 1
    assert "is a folder; --html needs the name of a file" in capsys.readouterr().err
    assert main(["explain", FRANCE, "--html", ""]) == 1
    assert "--html is empty; it needs the name of a file" in capsys.readouterr().err
    assert main(["explain", FRANCE, "--html", str(page / "below.html")]) == 1
    assert f"{page / 'below.html'} cannot be written (" in capsys.readouterr().err
    damaged = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    name = "roberta_prelayernorm.encoder.layer.1.output.dense.bias"
    damaged.params[name] = np.full_like(damaged.params[name], np.nan)
    with pytest.raises(NpprelnormError, match="are the weights damaged"), np.errstate(invalid="ignore"):
        explain(damaged, tokenizer, FRANCE)
    with pytest.raises(NpprelnormError, match="are the weights damaged"), np.errstate(invalid="ignore"):
        logit_lens_top(damaged, **tokenizer([FRANCE]))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=30)
def test_no_text_becomes_markup(model: Any, tokenizer: Any, text: str) -> None:
    text = text + HOSTILE
    page = report_html(explain(model, tokenizer, text, k=1, truncation=True, max_tokens=4))
    template = report_html(explain(model, tokenizer, "a", k=1, max_tokens=4))
    tags = re.compile(r"<[/!a-zA-Z]\w*")
    assert tags.findall(page) == tags.findall(template)
    assert data_of(page)["text"] == text
    assert f'<h1 dir="auto">{html.escape(text.strip()[:200])}' in page


def test_the_page_asks_for_nothing_else(model: Any, tokenizer: Any) -> None:
    page = report_html(explain(model, tokenizer, FRANCE))
    assert not re.search(r"://|\bsrc\s*=|\bhref\s*=|url\(|@import|fetch\(|XMLHttp|import\(|<link|<iframe", page)
    assert "default-src 'none'" in page
    assert len(page) < 60_000


# what a reader does, and what the page then says; run after the page's own script
ACTIONS = """
const said = {errors: window.errors, ready: document.documentElement.dataset.ready};
const one = query => document.querySelector(query);
const hover = (q, k) => {
  one(`#map td[data-q="${q}"][data-k="${k}"]`).dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
  return one("#readout").textContent;
};
const pick = (id, value) => { one(id).value = value; one(id).dispatchEvent(new Event("change")); };
const key = name => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
said.title = document.title;
said.shown = [...document.querySelectorAll("section:not([hidden])")].map(one => one.getAttribute("aria-labelledby"));
said.heading = one("h1").textContent;
said.tokens = [...document.querySelectorAll("#tokens button")].map(b => b.textContent);
said.start = one("#readout").textContent;
said.legends = [...document.querySelectorAll(".legend")].map(legend => legend.textContent);
said.reading = one("#reading").textContent;
said.growth = one("#growth").textContent;
// WCAG 2: relative luminances of every text and of what lies behind it, shades on shades
const colour = text => { const c = text.match(/[\\d.]+/g).map(Number); return c.length < 4 ? [...c, 1] : c; };
const luminance = c => c.slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  const own = colour(getComputedStyle(element).backgroundColor);
  if (own[3] === 1) return own;
  const under = element.parentElement ? behind(element.parentElement) : [255, 255, 255, 1];
  return [0, 1, 2].map(i => own[i] * own[3] + under[i] * (1 - own[3])).concat(1);
};
said.contrast = [21, ""];
for (const element of document.querySelectorAll("main *")) {
  if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  const [a, b] = [luminance(colour(getComputedStyle(element).color)), luminance(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < said.contrast[0]) said.contrast = [ratio, element.tagName + " " + element.textContent];
}
said.mean = hover(1, 2);
said.pointed = [...document.querySelectorAll("#map .at")].map(name => name.textContent);
said.label = one('#map td[data-q="1"][data-k="2"]').getAttribute("aria-label");
const heads = [...document.querySelectorAll("#heads button")];
heads[2].click();
said.chosenHead = [one("#head").value, heads.map(b => b.getAttribute("aria-pressed")).indexOf("true")];
heads[2].click();
said.noHead = one("#head").value;
// the small maps are shaded by the roots of the weights
said.small = heads.map(b => b.querySelector("canvas").getContext("2d").getImageData(2, 1, 1, 1).data[3] / 255);
pick("#layer", 0); pick("#head", 1);
said.head = hover(3, 2);
one("#map tbody td").focus();
key("ArrowRight"); key("ArrowDown"); key("ArrowDown"); key("ArrowLeft"); key("ArrowUp"); key("ArrowLeft");
said.focused = [document.activeElement.dataset.q, document.activeElement.dataset.k];
said.read = one("#readout").textContent;
said.stops = document.querySelectorAll('#map td[tabindex="0"]').length;
one("#map tbody tr:nth-child(4) th").click();
said.row = one("#tokens [aria-pressed=true]").textContent;
document.querySelectorAll("#tokens button")[4].click();
const chips = [...document.querySelectorAll("#tokens button")];
said.pressed = chips.map(b => b.getAttribute("aria-pressed")).indexOf("true");
said.detail = [...document.querySelectorAll("#detail tr")].map(line => [...line.cells].map(c => c.textContent));
said.fills = one("#fills") && one("#fills").textContent;
said.norms = [...document.querySelectorAll("#norms tr")].slice(1).map(line => [...line.cells].map(c => c.textContent));
said.loaded = performance.getEntriesByType("resource").length;
said.pwned = window.pwned === undefined ? "no" : "yes";
said.elements = document.querySelectorAll("img, b, iframe, script[src]").length;
document.body.style.width = "390px";
said.width = document.body.scrollWidth;
const out = document.createElement("pre");
out.id = "said";
out.textContent = JSON.stringify(said);
document.body.append(out);
"""


def in_the_browser(page: str, folder: Path) -> Any:
    """What `ACTIONS` found in the page."""
    watch = "<script>window.errors=[];onerror=m=>{errors.push(String(m))};"
    watch += "addEventListener('securitypolicyviolation',e=>errors.push(e.violatedDirective))</script>"
    path = folder / "page.html"
    path.write_text(
        page.replace("<title>", watch + "<title>", 1).replace("</body>", f"<script>{ACTIONS}</script></body>", 1),
        encoding="utf-8",
    )
    return json.loads(html.unescape(re.findall(r'<pre id="said">(.*?)</pre>', dom_of(path), re.DOTALL)[0]))


def test_in_the_browser(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    found = explain(model, tokenizer, FRANCE)
    said = in_the_browser(report_html(found), tmp_path)
    assert said["errors"] == []
    assert said["ready"] == "yes"
    assert said["title"] == said["heading"] == FRANCE
    assert said["tokens"] == ["<s>", "The", "·capital", "·of", "·France", "·is", "<mask>", ".", "</s>"]
    maps = attention_maps(model, **tokenizer([FRANCE]))[:, 0]  # (N, H, T, T)

    def weight(sentence: str) -> float:
        return float(re.findall(r"takes ([\d.]+) of", sentence)[0])

    # tokens are isolated, so that one to be read from the right disturbs nothing around it
    plain = {key: value.translate({0x2068: None, 0x2069: None}) for key, value in said.items() if type(value) is str}
    assert plain["mean"] != said["mean"]
    said |= plain
    assert said["start"].startswith("Most of all, “<mask>” (6) takes ")
    assert f"({maps[-1].mean(axis=0)[6].argmax()}), layer 4, mean of all heads." in said["start"]
    assert said["mean"].startswith("“The” (1) takes ")
    assert said["mean"].endswith(" of “·capital” (2), layer 4, mean of all heads.")
    assert abs(weight(said["mean"]) - maps[3, :, 1, 2].mean()) <= 1.01e-4
    assert said["head"].endswith(" of “·capital” (2), layer 1, head 2.")
    assert abs(weight(said["head"]) - maps[0, 1, 3, 2]) <= 0.51e-4
    assert said["focused"] == ["1", "0"]
    assert abs(weight(said["read"]) - maps[0, 1, 1, 0]) <= 0.51e-4
    assert said["stops"] == 1
    assert said["pressed"] == 4
    assert [row[0] for row in said["detail"]] == ["embeddings", *(f"layer {n}" for n in (1, 2, 3, 4))]
    for row, words in zip(said["detail"], found["lens"], strict=True):
        assert row[1].startswith(words[4][0][0].replace(" ", "·", 1) if words[4][0][0][0] == " " else words[4][0][0])
    assert "·Paris" in said["fills"]
    assert [float(row[1]) for row in said["norms"]] == pytest.approx(found["norms"]["mean"], abs=0.01)
    assert [float(row[3]) for row in said["norms"]] == pytest.approx(
        [row[4] for row in found["norms"]["tokens"]], abs=0.01
    )
    assert (said["loaded"], said["elements"], said["width"]) == (0, 0, 390)
    assert said["legends"] == ["weight:00.010.10.250.51", "probability:00.010.10.250.51"]
    assert said["reading"] == "its final LayerNorm and its head, applied to the stream there"
    assert said["growth"].startswith("In a pre-LN model every block adds")
    assert said["pointed"] == ["·capital", "The"]
    assert said["label"] + "." == said["mean"]
    assert (said["chosenHead"], said["noHead"]) == (["2", 2], "-1")
    assert np.square(said["small"]) == pytest.approx(maps[3, :, 1, 2], abs=0.01)
    assert said["row"] == "·of"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(model: Any, tokenizer: Any, scheme: str, tmp_path: Path) -> None:
    """4.5 to 1, as WCAG 2.2 (success criterion 1.4.3) asks."""
    page = report_html(explain(model, tokenizer, FRANCE))
    assert page.count("@media screen and (prefers-color-scheme: dark)") == 1
    page = page.replace("screen and (prefers-color-scheme: dark)", "all" if scheme == "dark" else "not all")
    ratio, where = in_the_browser(page, tmp_path)["contrast"]
    assert 4.5 <= ratio < 21, where


def test_a_post_ln_model_is_explained_as_one(tokenizer: Any, tmp_path: Path) -> None:
    config = nl.RobertaConfig(
        vocab_size=6144, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8
    )
    found = explain(nl.RobertaForMaskedLM(config), tokenizer, FRANCE)
    assert found["order"] == "post-LN"
    said = in_the_browser(report_html(found), tmp_path)
    assert said["errors"] == []
    assert "of a post-LN model, which has no final LayerNorm" in said["reading"]
    assert said["growth"] == "In a post-LN model each layer ends in a LayerNorm, which sets the norm anew."


def saved(model: Any, folder: Path) -> str:
    """A checkpoint of the model with the embedded one's tokenizer."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nl.embedded_model_path() / name, folder)
    return str(folder)


SIZES = {
    "vocab_size": 6144, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification", "ForTokenClassification"])
def test_a_checkpoint_without_a_language_model_is_shown_without_predictions(
    head: str, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = getattr(nl, f"RobertaPreLayerNorm{head}")(nl.RobertaPreLayerNormConfig(**SIZES), rng=1)
    folder, page = saved(model, tmp_path / "model"), tmp_path / "report.html"
    assert main(["explain", FRANCE, "--model", folder, "--html", str(page)]) == 0
    assert f"npprelnorm: {folder} has no language-model head, so there is no logit lens\n" in capsys.readouterr().err
    found = data_of(page.read_text(encoding="utf-8"))
    assert (found["predicts"], found["lens"], found["fills"], found["start"]) == ("", [], [], 6)
    maps = attention_maps(model, **tokenizer([FRANCE]))[:, 0]
    np.testing.assert_allclose(np.array(found["attention"]).reshape(maps.shape) / 1e4, maps, atol=1e-4)
    said = in_the_browser(page.read_text(encoding="utf-8"), tmp_path)
    assert (said["errors"], said["ready"], said["shown"]) == ([], "yes", ["h-attention", "h-norms"])
    assert main(["explain", FRANCE, "--model", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "at token 6, <mask>"
    assert lines[3].split() == ["after", "norm"]
    assert lines[6].split() == ["layer", "2", f"{found['norms']['tokens'][2][6]:.2f}"]


def test_a_causal_model_predicts_the_next_token(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nl.RobertaPreLayerNormForCausalLM(nl.RobertaPreLayerNormConfig(**SIZES, is_decoder=True), rng=1)
    folder = saved(model, tmp_path / "model")
    assert main(["explain", FRANCE, "--model", folder]) == 0
    assert ": the likeliest next tokens\n" in capsys.readouterr().out
    found = explain(model, tokenizer, FRANCE)
    assert (found["predicts"], found["fills"]) == ("next", [])
    logits = model(**tokenizer([FRANCE])).logits[0].astype(np.float64)
    best = np.exp(logits.max(axis=-1)) / np.exp(logits).sum(axis=-1)
    np.testing.assert_allclose([words[0][1] for words in found["lens"][-1]], best, rtol=1e-3)
    weights = np.array(found["attention"]).reshape(2, 4, 9, 9)
    assert (weights[:, :, ~np.tri(9, dtype=bool)] == 0).all()
    said = in_the_browser(report_html(found), tmp_path)
    assert said["reading"].endswith("; each token's prediction is of the one after it")


def test_a_damaged_checkpoint_is_not_shown_as_one_without_a_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from npprelnorm.checkpoint.safetensors_file import write_safetensors

    model = nl.RobertaPreLayerNormForMaskedLM(nl.RobertaPreLayerNormConfig(**SIZES), rng=1)
    folder = saved(model, tmp_path / "model")
    kept = {name: value for name, value in model.params.items() if "layer.1.output.dense.weight" not in name}
    write_safetensors(tmp_path / "model" / "model.safetensors", kept)
    assert main(["explain", FRANCE, "--model", folder]) == 1
    assert "missing: encoder.layer.1.output.dense.weight" in capsys.readouterr().err


def test_hostile_text_stays_text_in_the_browser(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    said = in_the_browser(report_html(explain(model, tokenizer, HOSTILE)), tmp_path)
    assert (said["errors"], said["ready"], said["pwned"], said["elements"]) == ([], "yes", "no", 0)
    assert said["heading"] == HOSTILE
    assert "".join(said["tokens"][1:7]).startswith("<mask>")
    assert (said["loaded"], said["width"]) == (0, 390)
