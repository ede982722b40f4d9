"""What generated tables are about: domains of columns with their value pools, in two sets that share no column title.

A column is written `title:kind:details`. Kinds: `who`, `what` (names of things, all different), `cat` (a few repeated
values), `n` (counted: "how many goals"), `m` (measured: "the highest price"; details `low~high` then `most,least`
adjectives that may stand for "highest" and "lowest"), `year`, `date`, `bool`. Numbers with a point are real.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnSpec:
    title: str
    kind: str
    pool: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    adjectives: tuple[str, str] | None = None


@dataclass(frozen=True)
class Domain:
    columns: tuple[ColumnSpec, ...]


def _column(text: str) -> ColumnSpec:
    title, kind, *rest = text.split(":")
    if kind in ("n", "m"):
        span, *adjectives = rest[0].split(" ")
        low, high = (float(x) for x in span.split("~"))
        pair = tuple(adjectives[0].split(",")) if adjectives else None
        return ColumnSpec(title, kind if "." not in span else kind + ".", (), low, high, pair)  # type: ignore[arg-type]
    if kind == "cat":
        return ColumnSpec(title, kind, tuple(rest[0].split(",")) if rest else ())
    return ColumnSpec(title, kind, (rest[0],) if rest else ())


def _domains(text: str) -> tuple[Domain, ...]:
    return tuple(
        Domain(tuple(_column(part.strip()) for part in line.split("|"))) for line in text.strip().splitlines() if line
    )


# A `cat` with no list draws places, people or invented words.
TRAIN = _domains("""
player:who|team:cat|country:cat:@place|position:cat:goalkeeper,defender,midfielder,forward|goals:n:0~40|assists:n:0~25|age:m:17~39 oldest,youngest|height:m:160~205 tallest,shortest|debut:date
employee:who|department:cat:sales,finance,legal,marketing,research,support|office:cat:@place|salary:m:2000~9800|hired:date|manager:cat:@who|vacation days:n:5~35
city:what:@place|state:cat:@place|population:m:12000~4800000 largest,smallest|area:m:12.5~980.5|founded:year|mayor:who|elevation:m:2~2900 highest,lowest
film:what|director:cat:@who|genre:cat:comedy,drama,horror,western,thriller,romance|year:year|budget:m:200000~90000000|box office:m:100000~500000000|runtime:m:71~205 longest,shortest|language:cat:english,french,hindi,spanish,japanese
book:what|author:cat:@who|publisher:cat|pages:n:80~1200|published:year|copies sold:n:500~900000|price:m:4.5~60.5 most expensive,cheapest
product:what|category:cat:toys,garden,kitchen,electronics,clothing,tools|brand:cat|price:m:1.5~900.5 most expensive,cheapest|stock:n:0~500|rating:m:1.0~5.0 best,worst|supplier:cat
flight:what:@code|airline:cat|destination:cat:@place|departure date:date|passengers:n:20~400|delay:m:0~180 longest,shortest|gate:cat:a1,a2,b4,b7,c3,d9
student:who|grade:cat:freshman,sophomore,junior,senior|school:cat|score:m:35~100 highest,lowest|absences:n:0~30|favorite subject:cat:math,physics,history,biology,art,music|enrolled:date
race:what|winner:cat:@who|date:date|laps:n:20~90|distance:m:40.5~600.5 longest,shortest|circuit:cat|pole position:cat:@who
mountain:what|range:cat|height:m:900~8800 highest,lowest|first ascent:year|country:cat:@place|climbers:n:0~400
river:what|length:m:40~6600 longest,shortest|source:cat:@place|mouth:cat:@place|bridges:n:1~60|width:m:5.5~900.5 widest,narrowest
song:what|artist:cat:@who|album:cat|weeks at number one:n:0~16|release date:date|duration:m:95~420 longest,shortest|label:cat
album:what|band:cat|released:year|tracks:n:6~24|sales:n:10000~900000|peak chart position:m:1~100
election:year|candidate:who|party:cat:liberal,labour,green,conservative,reform|votes:n:200~900000|share:m:0.5~65.5|seats:n:0~300|elected:bool
ship:what|builder:cat|launched:date|tonnage:m:300~90000 heaviest,lightest|crew:n:10~900|class:cat:destroyer,frigate,cruiser,tanker,ferry|fate:cat:scrapped,sunk,active,sold
hotel:what|city:cat:@place|rooms:n:12~900|stars:m:1~5|nightly rate:m:40~700 most expensive,cheapest|opened:year|pool:bool
patient:who|doctor:cat:@who|ward:cat:north,south,east,west|admitted:date|weight:m:48.5~120.5 heaviest,lightest|visits:n:1~20|insured:bool
order:what:@code|customer:cat:@who|order date:date|items:n:1~40|total:m:5.5~2500.5 largest,smallest|status:cat:shipped,pending,cancelled,delivered|region:cat:north,south,east,west
car:what|make:cat|fuel:cat:petrol,diesel,electric,hybrid|horsepower:m:60~700|top speed:m:120~380 fastest,slowest|price:m:9000~250000 most expensive,cheapest|model year:year|doors:n:2~5
animal:what|family:cat|habitat:cat:forest,desert,ocean,savanna,tundra|weight:m:0.5~4000.5 heaviest,lightest|lifespan:m:1~150 longest,shortest|endangered:bool
university:what|location:cat:@place|students:n:900~60000|established:year|rank:m:1~500 best,worst|tuition:m:500~58000 most expensive,cheapest|type:cat:public,private
building:what|architect:cat:@who|floors:n:3~160|height:m:20~820 tallest,shortest|completed:year|use:cat:office,residential,hotel,retail|city:cat:@place
rank:m:1~30 best,worst|nation:what:@place|gold:n:0~40|silver:n:0~40|bronze:n:0~40|total:n:0~120
episode:what|series:cat|directed by:cat:@who|written by:cat:@who|original air date:date|viewers:m:0.5~20.5|season:m:1~9
match:what:@code|opponent:cat|venue:cat|attendance:n:200~90000|result:cat:win,loss,draw|date:date|goals scored:n:0~7
astronaut:who|mission:cat|launch date:date|days in space:n:1~400|spacewalks:n:0~10|nationality:cat:@place|selection year:year
restaurant:what|cuisine:cat:italian,thai,mexican,greek,korean,indian|chef:cat:@who|seats:n:10~250|average bill:m:8.5~150.5 most expensive,cheapest|neighborhood:cat|michelin stars:n:0~3
recipe:what|cook:cat:@who|calories:m:80~1500|servings:n:1~12|minutes:m:5~240 longest,shortest|meal:cat:breakfast,lunch,dinner,snack|vegetarian:bool
station:what:@place|line:cat:red,blue,green,circle,central|platforms:n:1~20|daily riders:n:100~90000|opening date:date|zone:cat:1a,2a,3a,2b
game:what|developer:cat|platform:cat:arcade,console,handheld,mobile|units sold:n:1000~9000000|release year:year|score:m:20~99 highest,lowest|multiplayer:bool
tournament:what|champion:cat:@who|runner up:cat:@who|surface:cat:clay,grass,hard,carpet|prize money:m:1000~3000000|sets played:n:2~5|start date:date
school:what|district:cat|principal:who|pupils:n:40~3000|teachers:n:4~200|opened:year|mascot:cat:tigers,eagles,bears,wolves,hawks
planet:what|moons:n:0~80|diameter:m:2000~140000 largest,smallest|orbital period:m:0.5~900.5 longest,shortest|discovered:year|discoverer:cat:@who|rings:bool
stock:what:@code|sector:cat:energy,health,banking,retail,telecom|closing price:m:1.5~900.5|shares traded:n:1000~900000|change:m:-9.5~9.5|exchange:cat
house:what:@code|street:cat|bedrooms:n:1~8|square feet:m:400~6000 largest,smallest|asking price:m:60000~2500000 most expensive,cheapest|built:year|garage:bool
museum:what|city:cat:@place|visitors:n:1000~900000|exhibits:n:10~900|entry fee:m:0~40 most expensive,cheapest|curator:who|focus:cat:art,science,history,nature
disease:what|cases:n:10~90000|deaths:n:0~9000|vaccine:bool|first reported:year|region:cat:@place
dog:what|breed:cat:poodle,beagle,collie,terrier,boxer|owner:cat:@who|age:m:1~17 oldest,youngest|weight:m:2.5~70.5 heaviest,lightest|tricks:n:0~20|birthday:date
company:what|industry:cat:energy,mining,software,retail,banking|headquarters:cat:@place|revenue:m:1000000~900000000|employees:n:10~90000|ceo:who|founded:year
driver:who|constructor:cat|points:n:0~400|wins:n:0~15|podiums:n:0~20|grid:m:1~24|time retired:cat:engine,accident,gearbox,collision
task:what|assignee:cat:@who|due date:date|priority:cat:low,medium,high,urgent|hours:n:1~80|status:cat:open,closed,blocked,review|estimate:m:0.5~40.5
club:what|league:cat|stadium:what|capacity:m:500~99000 largest,smallest|titles:n:0~30|coach:who|points:n:0~99|played:n:10~38
""")

TEST = _domains("""
cyclist:who|squad:cat|homeland:cat:@place|stage victories:n:0~30|years as pro:n:1~20|body mass:m:50.5~90.5 heaviest,lightest|turned pro:year
warehouse:what|town:cat:@place|foreman:who|pallets:n:10~900|surface area:m:200~9000 largest,smallest|goods:cat:paper,steel,cotton,glass,timber|inspection:date|refrigerated:bool
lake:what|county:cat:@place|depth:m:2.5~400.5|volume:m:1~900|islands:n:0~60|shoreline:m:1.5~400.5 longest,shortest|protected:bool
concert:what:@code|performer:cat:@who|hall:cat|tickets:n:50~9000|ticket price:m:10~200 most expensive,cheapest|performance date:date|encore:bool
painting:what|painter:cat:@who|medium:cat:oil,watercolor,acrylic,fresco|gallery:cat|appraisal:m:1000~9000000|painted:year|frames:n:1~9
invoice:what:@code|client:cat:@who|amount due:m:10.5~9000.5 largest,smallest|issued:date|payment method:cat:cash,card,transfer,cheque|reminders:n:0~6
village:what:@place|province:cat:@place|inhabitants:m:50~9000|households:n:10~3000|altitude:m:1~2500 highest,lowest|churches:n:0~9|first mention:year
rower:who|boat:cat|medals:n:0~20|personal best:m:300.5~600.5 fastest,slowest|birthplace:cat:@place|date of birth:date|left handed:bool
volcano:what|island:cat:@place|summit:m:200~6000 highest,lowest|eruptions:n:1~90|last eruption:year|rock:cat:basalt,andesite,rhyolite,dacite|monitored:bool
novel:what|novelist:cat:@who|century:cat:early,middle,modern|chapters:n:5~90|word count:m:20000~400000 longest,shortest|translations:n:0~60|first edition:year
locomotive:what:@code|railway:cat|axles:n:4~12|power:m:200~9000|delivered:date|livery:cat:crimson,black,olive,maroon|preserved:bool
tower:what|engineer:cat:@who|steps:n:50~2000|altitude above ground:m:20~700 tallest,shortest|inaugurated:year|purpose:cat:broadcast,water,clock,bell|borough:cat
""")
