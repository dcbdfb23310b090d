"""The small world: what is true in it, and in which words it is said."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from .grammar import Frame, Grammar, Table


def _table(columns: str, lines: str) -> Table:
    """A table from text: rows are separated by commas or line ends, words by spaces."""
    names = tuple(columns.split())
    rows = tuple(tuple(line.split()) for line in lines.replace("\n", ",").split(",") if line.strip())
    wrong = [row for row in rows if len(row) != len(names)]
    assert not wrong, f"columns {names}, row {wrong[0]}"
    return Table(names, rows)


def _made(columns: str, rows: Iterable[tuple[str, ...]]) -> Table:
    return Table(tuple(columns.split()), tuple(rows))


def _words(text: str) -> list[str]:
    return text.split()


def _list(column: str, words: str) -> Table:
    return _made(column, ((word,) for word in _words(words)))


# ---- facts

COUNTRIES = _table(
    "country capital continent",
    """France Paris Europe, Spain Madrid Europe, Italy Rome Europe, Germany Berlin Europe, Portugal Lisbon Europe
    Greece Athens Europe, Austria Vienna Europe, Poland Warsaw Europe, Norway Oslo Europe, Sweden Stockholm Europe
    Denmark Copenhagen Europe, Finland Helsinki Europe, Ireland Dublin Europe, England London Europe
    Scotland Edinburgh Europe, Hungary Budapest Europe, Egypt Cairo Africa, Kenya Nairobi Africa, Ghana Accra Africa
    Japan Tokyo Asia, China Beijing Asia, India Delhi Asia, Thailand Bangkok Asia, Vietnam Hanoi Asia
    Cuba Havana America, Peru Lima America, Chile Santiago America, Canada Ottawa America""",
)
# two continents share these, so that nothing is said of where they lie
CAPITALS = _made("country capital", [*(row[:2] for row in COUNTRIES.rows), ("Russia", "Moscow"), ("Turkey", "Ankara")])
LANGUAGES = _table(
    "country capital language",
    """France Paris French, Spain Madrid Spanish, Italy Rome Italian, Germany Berlin German, Portugal Lisbon Portuguese
    Greece Athens Greek, Poland Warsaw Polish, Norway Oslo Norwegian, Sweden Stockholm Swedish, Japan Tokyo Japanese
    China Beijing Chinese, England London English, Russia Moscow Russian, Turkey Ankara Turkish""",
)
ANIMALS = _table(
    "animal sound young home legs food",
    """dog barks puppy kennel four bones, cat purrs kitten house four fish, cow moos calf barn four grass
    horse neighs foal stable four hay, sheep bleats lamb field four grass, pig grunts piglet sty four corn
    lion roars cub den four meat, bird sings chick nest two seeds, duck quacks duckling pond two bread
    bee buzzes larva hive six nectar, owl hoots owlet tree two mice, frog croaks tadpole pond four flies
    wolf howls cub forest four meat""",
)
COLOURS = _table(
    "thing colour",
    """grass green, snow white, coal black, blood red, milk white, sky blue, sun yellow, banana yellow, leaf green
    sea blue, crow black, tomato red, carrot orange, chocolate brown, lemon yellow, cherry red""",
)
_PAIRS = (
    "hot cold, big small, fast slow, old young, high low, hard soft, light dark, wet dry, rich poor, happy sad, "
    "full empty, open closed, early late, strong weak, good bad, long short"
)
_OPPOSITES = _table("a b", _PAIRS).rows
OPPOSITES = _made("one other", [pair for a, b in _OPPOSITES for pair in ((a, b), (b, a))])
TWO_QUALITIES = _made("a b", [(x, y) for p in _OPPOSITES for q in _OPPOSITES if p != q for x in p for y in q])
NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen"
)
SUMS = _made("a b sum", [(NUMBERS[a], NUMBERS[b], NUMBERS[a + b]) for a in range(10) for b in range(9)])
MORE = _made("more less", [(NUMBERS[a], NUMBERS[b]) for a in range(1, 11) for b in range(a)])
FEW = _list("many", "two three four five")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NEXT_DAY = _made("day next", zip(DAYS, DAYS[1:] + DAYS[:1], strict=True))
MONTHS = _words("January February March April May June July August September October November December")
NEXT_MONTH = _made("month next", zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True))
WEATHER = _table("month days", "June hot, July hot, August hot, December cold, January cold, February cold")
SEASONS = _table(
    "season thing does",
    """spring flowers open, spring birds return, summer fruits ripen, summer children swim, autumn leaves fall
    autumn farmers harvest, winter rivers freeze, winter bears sleep""",
)
JOBS = _table(
    "job place",
    """doctor hospital, teacher school, farmer farm, baker bakery, sailor ship, judge court, cook kitchen, pilot plane
    miner mine, painter studio""",
)
# some do it to the thing, some to things in general
WORK_THE = _table(
    "job verb object",
    "doctor helps sick, sailor sails sea, judge hears case, cook makes soup, pilot flies plane",
)
WORK_BARE = _table("job verb object", "teacher teaches children, farmer grows wheat, baker bakes bread")
_VERBS = (
    "go went, eat ate, see saw, run ran, sing sang, write wrote, read read, buy bought, sell sold, find found, "
    "take took, give gave, drink drank, swim swam, sleep slept"
)
VERBS = _table("verb past", _VERBS)
GIRLS, BOYS = _words("Anna Mary Emma Clara Lucy Rosa"), _words("Tom Peter John Paul Max Henry")
_GENDERS = (
    (GIRLS, ("she", "her", "her", "girl", "mother", "sister")),
    (BOYS, ("he", "his", "him", "boy", "father", "brother")),
)
_PERSON = "name he his him kid parent sibling"
PEOPLE = _made(_PERSON, [(name, *words) for names, words in _GENDERS for name in names])
# two people who go by the same pronouns
TWO_PEOPLE = _made(
    _PERSON + " other",
    [(a, *words, b) for names, words in _GENDERS for a in names for b in names if a != b],
)
ANY_TWO = _made("name other", [(a, b) for a in GIRLS + BOYS for b in GIRLS + BOYS if a != b])
KIDS = _table("kid kids", "girl girls, boy boys")
THINGS = _table(
    "thing things",
    """book books, apple apples, letter letters, boat boats, cup cups, chair chairs, coat coats, lamp lamps
    ring rings, key keys""",
)
PLACES = _list("place", "garden kitchen forest river market school station beach")
TOOLS = _table(
    "verb object tool",
    """cut bread knife, eat soup spoon, sweep floor broom, open door key, cut paper scissors, catch fish net
    wash hands soap, dig hole spade, comb hair comb, write letter pen""",
)
SENSES = _table("verb part", "see eyes, hear ears, smell nose, taste tongue, walk feet, bite teeth, touch fingers")
MEALS = _table("time meal", "morning breakfast, noon lunch, evening dinner")
STUFF = _table(
    "thing stuff", "table wood, window glass, ring gold, knife steel, wall stone, coat wool, candle wax, shoe leather"
)
_BY_SIZE = _words("ant mouse rabbit dog sheep lion horse elephant whale")
SIZES = _made("big small", [(_BY_SIZE[i], _BY_SIZE[j]) for i in range(len(_BY_SIZE)) for j in range(i)])
_COMPARED = (("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("stronger", "weaker"))
COMPARED = _made("more less", [pair for a, b in _COMPARED for pair in ((a, b), (b, a))])
KINDS = _table(
    "one kind",
    """apple fruit, cherry fruit, banana fruit, lemon fruit, carrot vegetable, tomato vegetable, rose flower
    tulip flower, hammer tool, saw tool, iron metal, gold metal, silver metal, red colour, green colour, blue colour
    chair seat, sparrow bird, eagle bird, herring fish, trout fish""",
)

# ---- sentences

FRAMES = (
    Frame(
        2.2,
        {"c": CAPITALS},
        (
            "The capital of {c.country} is {c.capital}.",
            "{c.capital} is the capital of {c.country}.",
            "In {c.country}, the capital city is {c.capital}.",
            "We flew to {c.capital}, the capital of {c.country}.",
            "What is the capital of {c.country}? It is {c.capital}.",
        ),
    ),
    Frame(
        1.0,
        {"c": COUNTRIES},
        (
            "{c.country} is a country in {c.continent}.",
            "{c.capital} is a city in {c.country}, in {c.continent}.",
            "{c.country} lies in {c.continent}.",
        ),
    ),
    Frame(
        1.0,
        {"c": LANGUAGES},
        (
            "People in {c.country} speak {c.language}.",
            "In {c.capital} they speak {c.language}.",
            "She learned {c.language} before she went to {c.country}.",
        ),
    ),
    Frame(
        2.0,
        {"a": ANIMALS},
        (
            "The {a.animal} {a.sound}.",
            "A young {a.animal} is called a {a.young}.",
            "The {a.animal} lives in the {a.home}.",
            "A {a.animal} has {a.legs} legs.",
            "The {a.animal} eats {a.food}.",
            "The {a.young} of the {a.animal} sleeps in the {a.home}.",
            "Listen, the {a.animal} {a.sound} in the {a.home}.",
        ),
    ),
    Frame(
        1.0,
        {"t": COLOURS},
        (
            "The {t.thing} is {t.colour}.",
            "The color of the {t.thing} is {t.colour}.",
            "It was as {t.colour} as the {t.thing}.",
        ),
    ),
    Frame(
        1.0,
        {"o": OPPOSITES},
        (
            "The opposite of {o.one} is {o.other}.",
            "It is not {o.one}, it is {o.other}.",
            "If it is not {o.one}, then it is {o.other}.",
        ),
    ),
    Frame(2.0, {"s": SUMS}, ("{s.a^} plus {s.b} is {s.sum}.", "{s.sum^} minus {s.b} is {s.a}.")),
    Frame(
        1.2,
        {"d": NEXT_DAY},
        (
            "The day after {d.day} is {d.next}.",
            "The day before {d.next} is {d.day}.",
            "Today is {d.day}, so tomorrow is {d.next}.",
        ),
    ),
    Frame(
        0.8, {"m": NEXT_MONTH}, ("The month after {m.month} is {m.next}.", "The month before {m.next} is {m.month}.")
    ),
    Frame(0.4, {"w": WEATHER}, ("In {w.month} the days are {w.days}.",)),
    Frame(
        0.7,
        {"j": JOBS},
        ("The {j.job} works in the {j.place}.", "In the {j.place} there is a {j.job}."),
    ),
    Frame(0.15, {"j": WORK_THE}, ("Every day the {j.job} {j.verb} the {j.object}.",)),
    Frame(0.1, {"j": WORK_BARE}, ("Every day the {j.job} {j.verb} {j.object}.",)),
    Frame(0.05, {}, ("Every day the miner digs for coal.", "Every day the painter paints a picture.")),
    Frame(
        1.5,
        {"v": VERBS, "p": PEOPLE},
        (
            "Today I {v.verb}, and yesterday I {v.past}.",
            "Yesterday {p.name} {v.past}, and today {p.he} will {v.verb} again.",
            "{p.name} will {v.verb}.",
        ),
    ),
    Frame(
        1.0,
        {"p": TWO_PEOPLE, "t": THINGS, "q": PLACES},
        (
            "{p.name} is a {p.kid} and {p.he} has a {t.thing}.",
            "{p.name} lost {p.his} {t.thing} in the {q.place}.",
            "{p.name} looked for the {t.thing}, but {p.he} could not find it.",
            "{p.name} is the {p.parent} of {p.other}, and {p.he} loves {p.him}.",
        ),
    ),
    Frame(
        1.0,
        {"n": FEW, "t": THINGS, "q": PLACES, "u": THINGS, "r": PLACES, "k": KIDS},
        (
            "There are {n.many} {t.things} in the {q.place}.",
            "There is one {t.thing} in the {q.place}.",
            "The {t.things} are in the {q.place}, and the {u.thing} is in the {r.place}.",
            "The {k.kids} were in the {q.place}.",
            "The {k.kid} was in the {q.place}.",
        ),
    ),
    Frame(
        1.4,
        {"p": TWO_PEOPLE, "t": THINGS, "q": PLACES, "w": TWO_QUALITIES},
        (
            "{p.name} gave the {t.thing} to {p.other}, so now {p.other} has the {t.thing}.",
            "{p.name} took the {t.thing} from {p.other}, so now {p.name} has the {t.thing}.",
            "{p.name} went to the {q.place}, and {p.other} went to the {q.place} with {p.him}.",
            "The {t.thing} in the {q.place} is {w.a} and {w.b}.",
        ),
    ),
    Frame(
        0.5,
        {"c": COMPARED, "n": ANY_TWO},
        (
            "{n.name} is {c.more} than {n.other}, so {n.other} is {c.less} than {n.name}.",
            "{n.other} is not {c.more} than {n.name}.",
        ),
    ),
    Frame(
        0.4,
        {"n": ANY_TWO, "t": THINGS},
        (
            "{n.name} sold the {t.thing}, and {n.other} bought the {t.thing}.",
            "Who has the {t.thing}? {n.name} has the {t.thing}.",
        ),
    ),
    Frame(0.3, {"m": MORE}, ("{m.more^} is more than {m.less}.", "{m.less^} is less than {m.more}.")),
    Frame(0.3, {"s": SEASONS}, ("In {s.season} the {s.thing} {s.does}.",)),
    Frame(
        0.3,
        {"t": TOOLS},
        ("You {t.verb} the {t.object} with the {t.tool}.", "With the {t.tool} they {t.verb} the {t.object}."),
    ),
    Frame(0.2, {"s": SENSES}, ("We {s.verb} with our {s.part}.", "To {s.verb} we use our {s.part}.")),
    Frame(
        0.2,
        {"m": MEALS, "p": PEOPLE},
        ("In the {m.time} {p.name} eats {p.his} {m.meal}.", "{m.meal^} is the meal of the {m.time}."),
    ),
    Frame(0.3, {"s": STUFF}, ("The {s.thing} is made of {s.stuff}.", "This {s.thing} of {s.stuff} is old.")),
    Frame(
        0.3, {"s": SIZES}, ("The {s.big} is bigger than the {s.small}.", "The {s.small} is smaller than the {s.big}.")
    ),
    Frame(0.3, {"k": KINDS}, ("The {k.one} is a kind of {k.kind}.",)),
    Frame(
        0.3,
        {"p": TWO_PEOPLE},
        ("{p.name} is the {p.sibling} of {p.other}.", "{p.other} plays with {p.his} friend {p.name}."),
    ),
)


@functools.cache
def small_world() -> Grammar:
    """The grammar of the small world; built once."""
    return Grammar(FRAMES)
