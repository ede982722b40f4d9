"""More ways to put the training questions, for the later part of training: further phrasings, and changes of form that
fit any question. Like all phrasings for training they share no wording with those of the test."""

from __future__ import annotations

import random

MORE: dict[str, list[str]] = {
    "equal": ["which (are|is|were|was) {v}", "that belong to {v}", "coming from {v}", "linked to {v}", "of the {v} kind", "in the {v} {k}", "that got {v}", "{v}", "who (are|were|is|was) (from |in |with |){v}", "on {v}", "as {v}", "against {v}", "to {v}"],
    "not": ["leaving out {v}", "apart from {v}", "that is anything but {v}", "who (are|were) not (from |in |){v}", "not {v}", "not at {v}"],
    "above": ["beating {n} {x}", "with {x} more than {n}", "having {x} above {n}", "that went over {n} {x}", "{x} greater than {n}", "{x} over {n}", "who (have|had) more than {n} {x}", "longer than {n} {x}", "higher than {n} {x}"],
    "below": ["falling short of {n} {x}", "with {x} less than {n}", "having {x} below {n}", "that stayed under {n} {x}", "{x} less than {n}", "{x} under {n}", "who (have|had) (less|fewer) than {n} {x}", "lower than {n} {x}"],
    "least": ["with {x} starting at {n}", "with {x} {n} or more", "having at least {n} {x}", "who (have|had) at least {n} {x}", "{n} {x} or more", "with {n} {x} or more"],
    "atmost": ["with {x} going up to {n}", "with {x} {n} or less", "having at most {n} {x}", "who (have|had) at most {n} {x}", "{n} {x} or less", "with {n} {x} or fewer"],
    "exact": ["having {x} of {n}", "who (have|had) (exactly |){n} {x}", "that got {n} {x}", "with just {n} {x}", "{x} {n}"],
    "between": ["with {x} in the range {n} to {m}", "having {n} to {m} {x}", "whose {x} lies between {n} and {m}", "{x} between {n} and {m}"],
    "year": ["dated {y}", "back in {y}", "having {d} {y}", "in the year {y}", "that were {d} in {y}", "who (was|were) {d} in {y}", "on {y}"],
    "after": ["from {y} on", "following {y}", "newer than {y}", "having {d} after {y}", "{d} later than {y}", "{d} since {y}", "that were {d} after {y}"],
    "before": ["up to {y}", "older than {y}", "having {d} before {y}", "{d} earlier than {y}", "until {y}", "that were {d} before {y}"],
    "years": ["in the years {y} to {z}", "having {d} between {y} and {z}", "that were {d} between {y} and {z}", "in {y} to {z}"],
    "yes": ["that got {b}", "which are {b}", "having {b}", "who (are|were) {b}", "{b} is yes", "{b}"],
    "no": ["that lack {b}", "which are not {b}", "having no {b}", "who (are|were) not {b}", "{b} is no", "not {b}"],
    "missing": ["lacking a {a}", "where no {a} is (given|listed)", "with an empty {a}", "having no {a}"],
    "contains": ["mentioning {v} in {k}", "having {v} as part of the {k}", "whose {k} has {v} in it", "with a {k} that contains {v}", "with {v} somewhere in the {k}"],
    "lookup": ["what do we know about the {a} of {v}", "{v} has (what|which) {a}", "{v} (is|was) (in|from|with|by) (what|which) {a}", "{a} for {v}", "what is given as {a} for {v}", "which {a} (has|had) {v}", "(look up|check) the {a} of {v}", "at (what|which) {a} (is|was) {v}", "(to|under|with) (what|which) {a} does {v} belong", "who (is|was) the {a} (of|for) {v}", "where (is|was) {v} by {a}", "the {a} that {v} has", "give me {v} {a}"],
    "lookup_count": ["{x} had by {v}", "how many {x} {v} (has|had|got|made)", "how many {x} (was|were) {v} given", "the {x} number of {v}", "how many {x} has {v} (won|had|got|made)", "in {v} how many {x} were there", "how many {x} does {v} (have|show)"],
    "lookup_number": ["the {x} figure of {v}", "{v} {x} (is|was) what", "how much {x} (has|had) {v}", "what {x} is given for {v}", "{v} has what {x}", "in {v} what was the {x}"],
    "lookup_filtered": ["(who|what) (has|is|was|are|were) the {es} {f}", "i need (the|all|some) {es} {f}", "any {es} {f}", "pick out {es} {f}", "(which|what) {es} (do|did) we have {f}", "{e} {f}", "(which|what) (is|are) {f}", "who (is|was|are|were) {f}", "which of the {es} (is|are|was|were) {f}", "get me the {es} {f}", "(what|which) {es} (is|are|was|were) listed {f}", "(what|which) {e} can be found {f}"],
    "lookup_column": ["{a} of {es} {f}", "for {es} {f} (list|show) the {a}", "which {a} do {es} {f} have", "of the {es} {f} (show|give) the {a}", "what {a} (is|was) there {f}", "get me the {as} {f}", "the {as} of all {es} {f}", "(what|which) {as} (are|were) {f}", "which {as} (belong to|go with) {es} {f}"],
    "count": ["how many {f}", "the count of all {es} {f}", "how many of these {es} (are|were|have|had) {f}", "there are how many {es} {f}", "how many {es} can be seen {f}", "how many (people|things|ones) are there {f}", "(what is|give) the amount of {es} {f}", "i need to know how many {es} (are|have|had) {f}", "{es} {f} how many", "of the {es} how many (are|were|have) {f}", "how many {es} does this table show {f}", "count up {es} {f}", "total {es} {f}", "find the number of {es} {f}", "how many {es} were listed {f}", "get the count of {es} {f}"],
    "count_value": ["how many (rows|lines|entries) have {v} in them", "{v} (has|had) how many {es}", "count the times {v} (appears|is listed)", "how many {es} (did|do) {v} have", "the number of {es} (for|from|in|with) {v}", "{v} is listed how many times", "how many times {v}", "what is the count of {v}", "how many times was {v} seen", "how many {es} for {v}"],
    "distinct": ["how many (different|unique) {ks} can be seen {f}", "how many {ks} in all {f}", "the count of distinct {ks} {f}", "without repeats how many {ks} {f}", "how many separate {ks} does this table show {f}", "give the number of unique {ks} {f}"],
    "list_distinct": ["all {ks} without repeats {f}", "which {ks} do we have {f}", "every {k} that appears {f}", "give every (different|unique) {k} {f}", "show unique {ks} {f}", "get me the different {ks} {f}", "what {ks} can be seen {f}"],
    "sum": ["all {x} together {f}", "{x} in total {f}", "add together the {x} {f}", "put together how many {x} {f}", "how many {x} in total do {es} {f} have", "the {x} of all {es} {f} added up", "what do the {x} {f} sum up to", "if all {x} {f} are added what do we get", "taken together how many {x} {f}", "get the sum of {x} {f}", "give the total of {x} {f}", "how many {x} (did|do|does|have) all {es} {f} (have|get|make) in all", "overall {x} {f}", "what is the grand total of {x} {f}"],
    "avg": ["{x} average {f}", "what {x} is average {f}", "give the mean {x} {f}", "taken over {es} {f} what is the average {x}", "the mean of all {x} {f}", "how many {x} does an average {e} have {f}", "typical {x} {f}", "find the average of {x} {f}", "the usual average {x} {f}", "average out the {x} {f}", "how many {x} (do|did) {es} {f} average"],
    "max": ["the top {x} {f}", "what is the most {x} {f}", "how high does {x} go {f}", "the biggest {x} {f}", "largest {x} of any {e} {f}", "best {x} {f}", "the record for {x} {f}", "the upper limit of {x} {f}", "give the maximum of {x} {f}", "what is the greatest number of {x} {f}", "up to how many {x} {f}", "the maximum number of {x} {f}"],
    "min": ["the bottom {x} {f}", "how low does {x} go {f}", "the tiniest {x} {f}", "smallest {x} of any {e} {f}", "the lower limit of {x} {f}", "give the minimum of {x} {f}", "what is the fewest {x} {f}", "the minimum number of {x} {f}", "lowest number of {x} {f}", "what is the smallest number of {x} {f}"],
    "argmax": ["which one {f} has the (most|highest|largest) {x}", "what has the (most|highest|largest|greatest) {x} {f}", "(who|what|which {e}) {f} has the top {x}", "among the {es} {f} which (one |)(has|had) the (most|highest|largest) {x}", "the (most|highest|largest) {x} {f} is from which {e}", "{x} is (highest|largest|greatest) for which {e} {f}", "{e} having the (most|highest|largest) {x} {f}", "out of all {es} {f} who has the (most|highest) {x}", "pick the {e} {f} with the (most|highest|best) {x}", "{x} champion among {es} {f}", "which {e} is number one in {x} {f}", "the {e} that has the (most|highest|largest number of) {x} {f}", "whose {x} is the (highest|largest|greatest) {f}", "which {e} beats all others in {x} {f}", "what {e} has the highest number of {x} {f}", "which {e} saw the (most|highest) {x} {f}"],
    "argmax_who": ["who {f} has the (most|largest|highest number of) {x}", "who got the best {x} {f}", "who had more {x} than anyone else {f}", "who beats all others in {x} {f}", "who is number one in {x} {f}", "who has the highest {x} of all {es} {f}"],
    "argmin": ["which one {f} has the (least|lowest|fewest|smallest) {x}", "what has the (least|lowest|smallest) {x} {f}", "among the {es} {f} which (one |)(has|had) the (least|lowest|fewest) {x}", "the (least|lowest|fewest) {x} {f} is from which {e}", "{x} is (lowest|smallest) for which {e} {f}", "{e} having the (least|lowest|fewest) {x} {f}", "out of all {es} {f} who has the (least|lowest|fewest) {x}", "pick the {e} {f} with the (least|lowest) {x}", "the {e} that has the (least|lowest|fewest) {x} {f}", "whose {x} is the (lowest|smallest) {f}", "what {e} has the (lowest|smallest) number of {x} {f}", "which {e} saw the (least|fewest|lowest) {x} {f}"],
    "argmin_who": ["who {f} has the (least|lowest|fewest) {x}", "who had (less|fewer) {x} than anyone else {f}", "who got the lowest {x} {f}", "who has the lowest {x} of all {es} {f}"],
    "most_adjective": ["{most} of the {es} {f}", "which of the {es} {f} is {most}", "pick the {most} {e} {f}", "what {e} would be {most} {f}", "the {most} {e} {f} is", "the {e} that is {most} {f}", "among {es} {f} the {most} is", "which {e} is {most} of all {f}", "who is {most} {f}", "get me the {most} {e} {f}", "i need the {most} {e} {f}", "out of all {es} {f} which is the {most}"],
    "ask_of_argmax": ["{a} of the {e} with the (most|highest|largest) {x} {f}", "the {e} {f} with the (most|highest) {x} has which {a}", "what {a} does the {e} with the (most|highest|largest) {x} have {f}", "for the (most|highest|largest) {x} {f} give the {a}", "with the (highest|largest) {x} comes which {a} {f}", "which {a} is found with the (highest|largest|most) {x} {f}", "{x} was (highest|largest|greatest) in which {a} {f}", "(in|at|for) what {a} (was|is) the (highest|largest|most) {x} {f}"],
    "ask_of_argmin": ["{a} of the {e} with the (least|lowest|fewest) {x} {f}", "the {e} {f} with the (least|lowest) {x} has which {a}", "what {a} does the {e} with the (least|lowest|smallest) {x} have {f}", "for the (least|lowest|smallest) {x} {f} give the {a}", "which {a} is found with the (lowest|smallest|least) {x} {f}", "{x} was (lowest|smallest) in which {a} {f}", "(in|at|for) what {a} (was|is) the (lowest|smallest|least) {x} {f}"],
    "latest": ["which one {f} is newest by {d}", "the newest {e} by {d} {f}", "{e} having the (last|latest) {d} {f}", "who was {d} last {f}", "out of all {es} {f} which is the most recent by {d}", "whose {d} is the (latest|most recent) {f}", "which {e} was the last to be {d} {f}", "most recently {d} {e} {f}"],
    "earliest": ["which one {f} is oldest by {d}", "the oldest {e} by {d} {f}", "{e} having the (first|earliest) {d} {f}", "who was {d} first {f}", "out of all {es} {f} which is the oldest by {d}", "whose {d} is the (earliest|oldest) {f}", "which {e} was the first to be {d} {f}", "first {d} {e} {f}"],
    "latest_value": ["the newest {d} {f}", "up to when does {d} go {f}", "give the latest {d} {f}", "the {d} that is most recent {f}"],
    "earliest_value": ["the oldest {d} {f}", "from when on does {d} go {f}", "give the first {d} {f}", "the {d} that is earliest {f}"],
    "when": ["{d} for {v}", "the {d} of {v} (is|was) when", "{v} was {d} when", "on what day was {v} {d}", "check when {v} was {d}", "when does {v} have its {d}"],
    "second": ["who is second in {x} {f}", "second best {e} by {x} {f}", "the runner up in {x} {f}", "which {e} is number two in {x} {f}", "second place by {x} {f}", "after the first which {e} has the most {x} {f}", "the second largest {x} is from which {e} {f}"],
    "third": ["who is third in {x} {f}", "third best {e} by {x} {f}", "which {e} is number three in {x} {f}", "third place by {x} {f}", "the third largest {x} is from which {e} {f}"],
    "top": ["{n} {es} with the best {x} {f}", "{n} (best|highest|largest) {es} by {x} {f}", "get me the top {n} {es} by {x} {f}", "the first {n} {es} ranked by {x} {f}", "pick the {n} {es} with the (most|highest) {x} {f}", "top {n} {x} {es} {f}", "which {n} {es} are ahead in {x} {f}", "what are the {n} {es} with the most {x} {f}"],
    "bottom": ["{n} {es} with the worst {x} {f}", "{n} (worst|lowest|smallest) {es} by {x} {f}", "get me the bottom {n} {es} by {x} {f}", "the last {n} {es} ranked by {x} {f}", "pick the {n} {es} with the (least|lowest|fewest) {x} {f}", "what are the {n} {es} with the (least|fewest) {x} {f}"],
    "order": ["put {es} {f} in order of {x} with the (highest|largest|most) first", "{es} {f} from the (largest|highest|most) to the (smallest|lowest|least) {x}", "arrange {es} {f} by falling {x}", "a list of {es} {f} with {x} going down"],
    "order_up": ["put {es} {f} in order of {x} with the (lowest|smallest|least) first", "{es} {f} from the (smallest|lowest|least) to the (largest|highest|most) {x}", "arrange {es} {f} by rising {x}", "a list of {es} {f} with {x} going up"],
    "group_count_max": ["by number of {es} which {k} is first {f}", "which {k} {f} has more {es} than any other", "the {k} that is (listed|seen) most {f}", "the commonest {k} {f}", "what {k} is there most often {f}", "which {k} is (in|on) the most rows {f}", "most of the {es} have which {k} {f}", "who appears most often as {k} {f}", "the {k} with the most rows {f}", "which {k} repeats most {f}", "pick the {k} with the most {es} {f}"],
    "group_count_min": ["by number of {es} which {k} is last {f}", "the rarest {k} {f}", "what {k} is there least often {f}", "which {k} {f} has fewer {es} than any other", "the {k} with the fewest rows {f}", "the {k} that is (listed|seen) least {f}"],
    "group_sum_max": ["adding up {x} which {k} comes out on top {f}", "which {k} has the largest sum of {x} {f}", "all {x} together which {k} has the most {f}", "the {k} whose {x} add up to the most {f}", "by total {x} which {k} is first {f}", "which {k} got the most {x} overall {f}"],
    "group_avg_max": ["by average {x} which {k} is first {f}", "the {k} whose average {x} is (highest|largest) {f}", "which {k} averages the most {x} {f}", "the best {k} by average {x} {f}", "which {k} has the most {x} on average {f}"],
    "group_avg_min": ["by average {x} which {k} is last {f}", "the {k} whose average {x} is (lowest|smallest) {f}", "which {k} averages the (least|fewest) {x} {f}", "which {k} has the (least|fewest) {x} on average {f}"],
    "group_count": ["{es} per {k} {f}", "{es} counted by {k} {f}", "for every {k} count the {es} {f}", "give each {k} with its number of {es} {f}", "the number of {es} that each {k} has {f}", "how are {es} spread over {ks} {f}"],
    "group_sum": ["{x} per {k} in total {f}", "{x} added up by {k} {f}", "for every {k} add up {x} {f}", "give each {k} with its total {x} {f}", "the total {x} that each {k} has {f}", "sum of {x} by {k} {f}"],
    "group_avg": ["{x} per {k} on average {f}", "{x} averaged by {k} {f}", "for every {k} average the {x} {f}", "give each {k} with its average {x} {f}", "the average {x} that each {k} has {f}"],
    "group_max": ["top {x} in every {k} {f}", "largest {x} by {k} {f}", "for every {k} find the largest {x} {f}", "give each {k} with its highest {x} {f}", "the highest {x} that each {k} has {f}"],
    "having": ["which {ks} are seen more than {n} times", "{ks} that appear more than {n} times", "{ks} (that have|having) over {n} {es}", "give the {ks} (having|with) more than {n} {es}", "get every {k} with more than {n} {es}"],
    "having_count": ["count the {ks} that appear more than {n} times", "how many {ks} are seen more than {n} times", "how many {ks} do we have with more than {n} {es}", "the count of {ks} with over {n} {es}"],
    "difference": ["{v} and {w} are how many {x} apart", "how far apart are {v} and {w} in {x}", "between {v} and {w} what is the difference in {x}", "{v} {x} minus {w} {x}", "take the {x} of {w} from the {x} of {v}", "subtract {w} from {v} in {x}", "how much do {v} and {w} differ in {x}", "{v} has how many more {x} than {w}", "than {w} how many more {x} had {v}", "the gap in {x} between {v} and {w}", "how many fewer {x} (does|did) {w} have than {v}", "compare the {x} of {v} and {w} what is the difference"],
    "sum_two": ["{x} of {v} plus {x} of {w}", "{v} plus {w} in {x}", "if {v} and {w} are added how many {x}", "add up the {x} of {v} and {w}", "in all how many {x} have {v} and {w}", "what do the {x} of {v} and {w} sum up to"],
    "more_of_two": ["who is ahead in {x} {v} or {w}", "{v} or {w} with more {x}", "which one has the higher {x} {v} or {w}", "whose {x} is (higher|greater|larger) {v} or {w}", "out of {v} and {w} who has more {x}", "is it {v} or {w} that has more {x}", "pick the one with more {x} {v} or {w}", "which {e} {v} or {w} has the most {x}", "did {v} or {w} get more {x}", "which has a greater {x} {v} or {w}"],
    "less_of_two": ["who is behind in {x} {v} or {w}", "{v} or {w} with (less|fewer) {x}", "which one has the lower {x} {v} or {w}", "whose {x} is (lower|smaller) {v} or {w}", "out of {v} and {w} who has (less|fewer) {x}", "is it {v} or {w} that has (less|fewer) {x}", "pick the one with (less|fewer) {x} {v} or {w}", "did {v} or {w} get fewer {x}"],
    "is_more": ["is {v} ahead of {w} in {x}", "{v} has more {x} than {w} right", "are there more {x} for {v} than for {w}", "check if {v} beats {w} in {x}", "is it true that {v} has more {x} than {w}", "can {v} beat {w} by {x}", "was the {x} of {v} greater than that of {w}", "yes or no {v} has more {x} than {w}"],
    "is_less": ["is {v} behind {w} in {x}", "{v} has (less|fewer) {x} than {w} right", "are there fewer {x} for {v} than for {w}", "is it true that {v} has (less|fewer) {x} than {w}", "yes or no {v} has fewer {x} than {w}", "check if {v} is below {w} in {x}", "was the {x} of {v} smaller than that of {w}"],
    "exists": ["yes or no is there (a|any) {e} {f}", "check if there is (a|any) {e} {f}", "is it true that there are {es} {f}", "are any of the {es} {f}", "can there be a {e} {f}", "is even one {e} {f}", "were there {es} {f}", "do we see any {es} {f}", "does any {e} exist {f}", "is any {e} to be found {f}"],
    "is_value": ["yes or no is {v} {w}", "check if {v} is {w}", "does {v} belong to {w}", "is {w} where {v} belongs by {k}", "is it right that {v} has {k} {w}", "{v} is {w} right", "was {v} {w} by {k}"],
    "next": ["{e} after {v}", "what comes next after {v}", "the row below {v}", "one row down from {v} is which {e}", "which {e} was next after {v}", "following {v} is which {e}", "the one right after {v}", "who follows {v}", "go one down from {v}", "who was after {v}", "directly below {v} is which {e}"],
    "previous": ["{e} before {v}", "what comes right before {v}", "the row above {v}", "one row up from {v} is which {e}", "which {e} was just before {v}", "preceding {v} is which {e}", "the one right before {v}", "who precedes {v}", "go one up from {v}", "who was before {v}", "directly above {v} is which {e}"],
    "first": ["(the |)first row {a} {f}", "with which {a} does the (list|table) (start|begin) {f}", "{a} in the first row {f}", "which {a} (starts|begins|opens) the (list|table) {f}", "the {a} at the (top|beginning|start) {f}", "top {a} on the list {f}", "get the first {a} {f}", "what {a} is listed at the top {f}"],
    "last": ["(the |)last row {a} {f}", "with which {a} does the (list|table) (end|close) {f}", "{a} in the last row {f}", "which {a} (ends|closes) the (list|table) {f}", "the {a} at the (bottom|end) {f}", "bottom {a} on the list {f}", "get the last {a} {f}", "what {a} is listed at the bottom {f}", "final {a} {f}"],
    "same": ["{es} like {v} in {k}", "who shares (a|the|their) {k} with {v}", "which {es} match {v} in {k}", "{v} has the same {k} as which {es}", "find {es} having the {k} of {v}", "others with the {k} of {v}", "get the {es} with a {k} equal to that of {v}", "the {k} of {v} is also that of which {es}", "who has the {k} that {v} has"],
    "same_count": ["how many are like {v} in {k}", "how many {es} match {v} in {k}", "{v} has the same {k} as how many {es}", "how many others have the {k} of {v}", "the number of {es} sharing the {k} of {v}", "how many {es} have the {k} that {v} has"],
    "above_average": ["{es} beating the average {x}", "which {es} are better than average in {x}", "{es} over the average in {x}", "who is above average in {x}", "{es} whose {x} is more than the mean", "get the {es} above the mean {x}", "which {es} go over the average {x}"],
    "count_above_average": ["how many {es} beat the average {x}", "how many {es} are better than average in {x}", "count {es} over the average in {x}", "how many are above average in {x}", "how many {es} go over the mean {x}", "the number of {es} above the mean {x}"],
    "range": ["highest minus lowest {x} {f}", "the gap from lowest to highest {x} {f}", "by how much does {x} vary {f}", "between the least and the most {x} what is the difference {f}", "the {x} spread {f}", "subtract the lowest {x} from the highest {f}", "maximum {x} minus minimum {x} {f}"],
    "pair": ["each {e} and its {x} {f}", "{es} together with {x} {f}", "for every {e} give the {x} {f}", "{x} for each {e} {f}", "get {e} and {x} {f}", "all {es} with {x} {f}", "a list of {es} with their {x} {f}"],
    "either": ["{es} from {v} plus {es} from {w} are how many", "{v} and {w} have how many {es} in total", "how many {es} does {v} have plus {w}", "{v} or {w} how many {es}", "together how many {es} are from {v} and {w}", "count {es} that are {v} or {w}", "how many (rows|entries) have {v} or {w}"],
    "either_list": ["{es} that are {v} or {w}", "get the {es} (from|in|with) {v} or {w}", "who is from {v} or {w}", "all {es} of {v} and of {w}", "every {e} (from|in|with) {v} or {w}"],
    "count_more": ["{v} has how many more {es} than {w}", "than {w} how many more {es} has {v}", "count of {v} {es} minus count of {w} {es}", "how far apart are {v} and {w} in number of {es}", "the gap between {v} and {w} in number of {es}", "how many fewer {es} does {w} have than {v}"],
    "how_many_rows": ["the size of the table", "how long is the list", "how big is this table", "how many {es} do we have", "how many {es} does the table show", "how many {es} in all", "give the count of {es}", "all {es} how many", "how many lines does it have", "how many {es} are in this list"],
}  # fmt: skip

