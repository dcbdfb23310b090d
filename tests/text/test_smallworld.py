"""The small world: its probabilities are exact, its sampler draws from them, and it knows what it should."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.errors import InputError
from npprelnorm.smallworld import Frame, Grammar, Table, sentence_of, small_world, words_of

WORDS = ("a", "b", "C", "d")


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    """Grammars over four words, in which many derivations say the same."""
    frames = []
    for _ in range(draw(st.integers(1, 3))):
        tables = {}
        for name in ("t", "u"):
            width = draw(st.integers(1, 2))
            row = st.tuples(*[st.sampled_from(WORDS)] * width)
            rows = tuple(draw(st.lists(row, min_size=1, max_size=4)))
            weights = tuple(draw(st.lists(st.floats(0.1, 2.0), min_size=len(rows), max_size=len(rows))))
            tables[name] = Table(("x", "y")[:width], rows, draw(st.sampled_from([None, weights])))
        slots = ["{%s.%s%s}" % (n, c, up) for n, t in tables.items() for c in t.columns for up in ("", "^")]  # noqa: UP031
        place = st.sampled_from([*slots, *WORDS, "A", "."])
        template = st.lists(place, min_size=1, max_size=4).map(" ".join)
        frames.append(Frame(draw(st.floats(0.1, 2.0)), tables, tuple(draw(st.lists(template, min_size=1, max_size=3)))))
    return Grammar(frames)


def by_brute_force(everything: dict[str, float], words: list[str]) -> list[dict[str, float]]:
    """The distributions of `masked` from the list of all sentences."""
    hidden = [place for place, word in enumerate(words) if word == "<mask>"]
    found: list[Counter[str]] = [Counter() for _ in hidden]
    for sentence, probability in everything.items():
        said = words_of(sentence)
        if len(said) == len(words) and all(b in ("<mask>", a) for a, b in zip(said, words, strict=True)):
            for counter, place in zip(found, hidden, strict=True):
                counter[said[place]] += probability
    return [{word: mass / sum(one.values()) for word, mass in one.items()} for one in found]


@given(grammars(), st.data())
def test_everything_that_is_computed_agrees_with_the_list_of_all_sentences(
    grammar: Grammar, data: st.DataObject
) -> None:
    everything = grammar.everything()
    assert math.fsum(everything.values()) == pytest.approx(1, abs=1e-12)
    for sentence, probability in everything.items():
        assert math.exp(grammar.log_probability(sentence)) == pytest.approx(probability, rel=1e-12)
    entropy = math.fsum(-p * math.log(p) for p in everything.values())
    assert grammar.entropy() == pytest.approx(entropy, rel=1e-12, abs=1e-14)
    assert grammar.vocabulary() == sorted({word for sentence in everything for word in words_of(sentence)})

    words = words_of(data.draw(st.sampled_from(sorted(everything))))
    hide = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)).filter(any))
    masked = ["<mask>" if hidden else word for word, hidden in zip(words, hide, strict=True)]
    expected = by_brute_force(everything, masked)
    result = grammar.masked(sentence_of(masked))
    assert len(result) == len(expected) == sum(hide)
    for ours, theirs in zip(result, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)
        assert list(ours.values()) == sorted(ours.values(), reverse=True)


def test_derivations_of_one_string_are_added_up() -> None:
    """Two rows, two templates and two frames that say "a a"."""
    pair = Table(("x", "y"), (("a", "b"), ("a", "c")), (3.0, 1.0))
    grammar = Grammar(
        [
            Frame(1.0, {"t": pair}, ("{t.x} {t.x}", "{t.x} {t.y}")),
            Frame(1.0, {"t": Table(("x",), (("a",),))}, ("a {t.x}",)),
        ]
    )
    assert grammar.everything() == pytest.approx({"a a": 0.75, "a b": 0.1875, "a c": 0.0625})
    assert grammar.log_probability("a a") == pytest.approx(math.log(0.75))
    assert grammar.entropy() == pytest.approx(-sum(p * math.log(p) for p in (0.75, 0.1875, 0.0625)))
    assert grammar.masked("a <mask>") == [pytest.approx({"a": 0.75, "b": 0.1875, "c": 0.0625})]


def chi_square_is_likely(counts: Counter[str], probabilities: dict[str, float], n: int) -> bool:
    """Pearson's statistic within four standard deviations of its mean; categories expected below 5 are lumped."""
    large = {name: p for name, p in probabilities.items() if p * n >= 5}
    cells = [(counts[name], p * n) for name, p in large.items()]
    rest = 1 - math.fsum(large.values())
    if rest * n >= 5:
        cells.append((n - sum(counts[name] for name in large), rest * n))
    freedom = len(cells) - 1
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_sampler_draws_from_the_distribution() -> None:
    three = Table(("x", "y"), (("a", "b"), ("b", "C"), ("d", "d")), (1.0, 2.0, 5.0))
    two = Table(("z",), (("a",), ("b",)))
    grammar = Grammar(
        [Frame(2.0, {"t": three, "u": two}, ("{t.x} {u.z}.", "{u.z^} {t.y}.")), Frame(1.0, {"u": two}, ("{u.z} b.",))]
    )
    drawn = grammar.sentences(20_000, seed=0)
    exact = grammar.everything()
    assert set(drawn) == set(exact)
    assert chi_square_is_likely(Counter(drawn), exact, len(drawn))
    shifted = dict(zip(exact, [*list(exact.values())[1:], next(iter(exact.values()))], strict=True))
    assert not chi_square_is_likely(Counter(drawn), shifted, len(drawn))  # the test can fail


