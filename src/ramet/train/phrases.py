"""How questions are put into words: for each intent, phrasings for training and others that only tests use.

`(a|b|)` is a choice. Slots: `{e}` the column that names the rows, `{x}` a numeric column, `{k}` a text column, `{a}` any
asked column (`s` behind a slot makes it plural), `{f}` filters (may be empty), `{v}` and `{w}` values, `{n}` a number,
`{most}` and `{least}` an adjective of the column. `who` templates are for rows that are people.
"""

from __future__ import annotations

import random
import re

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")

# The filters: a column equals a value, and so on; each starts with a space or follows the noun directly.
FILTERS: dict[str, tuple[list[str], list[str]]] = {
    "equal": (
        ["with {k} {v}", "with {v} as (the|their|its) {k}", "whose {k} is {v}", "where (the |){k} is {v}", "where {k} (=|equals) {v}",
         "that (have|has) {v} as {k}", "for {v}", "from {v}", "in {v}", "of {v}", "for the {v} {k}", "from the {v} {k}", "in the {k} {v}",
         "that (is|are|was|were) {v}", "when the {k} (is|was) {v}", "by {v}", "having {k} {v}", "under {v}", "(marked|listed) as {v}",
         "belonging to {v}", "at {v}", "with {v}"],
        ["whose {k} was {v}", "having {v} as the {k}", "for which the {k} is {v}", "with a {k} of {v}", "that were from {v}",
         "listed under {v}", "that had {v} as {k}", "where the {k} was {v}"],
    ),
    "not": (
        ["not from {v}", "whose {k} is not {v}", "where (the |){k} is not {v}", "other than {v}", "with a {k} other than {v}", "that (are|were) not {v}",
         "except (for |){v}", "not in {v}", "with {k} not {v}", "without {v} as {k}", "excluding {v}", "besides {v}"],
        ["whose {k} is other than {v}", "that do not have {v} as {k}", "where {k} was not {v}", "with any {k} except {v}"],
    ),
    "above": (
        ["with more than {n} {x}", "with over {n} {x}", "whose {x} is (more|greater|higher|larger) than {n}", "where (the |){x} is (above|over) {n}",
         "with (a |){x} (above|over|greater than|higher than|exceeding) {n}", "that (have|has|had) more than {n} {x}", "with {x} > {n}", "having over {n} {x}",
         "where {x} exceeds {n}", "(above|over) {n} {x}"],
        ["that had over {n} {x}", "whose {x} exceeds {n}", "having more than {n} {x}", "where the {x} was greater than {n}", "with {x} that is higher than {n}"],
    ),
    "below": (
        ["with (less|fewer) than {n} {x}", "with under {n} {x}", "whose {x} is (less|lower|smaller) than {n}", "where (the |){x} is (below|under) {n}",
         "with (a |){x} (below|under|less than|lower than) {n}", "that (have|has|had) (less|fewer) than {n} {x}", "with {x} < {n}", "having under {n} {x}", "(below|under) {n} {x}"],
        ["that had under {n} {x}", "whose {x} was below {n}", "having fewer than {n} {x}", "where the {x} was less than {n}", "with {x} that is lower than {n}"],
    ),
    "least": (
        ["with at least {n} {x}", "whose {x} is at least {n}", "with {n} or more {x}", "with {x} of at least {n}", "that (have|has) at least {n} {x}",
         "where {x} is {n} or (more|higher|above)", "with no less than {n} {x}", "with a minimum {x} of {n}"],
        ["having {n} or more {x}", "where {x} is at least {n}", "that had at least {n} {x}", "with no fewer than {n} {x}"],
    ),
    "atmost": (
        ["with at most {n} {x}", "whose {x} is at most {n}", "with {n} or (less|fewer) {x}", "with {x} of at most {n}", "where {x} is {n} or (less|lower|below)",
         "with no more than {n} {x}", "with up to {n} {x}", "with a maximum {x} of {n}"],
        ["having {n} or fewer {x}", "where {x} is at most {n}", "that had at most {n} {x}", "having up to {n} {x}"],
    ),
    "exact": (
        ["with (exactly |){n} {x}", "with {x} {n}", "with (a |){x} of {n}", "whose {x} is {n}", "that (have|has|had) (exactly |){n} {x}", "where (the |){x} is {n}"],
        ["having exactly {n} {x}", "whose {x} was {n}", "where {x} equals {n}", "with {x} equal to {n}"],
    ),
    "between": (
        ["with {x} between {n} and {m}", "whose {x} is between {n} and {m}", "with {x} from {n} to {m}", "with between {n} and {m} {x}",
         "where {x} (is|was) (between|from) {n} (and|to) {m}", "with {n} to {m} {x}"],
        ["having {x} between {n} and {m}", "whose {x} was from {n} to {m}", "where the {x} is anywhere from {n} to {m}"],
    ),
    "year": (
        ["in {y}", "from {y}", "where (the |){d} is {y}", "with {d} {y}", "{d} in {y}", "whose {d} (is|was) {y}", "for {y}", "during {y}", "for the year {y}", "with (a |){d} in {y}"],
        ["where {d} was in {y}", "whose {d} is in {y}", "of the year {y}", "with {d} of {y}"],
    ),
    "after": (
        ["after {y}", "since {y}", "later than {y}", "{d} after {y}", "with (a |){d} after {y}", "where (the |){d} is (after|later than) {y}", "whose {d} is after {y}", "past {y}"],
        ["with {d} later than {y}", "whose {d} was after {y}", "where the {d} comes after {y}", "that came after {y}"],
    ),
    "before": (
        ["before {y}", "prior to {y}", "earlier than {y}", "{d} before {y}", "with (a |){d} before {y}", "where (the |){d} is (before|earlier than) {y}", "whose {d} is before {y}"],
        ["with {d} earlier than {y}", "whose {d} was before {y}", "where the {d} comes before {y}", "that came before {y}"],
    ),
    "years": (
        ["between {y} and {z}", "from {y} to {z}", "with {d} between {y} and {z}", "{d} between {y} and {z}", "where {d} is between {y} and {z}", "from {y} through {z}"],
        ["whose {d} is between {y} and {z}", "with {d} from {y} to {z}", "during {y} to {z}"],
    ),
    "yes": (
        ["that (are|is|were) {b}", "where {b} is yes", "with {b} yes", "with {b}", "whose {b} is yes", "that have {b}", "marked as {b}"],
        ["with {b} set to yes", "where {b} was yes", "that were marked {b}"],
    ),
    "no": (
        ["that (are|is|were) not {b}", "where {b} is no", "with {b} no", "without {b}", "whose {b} is no", "with no {b}", "not marked as {b}"],
        ["with {b} set to no", "where {b} was no", "that were not marked {b}"],
    ),
    "missing": (
        ["(with no|without a) {a} (listed|given|recorded)", "where (the |){a} is (missing|empty|not listed)", "with a missing {a}", "that have no {a} (listed|recorded)"],
        ["whose {a} is missing", "that are missing a {a}", "with no recorded {a}"],
    ),
    "contains": (
        ["whose {k} contains {v}", "with {v} in the {k}", "where (the |){k} (contains|includes) {v}", "with {k} containing {v}", "whose {k} includes {v}"],
        ["with {k} that includes {v}", "having {v} in the {k}", "where the {k} has {v} in it"],
    ),
}  # fmt: skip

