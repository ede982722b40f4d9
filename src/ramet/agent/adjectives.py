"""Adjectives that speak of a column without naming it: `the oldest player` asks for the age."""

from __future__ import annotations

_SPOKEN_OF = (
    ("high higher highest low lower lowest", "height altitude elevation summit peak level score grade"),
    ("tall taller tallest", "height stature altitude size"),
    ("large larger largest big bigger biggest great greater greatest small smaller smallest huge tiny",
     "area size population inhabitant capacity amount volume surface square acre hectare total diameter workforce"),
    ("long longer longest short shorter shortest",
     "length distance duration runtime minute lifespan word page shoreline coast mileage period delay time stay"),
    ("old older oldest young younger youngest", "age"),
    ("expensive pricey costly cheap cheaper cheapest pricier priciest costlier costliest dear dearer dearest",
     "price cost fee rate tuition fare bill rent charge"),
    ("heavy heavier heaviest light lighter lightest", "weight mass tonnage load displacement"),
    ("fast faster fastest slow slower slowest quick quicker quickest", "speed time pace velocity best lap"),
    ("deep deeper deepest shallow shallower shallowest", "depth"),
    ("wide wider widest narrow narrower narrowest broad broader broadest", "width breadth span gauge"),
    ("thick thicker thickest thin thinner thinnest", "thickness"),
    ("warm warmer warmest hot hotter hottest cold colder coldest cool cooler coolest", "temperature"),
    ("rich richer richest poor poorer poorest wealthy wealthier wealthiest", "wealth income revenue gdp fortune"),
    ("populous crowded", "population inhabitant resident"),
    ("strong stronger strongest powerful weak weaker weakest", "power horsepower strength thrust"),
    ("loud louder loudest quiet quieter quietest", "volume loudness noise"),
    ("dense denser densest", "density"),
    ("profitable", "profit earning margin"),
    ("best worst", "rank rating score"),
    ("bright brighter brightest faint fainter faintest", "magnitude brightness"),
)  # fmt: skip

ADJECTIVES: dict[str, frozenset[str]] = {
    adjective: frozenset(titles.split()) for adjectives, titles in _SPOKEN_OF for adjective in adjectives.split()
}
"""For each adjective, words (without a plural ending) of the titles of columns that it may speak of."""