def test_the_small_world_is_drawn_as_its_probabilities_say() -> None:
    world = small_world()
    drawn = world.sentences(20_000, seed=1)
    counts = Counter(drawn)
    logs = {sentence: world.log_probability(sentence) for sentence in counts}
    assert chi_square_is_likely(counts, {s: math.exp(log) for s, log in logs.items()}, len(drawn))
    # the mean of -log p estimates the entropy: within four standard errors
    surprise = [-logs[sentence] for sentence in drawn]
    mean = math.fsum(surprise) / len(surprise)
    spread = math.sqrt(math.fsum((s - mean) ** 2 for s in surprise) / len(surprise))
    assert abs(mean - world.entropy()) < 4 * spread / math.sqrt(len(surprise))


def test_the_probabilities_of_the_small_world_sum_to_one() -> None:
    assert math.fsum(small_world().everything().values()) == pytest.approx(1, abs=1e-9)


def test_sentences_are_told_by_the_seed() -> None:
    world = small_world()
    assert world.sentences(50, seed=3) == world.sentences(50, seed=3)
    assert world.sentences(50, seed=3) != world.sentences(50, seed=4)
    assert world.sentences(0, seed=3) == []


def test_words_and_back() -> None:
    for sentence in small_world().sentences(2_000, seed=5):
        assert sentence_of(words_of(sentence)) == sentence
    assert words_of("What is it? It is <mask>.") == ["What", "is", "it", "?", "It", "is", "<mask>", "."]


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("The capital of France is <mask>.", {"Paris": 1}),
        ("Moscow is the capital of <mask>.", {"Russia": 1}),
        ("Egypt lies in <mask>.", {"Africa": 1}),
        ("In Athens they speak <mask>.", {"Greek": 1}),
        ("A young cat is called a <mask>.", {"kitten": 1}),
        ("The color of the snow is <mask>.", {"white": 1}),
        ("The opposite of rich is <mask>.", {"poor": 1}),
        ("Seven plus eight is <mask>.", {"fifteen": 1}),
        ("The day after Sunday is <mask>.", {"Monday": 1}),
        ("The month before January is <mask>.", {"December": 1}),
        ("Every day the cook <mask> the soup.", {"makes": 1}),
        ("Yesterday Emma <mask>, and today she will sell again.", {"sold": 1}),
        ("Anna lost <mask> book in the garden.", {"her": 1}),
        ("Tom gave the key to Max, so now <mask> has the key.", {"Max": 1}),
        ("The <mask> is older than the cat.", None),
        ("There are <mask> apples in the river.", {"two": 0.25, "three": 0.25, "four": 0.25, "five": 0.25}),
        ("The <mask> of the wolf sleeps in the forest.", {"cub": 1}),
        ("The <mask> were in the river.", {"boys": 0.5, "girls": 0.5}),
    ],
)
def test_what_it_knows(sentence: str, answer: dict[str, float] | None) -> None:
    if answer is None:
        with pytest.raises(InputError, match="no sentence like"):
            small_world().masked(sentence)
    else:
        assert small_world().masked(sentence) == [pytest.approx(answer)]


def test_several_masks_are_each_by_themselves() -> None:
    first, second = small_world().masked("The day after <mask> is <mask>.")
    assert first == second
    assert list(first.values()) == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("sentence", ["The capital of France is Rome.", "The capital of France is Paris", "", "Paris"])
def test_what_is_never_said(sentence: str) -> None:
    assert small_world().log_probability(sentence) == -math.inf


@pytest.mark.parametrize(
    "sentence", [" The capital of France is Paris.", "The capital  of France is Paris.", "The cow moos ."]
)
def test_other_spaces_are_another_string(sentence: str) -> None:
    assert small_world().log_probability(" ".join(sentence.split()).replace(" .", ".")) > -math.inf
    assert small_world().log_probability(sentence) == -math.inf


def test_wrong_use_is_told() -> None:
    world = small_world()
    with pytest.raises(InputError, match="put one in place of a word"):
        world.masked("The cow moos.")
    with pytest.raises(InputError, match=r"use masked\(\)"):
        world.log_probability("The cow <mask>.")
    with pytest.raises(InputError, match="n is -1"):
        world.sentences(-1, seed=0)
    with pytest.raises(InputError, match="seed is -2"):
        world.sentences(1, seed=-2)
    one = Table(("x",), (("a",),))
    with pytest.raises(InputError, match=r"slot t\.y"):
        Grammar([Frame(1.0, {"t": one}, ("{t.y}",))])
    with pytest.raises(InputError, match="not one word"):
        Grammar([Frame(1.0, {"t": Table(("x",), (("two words",),))}, ("{t.x}",))])
    many = Table(("x",), tuple((f"w{i}",) for i in range(200)))
    big = Grammar([Frame(1.0, {"a": many, "b": many, "c": many}, ("{a.x} {b.x} {c.x}", "{a.x} {b.x} w1"))])
    with pytest.raises(InputError, match="too many to merge"):
        big.entropy()
    with pytest.raises(InputError, match="draw some"):
        big.everything()