QUESTIONS: dict[str, tuple[list[str], list[str]]] = {
    "lookup": (
        ["(what|which) (is|was) the {a} (of|for) {v}", "what is {v} {a}", "(what|which) {a} (does|did) {v} (have|play for|belong to|get|use)",
         "(tell me|give me|show me|find) the {a} (of|for) {v}", "{a} of {v}", "{v} {a}", "what {a} is {v} (in|from|with|by|)", "for {v} what is the {a}",
         "what is listed as the {a} (of|for) {v}", "which {a} goes with {v}", "(i want|i need) the {a} of {v}", "the {a} for {v} (is what|)",
         "do you know the {a} of {v}", "what {a} was {v}", "what {a} did {v} have in the table", "what (is|was) the {a} when (the |){e} (is|was) {v}",
         "what was {v} 's {a}", "which {a} is listed for {v}"],
        ["what {a} does the table list for {v}", "(can you |)show the {a} that {v} has", "i want to know the {a} of {v}", "what is the {a} that goes with {v}",
         "for {v} give me the {a}", "which {a} was {v} from", "when the {e} is {v} what is the {a}"],
    ),
    "lookup_count": (
        ["how many {x} (does|did) {v} (have|get|score|win|take|make|record|earn)", "how many {x} (are|were) there (for|in|at|by) {v}", "how many {x} for {v}", "number of {x} (of|for) {v}",
         "(what|tell me) (is |was |)the number of {x} (of|for|in|by) {v}", "{v} had how many {x}", "how many {x} (are|were) (in|at|on|listed for) {v}", "how many {x} {v}", "how much {x} does {v} have",
         "what is the amount of {x} for {v}"],
        ["how many {x} did {v} end up with", "what number of {x} does {v} have", "{v} has how many {x}", "how many {x} are recorded for {v}", "give me the number of {x} that {v} had"],
    ),
    "lookup_number": (
        ["how (much|high|large|big|long) is the {x} of {v}", "what is the {x} of {v}", "what (was|is) {v} {x}", "how much is {v} {x}", "what {x} (does|did) {v} have", "{x} of {v}", "how {most} is {v}", "how {most} was {v}"],
        ["what does {v} have as {x}", "how large was the {x} of {v}", "tell me what the {x} of {v} is", "how much {x} is listed for {v}"],
    ),
    "lookup_filtered": (
        ["(what|which) {e} {f}", "which {e} (is|was|are|were|has|have) (the one |){f}", "who is the {e} {f}", "(list|name|show|find|give me) (all |the |every |all the |){es} {f}", "what are the {es} {f}", "show me {es} {f}",
         "which {es} (are|were) there {f}", "(what|which) (is|was) the {e} {f}", "{es} {f}", "name (a|an|one) {e} {f}", "(the|all) {es} {f}", "which {es} are {f}", "tell me which {es} are {f}",
         "what (is|are) the (name|names) of the {es} {f}"],
        ["tell me the {es} {f}", "i want to see all {es} {f}", "which are the {es} {f}", "can you list the {es} {f}", "what {es} does the table have {f}", "name every {e} {f}"],
    ),
    "lookup_column": (
        ["(what|which) {a} (does|did) the {e} {f} have", "(what|which) (is|was) the {a} of the {e} {f}", "(list|show|give me) the {as} of (all |)(the |){es} {f}", "what are the {as} of the {es} {f}", "what is the {a} for the {e} {f}",
         "what {a} is listed for the {e} {f}", "find the {a} of {es} {f}"],
        ["tell me the {a} of the {e} {f}", "for the {es} {f} what is the {a}", "show the {a} for every {e} {f}", "what {as} are listed for the {es} {f}"],
    ),
    "count": (
        ["how many {es} (are|were) there {f}", "how many {es} {f}", "(what is |tell me |give me |)the (total |)number of {es} {f}", "count (the |all |){es} {f}", "how many {es} (are|were) {f}", "how many {es} (does the table have|are listed|are in the table) {f}",
         "how many (rows|entries) (are|have|are there) {f}", "what is the count of {es} {f}", "number of {es} {f}", "how many (total |different |){es} do we have {f}", "in total how many {es} {f}",
         "how many times (is there|do we see) (a |an |){e} {f}", "how many of the {es} (are|have|were) {f}", "can you count the {es} {f}", "how many {es} have we got {f}"],
        ["tell me how many {es} there are {f}", "what is the total count of {es} {f}", "how many {es} can you find {f}", "i want the number of {es} {f}", "count how many {es} are listed {f}", "how many {es} does the list have {f}"],
    ),
    "count_value": (
        ["how many {es} (are|were) from {v}", "how many times (is|was|does|did) {v} (listed|mentioned|appear|appear in the table|show up|)", "how many {es} does {v} have", "how often (is|does) {v} (listed|appear|occur)", "how many (rows|entries) (are for|mention|have) {v}",
         "{v} appears how many times", "how many {es} (are|were) {v}", "the number of {v} {es}", "how many {v} {es} (are there|)", "count of {v} {es}", "how many {es} (did|does) {v} (have|make|win|get)"],
        ["how many times can {v} be found", "how many {es} are there for {v}", "what is the number of times {v} is listed", "how often do we see {v}"],
    ),
    "distinct": (
        ["how many (different|distinct|unique|separate|various) {ks} (are there|are listed|appear|were there|) {f}", "(what is |)the number of (different|distinct|unique) {ks} {f}", "count (the |)(different|distinct|unique) {ks} {f}", "how many {ks} are (different|unique|distinct) {f}",
         "how many kinds of {k} {f}", "how many unique {ks} do we have {f}"],
        ["tell me how many unique {ks} there are {f}", "how many distinct {ks} does the table list {f}", "what number of different {ks} is there {f}", "how many different kinds of {ks} are listed {f}"],
    ),
    "list_distinct": (
        ["(which|what) (different |distinct |unique |){ks} (are there|are listed|appear) {f}", "(list|show|name|give me) (all |)(the |)(different|distinct|unique) {ks} {f}", "what are (all |)the (different |distinct |unique |){ks} {f}", "list each {k} once {f}", "(all|the) (distinct|unique|different) {ks} {f}"],
        ["tell me the unique {ks} {f}", "can you list the distinct {ks} {f}", "which unique {ks} does the table have {f}"],
    ),
    "sum": (
        ["what is the (total|sum of|sum of the|total number of|total amount of|combined|overall) {x} (of|for|across|over) (the |all |all the |){es} {f}", "how many {x} (in total|in all|altogether|overall|are there in total|were there in total) {f}",
         "total {x} {f}", "(sum|add up|add) (the |all |){x} {f}", "how many total {x} {f}", "what (is|was) the total {x} {f}", "what do all {x} {f} add up to", "how many {x} do (the |all |){es} {f} have (in total|together|combined)",
         "the sum of {x} {f}", "the combined {x} of (all |){es} {f}", "how much {x} (in total|altogether) {f}", "what is the total of the {x} column {f}", "what is the sum of {x} {f}", "what is the total number of {x} {f}", "how many {x} were there (in total|altogether) {f}"],
        ["tell me the total {x} of the {es} {f}", "what is the {x} total {f}", "altogether how many {x} {f}", "if you add up the {x} {f} what is the total", "what is the overall sum of {x} {f}", "how many {x} have the {es} {f} altogether"],
    ),
    "avg": (
        ["what is the (average|mean) {x} (of|for|across) (the |all |){es} {f}", "(average|mean) {x} {f}", "what (is|was) the (average|mean) {x} {f}", "on average how (many|much) {x} (do |does |did |)(the |){es} {f} have", "how (many|much) {x} on average {f}",
         "what is the average of (the |){x} {f}", "(calculate|compute|find|give me) the (average|mean) {x} {f}", "the average number of {x} {f}", "what is the average number of {x} {f}"],
        ["tell me the average {x} of the {es} {f}", "what is the mean of the {x} {f}", "on average what is the {x} {f}", "how many {x} does a {e} have on average {f}", "what {x} do the {es} have on average {f}"],
    ),
    "max": (
        ["what is the (highest|largest|maximum|greatest|biggest|top|max) {x} {f}", "(highest|maximum|max|largest) {x} {f}", "what is the (highest|largest|maximum) {x} (of|among|for) (the |all |any |){es} {f}", "what is the most {x} (any|a|an|one) {e} {f} (has|had|)", "how high is the highest {x} {f}",
         "(the |)(largest|highest|greatest) {x} {f}", "what (was|is) the (highest|largest) number of {x} {f}", "what is the max of {x} {f}", "find the (maximum|highest) {x} {f}"],
        ["tell me the maximum {x} {f}", "how large is the largest {x} {f}", "what is the top {x} for any {e} {f}", "give me the highest {x} of all {es} {f}", "the greatest number of {x} {f} is what"],
    ),
    "min": (
        ["what is the (lowest|smallest|minimum|least|min) {x} {f}", "(lowest|minimum|min|smallest) {x} {f}", "what is the (lowest|smallest|minimum) {x} (of|among|for) (the |all |any |){es} {f}", "what is the (least|fewest) {x} (any|a|an|one) {e} {f} (has|had|)", "how low is the lowest {x} {f}",
         "(the |)(smallest|lowest|least) {x} {f}", "what (was|is) the (lowest|smallest) number of {x} {f}", "what is the min of {x} {f}", "find the (minimum|lowest) {x} {f}"],
        ["tell me the minimum {x} {f}", "how small is the smallest {x} {f}", "give me the lowest {x} of all {es} {f}", "the least number of {x} {f} is what"],
    ),
    "argmax": (
        ["(which|what) {e} {f} (has|had|have|got|scored|with) the (most|highest|largest|greatest|biggest|maximum|highest number of|largest number of|most number of) {x}", "(which|what) {e} (has|had) the (most|highest|largest|greatest|highest number of) {x} {f}",
         "(name|find|show|tell me|give me) the {e} {f} with the (most|highest|largest|greatest|biggest|maximum) {x}", "{e} with the (most|highest|largest|max) {x} {f}", "the (most|highest|largest) {x} (belongs to|was by|is held by|came from) (which|what) {e} {f}",
         "(which|what) (is|was) the {e} with the (most|highest|largest) {x} {f}", "(which|what) {e} {f} (tops|leads) (in |the |by |){x}", "which of the {es} {f} has the (most|highest|greatest) {x}", "what {e} {f} (is|was|ranks) (first|highest|top) (in|by|for) {x}",
         "the {e} {f} with (the |)most {x} is", "which {e} {f} has more {x} than any other", "top {e} by {x} {f}"],
        ["tell me which {e} has the most {x} {f}", "of all {es} {f} which has the highest {x}", "what is the name of the {e} with the greatest {x} {f}", "which {e} comes first by {x} {f}", "who or what has the largest {x} {f}", "the highest number of {x} belongs to which {e} {f}"],
    ),
    "argmax_who": (
        ["who (has|had|got|scored|made|is the {e} with|was the {e} with) the (most|highest|largest|greatest|highest number of) {x} {f}", "who {f} (has|had) the (most|highest) {x}", "who (leads|tops|is first) (in|the|by) {x} {f}", "who (is|was) the top {e} (by|in) {x} {f}"],
        ["who among the {es} {f} has the most {x}", "who ended up with the highest {x} {f}", "who ranks first by {x} {f}"],
    ),
    "argmin": (
        ["(which|what) {e} {f} (has|had|have|got|scored|with) the (least|lowest|smallest|fewest|minimum|lowest number of|least number of|least amount of) {x}", "(which|what) {e} (has|had) the (least|lowest|smallest|fewest|lowest number of) {x} {f}",
         "(name|find|show|tell me|give me) the {e} {f} with the (least|lowest|smallest|fewest|minimum) {x}", "{e} with the (least|lowest|fewest|min) {x} {f}", "the (least|lowest|fewest) {x} (belongs to|was by|is held by|came from) (which|what) {e} {f}",
         "(which|what) (is|was) the {e} with the (least|lowest|smallest|fewest) {x} {f}", "which of the {es} {f} has the (least|lowest|fewest) {x}", "what {e} {f} (is|was|ranks) (last|lowest|bottom) (in|by|for) {x}", "which {e} {f} has (less|fewer) {x} than any other", "bottom {e} by {x} {f}"],
        ["tell me which {e} has the fewest {x} {f}", "of all {es} {f} which has the lowest {x}", "what is the name of the {e} with the smallest {x} {f}", "which {e} comes last by {x} {f}", "the lowest number of {x} belongs to which {e} {f}"],
    ),
    "argmin_who": (
        ["who (has|had|got|scored|made|is the {e} with|was the {e} with) the (least|lowest|smallest|fewest|lowest number of) {x} {f}", "who {f} (has|had) the (least|lowest|fewest) {x}", "who (is|was|came) last (in|by) {x} {f}"],
        ["who among the {es} {f} has the least {x}", "who ended up with the fewest {x} {f}", "who ranks last by {x} {f}"],
    ),
    "most_adjective": (
        ["(which|what) (is|was) the {most} {e} {f}", "(which|what) {e} {f} (is|was) (the |){most}", "(name|find|show me|tell me|give me) the {most} {e} {f}", "{most} {e} {f}", "(which|what) {e} is the {most} {f}", "what is the name of the {most} {e} {f}", "who is the {most} {e} {f}", "of the {es} {f} which is {most}"],
        ["tell me which {e} is {most} {f}", "which one is the {most} {e} {f}", "of all the {es} {f} which was the {most}", "i want the {most} {e} {f}"],
    ),
    "ask_of_argmax": (
        ["(what|which) (is|was) the {a} of the {e} (with|that has|that had) the (most|highest|largest|greatest) {x} {f}", "(what|which) {a} (has|had) the (most|highest|largest|greatest|highest number of) {x} {f}", "(in |)(what|which) {a} (was|were|is) the {x} (the |)(highest|largest|greatest|most) {f}",
         "(give me|find) the {a} with the (most|highest|largest) {x} {f}", "what is the {a} of the {e} with (the |)most {x} {f}", "the {a} with the (highest|most|max) {x} {f}", "which {a} saw the (most|highest) {x} {f}"],
        ["tell me the {a} of the {e} that has the most {x} {f}", "which {a} goes with the highest {x} {f}", "what was the {a} when the {x} was the highest {f}", "when {x} is largest what is the {a} {f}"],
    ),
    "ask_of_argmin": (
        ["(what|which) (is|was) the {a} of the {e} (with|that has|that had) the (least|lowest|smallest|fewest) {x} {f}", "(what|which) {a} (has|had) the (least|lowest|smallest|fewest|lowest number of) {x} {f}", "(in |)(what|which) {a} (was|were|is) the {x} (the |)(lowest|smallest|least) {f}",
         "(give me|find) the {a} with the (least|lowest|smallest) {x} {f}", "the {a} with the (lowest|fewest|min) {x} {f}", "which {a} saw the (least|fewest|lowest) {x} {f}"],
        ["tell me the {a} of the {e} that has the fewest {x} {f}", "which {a} goes with the lowest {x} {f}", "what was the {a} when the {x} was the lowest {f}", "when {x} is smallest what is the {a} {f}"],
    ),
    "latest": (
        ["(which|what) (is|was) the (latest|most recent|last|newest) {e} {f} (by|according to|in) {d}", "which {e} {f} (has|had) the (latest|most recent|last) {d}", "the {e} with the (latest|most recent|newest) {d} {f}", "(name|find|show) the {e} {f} with the (latest|most recent) {d}", "which {e} (was|is) {d} (last|most recently|latest) {f}"],
        ["tell me which {e} has the most recent {d} {f}", "of all {es} {f} which has the latest {d}", "what {e} comes last by {d} {f}"],
    ),
    "earliest": (
        ["(which|what) (is|was) the (earliest|first|oldest) {e} {f} (by|according to|in) {d}", "which {e} {f} (has|had) the (earliest|first|oldest) {d}", "the {e} with the (earliest|first|oldest) {d} {f}", "(name|find|show) the {e} {f} with the (earliest|first) {d}", "which {e} (was|is) {d} (first|earliest) {f}"],
        ["tell me which {e} has the earliest {d} {f}", "of all {es} {f} which has the first {d}", "what {e} comes first by {d} {f}"],
    ),
    "latest_value": (
        ["what (is|was) the (latest|most recent|last|newest) {d} {f}", "(latest|most recent|last) {d} {f}", "when (is|was) the (latest|last|most recent) {d} {f}", "find the (latest|most recent) {d} {f}"],
        ["tell me the most recent {d} {f}", "give me the last {d} {f}", "which {d} is the latest {f}"],
    ),
    "earliest_value": (
        ["what (is|was) the (earliest|first|oldest) {d} {f}", "(earliest|first|oldest) {d} {f}", "when (is|was) the (earliest|first) {d} {f}", "find the (earliest|first) {d} {f}"],
        ["tell me the earliest {d} {f}", "give me the first {d} {f}", "which {d} is the earliest {f}"],
    ),
    "when": (
        ["when (was|is|did) {v}", "when (was|is) (the |){d} of {v}", "(on |)(what|which) (date|day) (was|is|did) {v} {d}", "when was {v} {d}", "when did {v} {d}", "what (year|date) (was|is) {v} {d}", "in (what|which) year was {v} {d}"],
        ["what is the {d} for {v} and when", "tell me when {v} was {d}", "for {v} when is the {d}"],
    ),
    "second": (
        ["(which|what) {e} {f} (has|had) the (second|2nd|second most|second highest) {x}", "(which|what) {e} has the second (most|highest|largest|greatest) {x} {f}", "the {e} with the second (most|highest|largest) {x} {f}", "which {e} (is|ranks|comes|came) second (in|by) {x} {f}"],
        ["tell me which {e} has the second highest {x} {f}", "which {e} was second by {x} {f}", "of all {es} {f} which has the second most {x}"],
    ),
    "third": (
        ["(which|what) {e} has the third (most|highest|largest|greatest) {x} {f}", "the {e} with the third (most|highest|largest) {x} {f}", "which {e} (is|ranks|comes|came) third (in|by) {x} {f}"],
        ["tell me which {e} has the third highest {x} {f}", "which {e} was third by {x} {f}", "of all {es} {f} which has the third most {x}"],
    ),
    "top": (
        ["(what|which|who) (are|were) the top {n} {es} (by|in|in terms of) {x} {f}", "top {n} {es} (by|in|for) {x} {f}", "(list|show|name|give me|find) the {n} {es} {f} with the (most|highest|largest|greatest) {x}", "(list|show|give me) the top {n} {es} by {x} {f}", "which {n} {es} have the (most|highest|largest) {x} {f}", "the {n} {es} with the (most|highest|largest) {x} {f}"],
        ["tell me the top {n} {es} by {x} {f}", "what {n} {es} had the most {x} {f}", "by {x} which are the top {n} {es} {f}", "name the first {n} {es} by highest {x} {f}"],
    ),
    "bottom": (
        ["(what|which|who) (are|were) the bottom {n} {es} (by|in|in terms of) {x} {f}", "bottom {n} {es} (by|in|for) {x} {f}", "(list|show|name|give me|find) the {n} {es} {f} with the (least|lowest|smallest|fewest) {x}", "which {n} {es} have the (least|lowest|fewest|smallest) {x} {f}", "the {n} {es} with the (least|lowest|smallest) {x} {f}"],
        ["tell me the bottom {n} {es} by {x} {f}", "what {n} {es} had the fewest {x} {f}", "by {x} which are the bottom {n} {es} {f}"],
    ),
    "order": (
        ["(list|show|sort|order|rank|give me) (the |all |all the |){es} {f} (by|ordered by|sorted by|in order of|ranked by) {x} (descending|from highest to lowest|from most to least|highest first|in descending order)", "{es} {f} (by|sorted by) {x} (descending|highest first|from highest to lowest)", "rank (the |){es} {f} by {x}"],
        ["show me {es} {f} from highest to lowest {x}", "sort the {es} by {x} in descending order {f}", "list the {es} with the highest {x} first {f}"],
    ),
    "order_up": (
        ["(list|show|sort|order|give me) (the |all |all the |){es} {f} (by|ordered by|sorted by|in order of) {x} (ascending|from lowest to highest|from least to most|lowest first|in ascending order)", "{es} {f} (by|sorted by) {x} (ascending|lowest first|from lowest to highest)"],
        ["show me {es} {f} from lowest to highest {x}", "sort the {es} by {x} in ascending order {f}", "list the {es} with the lowest {x} first {f}"],
    ),
    "group_count_max": (
        ["(which|what) {k} (has|had|have|appears|is listed|occurs|shows up|was listed) (the most|most|most often|most frequently|the most times|the most {es}) {f}", "(which|what) {k} (has|had) the (most|highest number of|greatest number of|largest number of) {es} {f}", "(which|what) (is|was) the most (common|frequent|popular|listed) {k} {f}", "most (common|frequent) {k} {f}", "the {k} with the (most|largest number of) {es} {f}", "which {k} has the most (rows|entries) {f}",
         "the most {es} are from (which|what) {k} {f}"],
        ["tell me the most common {k} {f}", "which {k} do we see most often {f}", "of all {ks} which has the most {es} {f}", "what {k} comes up most often {f}"],
    ),
    "group_count_min": (
        ["(which|what) {k} (has|had|appears|is listed|occurs) (the least|least|least often|the fewest times|the fewest {es}) {f}", "(which|what) {k} (has|had) the (least|fewest|smallest number of|lowest number of) {es} {f}", "(which|what) (is|was) the least (common|frequent|popular) {k} {f}", "the {k} with the fewest {es} {f}"],
        ["tell me the least common {k} {f}", "which {k} do we see least often {f}", "of all {ks} which has the fewest {es} {f}"],
    ),
    "group_sum_max": (
        ["(which|what) {k} (has|had) the (most|highest|largest|greatest) (total|combined|overall|total number of) {x} {f}", "which {k} has the most {x} (in total|overall|altogether|combined) {f}", "the {k} with the (highest|largest|most|greatest) total {x} {f}", "(in|for) (which|what) {k} is the (total|sum of|combined) {x} (highest|largest|greatest) {f}"],
        ["tell me which {k} has the highest total {x} {f}", "of all {ks} which has the most {x} in total {f}", "which {k} comes first by total {x} {f}"],
    ),
    "group_avg_max": (
        ["(which|what) {k} (has|had) the (highest|largest|greatest|best) (average|mean) {x} {f}", "the {k} with the (highest|largest|greatest) (average|mean) {x} {f}", "(in|for) (which|what) {k} is the (average|mean) {x} (highest|largest|greatest) {f}", "which {k} has the highest {x} on average {f}"],
        ["tell me which {k} has the highest average {x} {f}", "of all {ks} which has the largest {x} on average {f}", "which {k} comes first by mean {x} {f}"],
    ),
    "group_avg_min": (
        ["(which|what) {k} (has|had) the (lowest|smallest|least) (average|mean) {x} {f}", "the {k} with the (lowest|smallest) (average|mean) {x} {f}", "which {k} has the lowest {x} on average {f}"],
        ["tell me which {k} has the lowest average {x} {f}", "of all {ks} which has the smallest {x} on average {f}"],
    ),
    "group_count": (
        ["how many {es} (are there |)(for|per|in|by) each {k} {f}", "(number|count) of {es} (per|for each|by|for every) {k} {f}", "count (the |){es} (by|per|for each|grouped by) {k} {f}", "how many {es} does each {k} have {f}", "for (each|every) {k} how many {es} (are there|) {f}"],
        ["tell me how many {es} each {k} has {f}", "per {k} how many {es} are there {f}", "list each {k} and the number of {es} {f}"],
    ),
    "group_sum": (
        ["(what is |)(the |)(total|sum of|combined) {x} (for|per|of|by) each {k} {f}", "total {x} (per|by) {k} {f}", "(add up|sum) (the |){x} (by|per|for each|grouped by) {k} {f}", "how many {x} does each {k} have (in total|altogether|) {f}", "for (each|every) {k} what is the total {x} {f}"],
        ["tell me the total {x} of each {k} {f}", "per {k} what is the sum of {x} {f}", "list each {k} and the total {x} {f}"],
    ),
    "group_avg": (
        ["(what is |)(the |)(average|mean) {x} (for|per|of|by) each {k} {f}", "(average|mean) {x} (per|by) {k} {f}", "for (each|every) {k} what is the (average|mean) {x} {f}", "(average|mean) {x} grouped by {k} {f}"],
        ["tell me the average {x} of each {k} {f}", "per {k} what is the mean {x} {f}", "list each {k} and the average {x} {f}"],
    ),
    "group_max": (
        ["(what is |)(the |)(highest|maximum|largest) {x} (for|per|of|by|in) each {k} {f}", "(maximum|max|highest) {x} (per|by) {k} {f}", "for (each|every) {k} what is the (highest|maximum) {x} {f}"],
        ["tell me the highest {x} of each {k} {f}", "per {k} what is the maximum {x} {f}"],
    ),
    "having": (
        ["(which|what) {ks} (have|has|had|appear|are listed) more than {n} (times|{es}|rows)", "(which|what) {ks} (have|had) over {n} {es}", "(list|name|find) the {ks} (with|that have) more than {n} {es}", "which {k} appears more than {n} times", "{ks} with more than {n} {es}"],
        ["tell me the {ks} with over {n} {es}", "which {ks} are there more than {n} times", "name every {k} that has more than {n} {es}"],
    ),
    "having_count": (
        ["how many {ks} (have|had|appear|are listed) more than {n} (times|{es})", "how many {ks} (have|had) over {n} {es}", "count the {ks} (with|that have) more than {n} {es}"],
        ["tell me how many {ks} have over {n} {es}", "the number of {ks} with more than {n} {es}"],
    ),
    "difference": (
        ["what is the difference (in|of) {x} between {v} and {w}", "(what is |)the {x} difference between {v} and {w}", "how (many|much) more {x} (does|did) {v} have than {w}", "how many more {x} (were|are) there for {v} than {w}", "difference between {v} and {w} in {x}", "how much (larger|higher|bigger|more) is the {x} of {v} (than|compared to) (that of |){w}", "by how much does the {x} of {v} (exceed|differ from) (that of |){w}",
         "what is the difference between the {x} of {v} and {w}", "how many more {x} {v} had (over|than) {w}"],
        ["tell me the difference between {v} and {w} in {x}", "by how many {x} do {v} and {w} differ", "compared to {w} how many more {x} does {v} have", "what is the {x} of {v} minus the {x} of {w}"],
    ),
    "sum_two": (
        ["(what is |)the (total|combined|sum of) {x} (of|for) {v} and {w}", "how many {x} (do|did) {v} and {w} have (together|combined|in total|altogether)", "what is the {x} of {v} and {w} (together|combined)", "{v} and {w} had how many {x} (combined|together|in total)"],
        ["tell me the combined {x} of {v} and {w}", "together how many {x} do {v} and {w} have", "add the {x} of {v} and {w}"],
    ),
    "more_of_two": (
        ["(which|who|what) (has|had) (more|higher|a higher|a larger|the larger|greater) {x} {v} or {w}", "(which|what) {e} (has|had) (more|the higher|a higher|the most) {x} {v} or {w}", "(does|did) {v} or {w} have (more|higher|a higher) {x}", "between {v} and {w} (which|who) (has|had) (more|the higher|a higher) {x}", "{v} or {w} (which|who) has more {x}", "is the {x} (higher|larger|greater) for {v} or {w}", "who had more {x} {v} or {w}"],
        ["tell me which has more {x} {v} or {w}", "of {v} and {w} which has the higher {x}", "which of {v} and {w} had greater {x}", "compare {v} and {w} which {e} has more {x}"],
    ),
    "less_of_two": (
        ["(which|who|what) (has|had) (less|fewer|lower|a lower|a smaller) {x} {v} or {w}", "(which|what) {e} (has|had) (less|fewer|the lower|a lower|the least) {x} {v} or {w}", "(does|did) {v} or {w} have (less|fewer|lower|a lower) {x}", "between {v} and {w} (which|who) (has|had) (less|fewer|the lower) {x}", "is the {x} (lower|smaller) for {v} or {w}"],
        ["tell me which has fewer {x} {v} or {w}", "of {v} and {w} which has the lower {x}", "which of {v} and {w} had smaller {x}"],
    ),
    "is_more": (
        ["(does|did) {v} have (more|a higher|a larger|higher|greater) {x} than {w}", "is the {x} of {v} (higher|larger|greater|more|bigger) than (that of |the {x} of |){w}", "(has|had) {v} more {x} than {w}", "is {v} {x} (higher|greater) than {w}", "did {v} (score|get|have|make) more {x} than {w}"],
        ["tell me if {v} has more {x} than {w}", "were the {x} of {v} higher than those of {w}", "does {v} exceed {w} in {x}"],
    ),
    "is_less": (
        ["(does|did) {v} have (less|fewer|a lower|a smaller|lower) {x} than {w}", "is the {x} of {v} (lower|smaller|less) than (that of |the {x} of |){w}", "(has|had) {v} (less|fewer) {x} than {w}", "is {v} {x} (lower|less) than {w}"],
        ["tell me if {v} has fewer {x} than {w}", "were the {x} of {v} lower than those of {w}"],
    ),
    "exists": (
        ["(is|was|are|were) there (a|an|any) {e} {f}", "(is|are) there any {es} {f}", "do we have (any |a |){es} {f}", "does the table have (a|an|any) {e} {f}", "did any {e} {f} appear", "is (any|some) {e} {f} listed"],
        ["tell me if there is a {e} {f}", "can you find any {e} {f}", "do any {es} exist {f}"],
    ),
    "is_value": (
        ["is the {k} of {v} {w}", "(is|was|does|did) {v} {k} {w}", "is {v} {w}", "(is|was) {v} (from|in|of|a|an) {w}", "does {v} have {w} as (the |){k}", "is {w} the {k} of {v}"],
        ["tell me if {v} is from {w}", "is it true that the {k} of {v} is {w}", "was {w} the {k} of {v}"],
    ),
    "next": (
        ["(which|what|who) {e} (is|was|comes|came) (listed |)(after|right after|next after|directly after|immediately after|below) {v}", "(who|what|which) (is|was|comes|came) (listed |)(after|next after|right after|below) {v}", "what {e} follows {v}", "(who|what) is next after {v}", "the (next |){e} after {v}", "which {e} is listed (directly |right |)(below|after) {v}", "the next {e} listed after {v}", "who came after {v}"],
        ["tell me the {e} that follows {v}", "which {e} do we see right after {v}", "after {v} which {e} is next", "what is the next {e} below {v}"],
    ),
    "previous": (
        ["(which|what|who) {e} (is|was|comes|came) (listed |)(before|right before|just before|directly before|previous to|above|prior to) {v}", "(who|what|which) (is|was|comes|came) (listed |)(before|right before|previous to|above) {v}", "what {e} precedes {v}", "the (previous |){e} before {v}", "which {e} is listed (directly |right |)(above|before) {v}", "the previous {e} listed before {v}", "who came before {v}"],
        ["tell me the {e} that precedes {v}", "which {e} do we see right before {v}", "before {v} which {e} is listed", "what is the previous {e} above {v}"],
    ),
    "first": (
        ["(what|which|who) (is|was) the first {a} (listed|on the list|in the table|on the chart|in the list|) {f}", "(what|which) {a} (is|was|comes) (listed |)first {f}", "the first {a} (listed|in the table) {f}", "(name|give me) the first {a} (on the list|listed|in the table) {f}", "which {a} is at the top of the (list|table|chart) {f}", "what is the top {a} listed {f}"],
        ["tell me the first listed {a} {f}", "which {a} do we see first in the list {f}", "what {a} is at the top of the table {f}"],
    ),
    "last": (
        ["(what|which|who) (is|was) the last {a} (listed|on the list|in the table|on the chart|in the list|) {f}", "(what|which) {a} (is|was|comes) (listed |)last {f}", "the last {a} (listed|in the table) {f}", "(name|give me) the last {a} (on the list|listed|in the table) {f}", "which {a} is at the (bottom|end) of the (list|table|chart) {f}", "what is the bottom {a} listed {f}"],
        ["tell me the last listed {a} {f}", "which {a} do we see last in the list {f}", "what {a} is at the bottom of the table {f}"],
    ),
    "same": (
        ["(which|what) (other |){es} (have|has|had|share|shares) the same {k} as {v}", "(who|which|what) else (has|is|was|had) (in |from |)the same {k} as {v}", "which {es} (are|were) (from|in|of) the same {k} as {v}", "name (a|an|another|the other) {e} (with|from|in) the same {k} as {v}", "{es} (with|in|from) the same {k} as {v}", "which other {e} has the same {k} as {v}", "list the {es} that share {k} with {v}"],
        ["tell me the other {es} with the same {k} as {v}", "which {es} share the {k} of {v}", "besides {v} which {es} have the same {k}", "what else has the {k} that {v} has"],
    ),
    "same_count": (
        ["how many (other |){es} (have|has|had|share) the same {k} as {v}", "how many {es} (are|were) (from|in|of) the same {k} as {v}", "(count|the number of) (other |){es} with the same {k} as {v}"],
        ["tell me how many {es} share the {k} of {v}", "besides {v} how many {es} have the same {k}"],
    ),
    "above_average": (
        ["(which|what) {es} (have|has|had) (above average|more than average|higher than average|an above average|more than the average) {x} {f}", "(list|name|find) (the |){es} (with|whose {x} is) (above average|higher than the average|more than average) {x} {f}", "{es} with (above average|more than the average) {x} {f}", "which {es} have (a |){x} (above|over|higher than|greater than) (the |)average {f}"],
        ["tell me the {es} whose {x} is above the average {f}", "which {es} exceed the average {x} {f}", "name the {es} with {x} higher than average {f}"],
    ),
    "count_above_average": (
        ["how many {es} (have|has|had) (above average|more than average|higher than average|more than the average) {x} {f}", "how many {es} have (a |){x} (above|over|higher than|greater than) (the |)average {f}", "(count|the number of) {es} with above average {x} {f}"],
        ["tell me how many {es} have above average {x} {f}", "how many {es} exceed the average {x} {f}"],
    ),
    "range": (
        ["what is the difference between the (highest|largest|maximum|most) and (the |)(lowest|smallest|minimum|least) {x} {f}", "(what is |)the range of {x} {f}", "what is the (gap|difference) between the highest and lowest {x} {f}", "how far apart are the highest and lowest {x} {f}"],
        ["tell me the range of the {x} {f}", "what is the difference from the lowest to the highest {x} {f}"],
    ),
    "pair": (
        ["(list|show|give me) (the |all |){es} (and|with) (their |its |the |){x} {f}", "what are the {es} and (their |){x} {f}", "{e} and {x} {f}", "(list|show) {e} and {x} for (all |){es} {f}"],
        ["tell me the {es} and the {x} of each {f}", "show the {e} together with the {x} {f}"],
    ),
    "either": (
        ["how many {es} (are|were) (from |in |with |)(either |){v} or {w}", "how many {es} have {v} or {w} as {k}", "count (the |){es} (from|with|in) {v} (or|and) {w}", "the number of {es} whose {k} is (either |){v} or {w}", "how many {es} (are|were) (from|in|with) {v} and {w} (combined|together|in total)"],
        ["tell me how many {es} are either {v} or {w}", "how many {es} have a {k} of {v} or {w}", "in total how many {es} are from {v} and {w}"],
    ),
    "either_list": (
        ["(which|what) {es} (are|were) (from |in |with |)(either |){v} or {w}", "(list|name) (the |)(all |){es} (from|with|in) (either |){v} or {w}", "{es} whose {k} is (either |){v} or {w}"],
        ["tell me the {es} that are either {v} or {w}", "which {es} have a {k} of {v} or {w}"],
    ),
    "count_more": (
        ["how many more {es} (are|were|have) (from |in |with |there for |){v} than {w}", "what is the difference (in|between) the number of {es} (from|for|with) {v} and {w}", "how many more {es} does {v} have than {w}"],
        ["tell me how many more {es} are from {v} than {w}", "by how many {es} does {v} exceed {w}"],
    ),
    "how_many_rows": (
        ["how many (rows|entries|records|lines|items) (are there|are in the table|does the table have|are listed)", "(what is the |)(total number|count) of (rows|entries|records)", "count (all |the |)(rows|entries|records)", "how many {es} (are there|are listed|are in the table|in total|altogether|)", "what is the total number of {es}", "the number of {es} in the table"],
        ["tell me how many rows there are", "how many {es} does the list have in total", "what is the total count of {es}", "count the {es} on the list"],
    ),
}  # fmt: skip


def fill(rng: random.Random, template: str) -> str:
    """One way through a template's choices."""
    while match := _CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template