_OPENINGS = (
    "please", "hey", "ok so", "so", "now", "could you say", "i would like to know", "i wonder", "help me", "quick question", "in this table",
    "looking at the table", "according to the table", "based on this data", "from the list", "can you work out", "let me know", "say",
    "for my report", "just", "and", "then", "i am looking for", "would you give me", "do you see", "please find out", "in the data",
)  # fmt: skip
_ENDINGS = (
    "please", "in this table", "according to the table", "in the data", "if you can", "thanks", "on this list", "in the chart", "as listed",
    "from the table", "here", "exactly", "do you think", "by the table",
)  # fmt: skip
_LIGHT = frozenset("the a an is was are were do does did of there that it its their has have had in for".split())
_FRONTS = ("among {es} {f}", "considering only {es} {f}", "if we only look at {es} {f}", "only {es} {f}", "looking at {es} {f}",
           "out of the {es} {f}", "when we take just {es} {f}", "from {es} {f}", "{f}", "with {es} {f} in mind")  # fmt: skip


def with_filter_first(rng: random.Random, template: str, words: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A question whose filters come before it rather than inside, now and then."""
    if "{f}" in template and words.get("f") and "es" in words and rng.random() < 0.12:
        front = rng.choice(_FRONTS)
        return f"{front} " + template.replace("{f}", ""), words
    return template, words


def reword(rng: random.Random, text: str) -> str:
    """An opening or an ending that means nothing, or light words lost, now and then."""
    style = rng.random()
    if style < 0.14:
        return f"{rng.choice(_OPENINGS)} {text}"
    if style < 0.22:
        return f"{text} {rng.choice(_ENDINGS)}"
    if style < 0.34:
        kept = [w for i, w in enumerate(text.split()) if i == 0 or w.lower() not in _LIGHT or rng.random() < 0.6]
        return " ".join(kept)
    return text
