"""The engine over a real tiny model: what is run, for whom, and that company never shows in the tokens."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ramet.engine import FinishEvent, RequestError, TokenEvent
from ramet.models.states import PAGE_TOKENS
from ramet.tree import DiskError
from tests.engine_support import model, request, running, text_tokens, tokenizer

SAMPLED = {"temperature": 1.0, "top_k": 40, "top_p": 0.95}


def alone(request_, **options):
    with running(**options) as bench:
        return bench.engine.submit(request_).result()


def test_batched_and_alone_are_the_same_tokens():
    prompts = [text_tokens(seed, length) for seed, length in enumerate((1, 7, 64, 65, 150, 700, 33, 300))]
    requests = [request(prompt, seed=seed, logprobs=3, **SAMPLED) for seed, prompt in enumerate(prompts)]
    with running() as bench:
        with bench.paused():
            handles = [bench.engine.submit(each) for each in requests]
        together = [handle.result()[0] for handle in handles]
        assert max(len(step) for step in bench.model.steps) == len(prompts)
    for each, reply in zip(requests, together, strict=True):
        [cold] = alone(each, step_tokens=100)
        assert cold.tokens == reply.tokens
        assert cold.logprobs == reply.logprobs  # bit for bit
        assert cold.top_logprobs == reply.top_logprobs


def test_logprobs_are_those_of_the_model():
    prompt = text_tokens(1, 90)
    with running() as bench:
        reply = bench.ask(prompt, logprobs=4, seed=3, max_tokens=10, **SAMPLED)
        cursor = bench.engine.call(lambda: bench.tree.open(prompt, limit=0)).result()
        span = cursor.span(prompt + reply.tokens, logits=len(prompt) + len(reply.tokens))
        rows = torch.log_softmax(model().forward([span]).double(), dim=-1)
        cursor.close()
    for i, token in enumerate(reply.tokens):
        row = rows[len(prompt) - 1 + i]
        assert reply.logprobs[i] == pytest.approx(row[token].item(), abs=1e-9)
        values, ids = row[: tokenizer().vocab_size].topk(4)
        assert [t for t, _ in reply.top_logprobs[i]] == ids.tolist()
        assert [v for _, v in reply.top_logprobs[i]] == pytest.approx(values.tolist(), abs=1e-9)


def test_a_seed_gives_the_same_tokens_again():
    with running() as bench:
        first = bench.ask(text_tokens(0, 50), seed=9, **SAMPLED)
        again = bench.ask(text_tokens(0, 50), seed=9, **SAMPLED)
        other = bench.ask(text_tokens(0, 50), seed=10, **SAMPLED)
    assert first.tokens == again.tokens != other.tokens


def test_forks_share_the_prompt():
    prompt = text_tokens(2, 600)
    with running() as bench:
        replies = bench.engine.submit(request(prompt, n=5, seed=4, **SAMPLED)).result()
        assert bench.model.tokens == 600 + 5 * 12
        [single] = bench.engine.submit(request(prompt, n=1, seed=4, **SAMPLED)).result()
        parents = {bench.tree.node(reply.finish.node).parent.id for reply in replies}
    assert len({tuple(reply.tokens) for reply in replies}) == 5
    assert single.tokens == replies[0].tokens
    assert len(parents) == 1
    assert [reply.choice for reply in replies] == list(range(5))
    assert all(reply.finish.usage.computed == 600 for reply in replies)


def test_sixteen_at_once_on_a_cold_prefix_compute_it_once():
    prefix = text_tokens(3, 4096)
    tails = [text_tokens(100 + i, 20 + i) for i in range(16)]
    requests = [request(prefix + tail, boundaries=[4096, 4096 + len(tail)]) for tail in tails]
    with running() as bench:
        with bench.paused():
            handles = [bench.engine.submit(each) for each in requests]
        replies = [handle.result()[0] for handle in handles]
        least = 4096 + sum(map(len, tails)) + 16 * 12
        assert bench.model.tokens <= least
        assert sum(reply.finish.usage.computed for reply in replies) == 4096 + sum(map(len, tails))
        stats = bench.engine.stats()
        assert stats.computed_tokens + stats.reused_tokens == stats.prompt_tokens
        # And another one later stands on the same shoulders.
        late = bench.ask(prefix + text_tokens(99, 30))
        assert late.finish.usage.computed <= 31
    assert [reply.finish.usage.divergence is None for reply in replies].count(True) == 1
    [cold] = alone(requests[11])
    assert cold.tokens == replies[11].tokens


def test_equal_prompts_at_once_run_only_their_last_token():
    prompt = text_tokens(4, 1000)
    with running() as bench:
        with bench.paused():
            handles = [bench.engine.submit(request(prompt)) for _ in range(8)]
        replies = [handle.result()[0] for handle in handles]
        assert bench.model.tokens == 1000 + 7 + 8 * 12
    assert len({tuple(reply.tokens) for reply in replies}) == 1
    assert [reply.finish.usage.divergence for reply in replies] == [None] * 8


def test_the_same_prompt_again_while_its_reply_is_written():
    prompt = text_tokens(4, 1000)
    with running() as bench:
        first = bench.engine.submit(request(prompt, boundaries=[300, 990], max_tokens=400))
        next(iter(first))
        again = bench.ask(prompt, boundaries=[300, 990])
        assert not first.finished
        assert again.finish.usage.computed == 1
        assert again.finish.usage.divergence is None
        first.cancel()
    assert again.tokens == alone(request(prompt))[0].tokens


@pytest.mark.parametrize("tokens", [[1], [1, 2], text_tokens(4, 500)])
def test_equal_prompts_without_replies(tokens):
    with running() as bench:
        with bench.paused():
            handles = [bench.engine.submit(request(tokens, max_tokens=0)) for _ in range(3)]
        assert [handle.result()[0].finish.reason for handle in handles] == ["length"] * 3
        assert bench.tree.stats().sessions == 0


def test_a_prefix_of_a_running_prompt_and_an_extension_of_it():
    long = text_tokens(5, 900)
    with running(step_tokens=128) as bench:
        with bench.paused():
            handles = [bench.engine.submit(request(tokens)) for tokens in (long, long[:500], [*long, 1, 2, 3])]
        replies = [handle.result()[0] for handle in handles]
        assert bench.model.tokens == 900 + 1 + 3 + 3 * 12
    assert replies[1].tokens == alone(request(long[:500]))[0].tokens
    assert replies[2].tokens == alone(request([*long, 1, 2, 3]))[0].tokens


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_followers_go_on_when_their_leader_is_gone(end):
    prefix = text_tokens(6, 2000)
    with running(step_tokens=64) as bench:
        with bench.paused():
            leader = bench.engine.submit(request(prefix + [1] * 30, label="leader"))
            followers = [bench.engine.submit(request(prefix + [2 + i] * 30)) for i in range(3)]
        poisoned = []

        def before(spans):
            if any(span.position > 500 for span in spans) and not poisoned:
                poisoned.append(True)
                if end == "fail":
                    raise RuntimeError("a wire came loose")
                leader.cancel()

        bench.model.before = before
        assert leader.result()[0].finish.reason == ("error" if end == "fail" else "cancelled")
        replies = [handle.result()[0] for handle in followers]
    for i, reply in enumerate(replies):
        assert reply.finish.reason == "length"
        assert reply.tokens == alone(request(prefix + [2 + i] * 30))[0].tokens


def test_a_step_that_fails_hurts_only_whom_it_concerns():
    prompts = [text_tokens(20, 200), text_tokens(21, 300), text_tokens(22, 201), text_tokens(23, 90)]
    requests = [request(prompt, seed=1, max_tokens=40, **SAMPLED) for prompt in prompts]

    def before(spans):
        if any(span.position + len(span.tokens) > 305 for span in spans):
            for span in spans:
                span.state.fill_(float("nan"))  # a step that stops half-way leaves its states in pieces
            raise RuntimeError("the second one is cursed")

    with running(step_tokens=256) as bench:
        bench.model.before = before
        with bench.paused():
            handles = [bench.engine.submit(each) for each in requests]
        replies = [handle.result()[0] for handle in handles]
        assert [reply.finish.reason for reply in replies] == ["length", "error", "length", "length"]
        assert "the second one is cursed" in replies[1].finish.error
        bench.model.before = lambda spans: None
        replies[1] = bench.engine.submit(requests[1]).result()[0]
    for each, reply in zip(requests, replies, strict=True):
        assert reply.tokens == alone(each)[0].tokens


def test_memory_that_runs_out_ends_the_request_with_advice():
    with running() as bench:

        def before(spans):
            raise MemoryError

        bench.model.before = before
        reply = bench.ask(text_tokens(0, 10))
        assert reply.finish.reason == "error"
        assert "not enough memory" in reply.finish.error
        bench.model.before = lambda spans: None
        assert bench.ask(text_tokens(0, 10)).finish.reason == "length"


def test_a_long_prompt_starves_neither_replies_nor_short_prompts():
    with running(step_tokens=256) as bench:
        with bench.paused():
            talking = bench.engine.submit(request(text_tokens(7, 10), max_tokens=60))
            long = bench.engine.submit(request(text_tokens(8, 6000)))
            short = [bench.engine.submit(request(text_tokens(30 + i, 100), max_tokens=1)) for i in range(4)]
        for handle in (talking, long, *short):
            handle.result()
        steps = bench.model.steps
    talked = [i for i, step in enumerate(steps) for at, n in step if n == 1 and 10 <= at < 70]
    assert talked[-1] - talked[0] == len(talked) - 1 == 59  # a token in every single step
    ended = next(i for i, step in enumerate(steps) for at, n in step if at + n == 6000)
    others = max(i for i, step in enumerate(steps[:ended]) for at, n in step if at + n == 100)
    assert others <= 4 * 100 // 32 + 4  # at least half of the smallest step, 64 tokens, goes to the short ones
    for step in steps[2:ended]:
        assert max(n for _, n in step) > 1  # and the long one moves with every step


def test_cancelling_frees_at_once():
    with running(step_tokens=64) as bench:
        with bench.paused():
            handle = bench.engine.submit(request(text_tokens(9, 4000)))
            queued = bench.engine.submit(request(text_tokens(10, 10)))
            queued.cancel()
        time.sleep(0.02)  # some steps into the prompt, on most machines; it must be right at any moment
        handle.cancel()
        [reply] = handle.result()
        steps = len(bench.model.steps)
        assert bench.ask([1, 2, 3]).finish.reason == "length"
        assert len(bench.model.steps) - steps == 13
        assert bench.tree.stats().sessions == 0
        assert queued.result()[0].finish.reason == "cancelled"
    assert reply.finish.reason == "cancelled"
    assert reply.finish.node is None
    assert handle.finished
    handle.cancel()  # harmless


def test_a_cancelled_request_is_billed_for_what_was_run():
    prefix = text_tokens(9, 2000)
    with running(step_tokens=64) as bench:
        bench.ask(prefix[:1000], max_tokens=0)
        before = bench.model.tokens
        with bench.paused():
            leader = bench.engine.submit(request(prefix + [1] * 9))
            follower = bench.engine.submit(request(prefix + [2] * 9))

        def cancel_both(spans):
            if bench.model.tokens - before > 300:
                follower.cancel()  # before it can look for another way
                leader.cancel()

        bench.model.before = cancel_both
        usage, waiting = leader.result()[0].finish.usage, follower.result()[0].finish.usage
    assert (usage.prompt_tokens, usage.reused) == (2009, 1000)
    assert usage.computed == bench.model.tokens - before
    assert (waiting.computed, waiting.reused) == (0, 0)


def test_all_forks_of_a_cancelled_request_end():
    with running() as bench:
        handle = bench.engine.submit(request(text_tokens(9, 40), n=3, max_tokens=5000))
        events = []
        for event in handle:
            events.append(event)
            if len(events) == 10:
                handle.cancel()
        assert [e.reason for e in events if isinstance(e, FinishEvent)] == ["cancelled"] * 3
        assert bench.tree.stats().sessions == 0


def test_the_queue_is_first_come_first_served():
    with running(max_running=2) as bench:
        with bench.paused():
            handles = [bench.engine.submit(request(text_tokens(40 + i, 30), n=1 + i % 2)) for i in range(6)]
        assert bench.engine.call(bench.engine.stats).result().requests >= 1
        finished = [handle.result()[0].finish.usage.queue_seconds for handle in handles]
        assert finished == sorted(finished)
        assert max(len(step) for step in bench.model.steps) == 2
        stats = bench.engine.stats()
    assert (stats.running, stats.waiting, stats.requests, stats.finished["length"]) == (0, 0, 6, 9)
    assert stats.queue_seconds.count == 6


def test_a_prompt_alone():
    prompt = text_tokens(11, 700)
    with running() as bench:
        reply = bench.ask(prompt, max_tokens=0, boundaries=[300, 700])
        assert (reply.tokens, reply.finish.reason) == ([], "length")
        assert bench.tree.node(reply.finish.node).end == 700
        again = bench.ask(prompt, max_tokens=0, boundaries=[300, 700])
        assert again.finish.usage.computed == 0
        assert bench.model.tokens == 700
        assert bench.ask([*prompt, 1, 2]).finish.usage.computed == 2


def test_the_context_is_the_limit():
    context = model().context_length
    with running() as bench:
        reply = bench.ask(text_tokens(12, context - 3), max_tokens=None)
        assert (len(reply.tokens), reply.finish.reason) == (3, "length")
        with pytest.raises(RequestError, match=f"the prompt has {context} tokens"):
            bench.ask([1] * context)
        assert bench.ask(text_tokens(12, context - 3) + reply.tokens, max_tokens=0).finish.usage.computed == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokens": []}, "the prompt is empty"),
        ({"tokens": [1, -1]}, "token -1 at position 1"),
        ({"tokens": [1, 2, 9999]}, "token 9999 at position 2"),
        ({"tokens": [1, 2], "boundaries": [2, 2]}, "boundaries must ascend"),
        ({"tokens": [1, 2], "boundaries": [3]}, "boundaries must ascend"),
        ({"tokens": [1, 2], "boundaries": [1], "messages": [None, None]}, "2 messages for 1 boundaries"),
        ({"tokens": [1, 2], "save_at": [3]}, "save_at"),
        ({"tokens": [1, 2], "n": 33}, "at most 32 replies"),
        ({"tokens": [1, 2], "top_p": 2.0}, "top_p"),
        ({"tokens": [1, 2], "stop_token_ids": (100_000,)}, "token 100000"),
    ],
)
def test_what_can_never_run_is_refused_at_once(fields, said):
    with running() as bench, pytest.raises(RequestError, match=said):
        bench.engine.submit(request(fields.pop("tokens"), **fields))


def test_storing_needs_a_place_to_store():
    with running() as bench, pytest.raises(RequestError, match="in memory only"):
        bench.engine.submit(request([1, 2], store=True))


def test_nobody_waits_for_the_disk_but_who_asked_to(tmp_path):
    go_on = threading.Event()
    with running(directory=tmp_path) as bench:
        store = bench.tree.store
        bench.tree.store = lambda node: go_on.wait(60) and store(node)
        stored = bench.engine.submit(request(text_tokens(61, 20), store=True, n=2))
        assert bench.ask(text_tokens(62, 20), max_tokens=30).finish.reason == "length"
        assert not stored.finished
        go_on.set()
        for reply in stored.result():
            assert (reply.finish.reason, len(reply.tokens)) == ("length", 12)

        def full(node):
            raise DiskError("the disk is full")

        bench.tree.store = full
        reply = bench.ask(text_tokens(61, 20), store=True)
        assert (reply.finish.reason, reply.finish.error) == ("error", "the disk is full")


def test_a_stored_reply_outlives_its_process(tmp_path):
    prompt = text_tokens(60, 900)
    with running(directory=tmp_path) as bench:
        reply = bench.ask(prompt, store=True, boundaries=[400, 890], messages=[{"role": "system"}, None])
        text = tokenizer().decode(prompt[890:] + reply.tokens, specials=True)
    with running(directory=tmp_path) as bench:
        node = bench.tree.node(reply.finish.node)
        assert bench.tree.path(node)[0].message == {"role": "system"}
        assert bench.tree.reply_tokens(text) == prompt[890:] + reply.tokens
        assert bench.ask(prompt + reply.tokens + [1, 2]).finish.usage.computed == 2
        assert bench.ask([*prompt, 3, 4, 5]).finish.usage.computed <= 14
        warm = bench.ask(prompt)
    assert warm.tokens == reply.tokens


def test_an_engine_that_does_not_run_says_so():
    with running() as bench:
        pass
    with pytest.raises(RequestError, match="not running"):
        bench.engine.submit(request([1]))


def test_stopping_ends_everything():
    with running(max_running=1) as bench, bench.paused():
        handles = [bench.engine.submit(request(text_tokens(i, 3000), max_tokens=4000)) for i in range(3)]
    assert [handle.result()[0].finish.reason for handle in handles] == ["cancelled"] * 3


def test_stop_strings_across_tokens():
    prompt = text_tokens(13, 40)
    with running() as bench:
        free = bench.ask(prompt, seed=2, max_tokens=60, **SAMPLED)
        assert free.text == tokenizer().decode(free.tokens)
        start = next(
            i for i in range(20, 50) if free.text[i : i + 3].isascii() and free.text.find(free.text[i : i + 3]) == i
        )
        stop = free.text[start : start + 3]  # one byte a token, so this spans three
        handle = bench.engine.submit(request(prompt, seed=2, max_tokens=60, stop=("\x00never", stop), **SAMPLED))
        events = list(handle)
        text = ""
        for event in events:
            text += event.text_delta
            assert stop not in text and free.text.startswith(text)
        assert text == free.text[:start]
        finish = events[-1]
        assert (finish.reason, finish.stop) == ("stop", stop)
        # The node keeps the tokens that were drawn, the stop string's too.
        node = bench.tree.node(finish.node)
        tokens = [event.token for event in events if isinstance(event, TokenEvent)]
        assert node.tokens.tolist() == tokens
        assert bench.ask(prompt + tokens + [1]).finish.usage.computed == 1


def test_stop_tokens():
    prompt = text_tokens(14, 40)
    with running() as bench:
        free = bench.ask(prompt, seed=2, **SAMPLED)
        stop = free.tokens[5]
        cut = free.tokens.index(stop)
        reply = bench.ask(prompt, seed=2, stop_token_ids=(stop,), **SAMPLED)
        assert reply.tokens == free.tokens[:cut]
        assert (reply.finish.reason, reply.finish.stop) == ("stop", stop)
        assert reply.finish.usage.completion_tokens == cut + 1


def test_the_end_of_the_turn_is_part_of_the_reply_node():
    end = tokenizer().eos_ids[0]
    prompt = text_tokens(15, 40)
    with running() as bench:
        reply = bench.ask(prompt, ignore_eos=False, logit_bias={end: 1000.0})
        assert (reply.tokens, reply.text, reply.finish.reason) == ([], "", "stop")
        assert bench.tree.node(reply.finish.node).tokens.tolist() == [end]
        assert bench.ask([*prompt, end, 5]).finish.usage.computed == 1


def test_half_a_character_comes_out_at_the_end():
    first = tokenizer().encode("é")[0]
    with running() as bench:
        reply = bench.ask([1, 2], logit_bias={first: 1000.0}, max_tokens=1)
    assert reply.text == "�"
    assert reply.finish.text_delta == "�"


def test_penalties_reach_the_reply():
    with running() as bench:
        stuck = bench.ask(text_tokens(16, 20), logit_bias={65: 30.0}, max_tokens=8)
        assert stuck.tokens == [65] * 8
        moving = bench.ask(text_tokens(16, 20), logit_bias={65: 30.0}, frequency_penalty=50.0, max_tokens=8)
        assert moving.tokens.count(65) == 1


def test_a_reply_that_calls_a_tool_is_pinned_and_its_message_kept():
    said = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
    end = tokenizer().eos_ids[0]
    with running() as bench:
        reply = bench.ask(
            text_tokens(17, 30),
            ignore_eos=False,
            logit_bias={end: 1000.0},
            parse_reply=lambda text: said if text == "" else None,
        )
        assert reply.finish.reason == "tool_calls"
        assert bench.tree.node(reply.finish.node).message == said == reply.finish.message
        assert bench.tree.stats().pinned_nodes == 1


def test_a_parser_that_fails_fails_its_request_only():
    def parse(text):
        raise ValueError("no parse")

    with running() as bench:
        reply = bench.ask(text_tokens(17, 30), parse_reply=parse)
        assert reply.finish.reason == "error" and "no parse" in reply.finish.error
        assert bench.ask(text_tokens(17, 30)).finish.reason == "length"


def test_nodes_messages_and_bills():
    prompt = text_tokens(18, 300)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with running() as bench:
        reply = bench.ask(prompt, boundaries=[100, 290], messages=messages)
        path = bench.tree.path(bench.tree.node(reply.finish.node))
        assert [node.end for node in path] == [100, 290, 312]
        assert [node.message for node in path] == [*messages, None]
        assert [(node.bill.computed, node.bill.reused) for node in path] == [(100, 0), (190, 0), (22, 0)]
        assert all(node.bill.seconds >= 0 for node in path)
        text = tokenizer().decode(prompt[290:] + reply.tokens, specials=True)
        assert bench.tree.reply_tokens(text) == prompt[290:] + reply.tokens
        other = bench.ask(prompt[:290] + [7] * 40, boundaries=[100, 290, 325], messages=[*messages, None])
        path = bench.tree.path(bench.tree.node(other.finish.node))
        assert (path[2].bill.computed, path[2].bill.reused) == (35, 0)


def test_a_queue_of_many_ends_and_leaves_nothing_open():
    generator = np.random.default_rng(0)
    prefixes = [text_tokens(i, 200) for i in range(3)]
    with running(max_running=6, step_tokens=96) as bench:
        handles = []
        for i in range(40):
            prompt = prefixes[i % 3][: int(generator.integers(1, 200))] + text_tokens(i, int(generator.integers(1, 90)))
            fields = {"n": int(generator.integers(1, 4)), "max_tokens": int(generator.integers(0, 10)), "seed": i}
            handles.append((bench.engine.submit(request(prompt, **fields, **SAMPLED)), prompt, fields))
            if i % 7 == 3:
                handles[-2][0].cancel()
        for handle, _, fields in handles:
            replies = handle.result()
            for reply in replies:
                assert reply.finish.reason in ("length", "cancelled")
                assert len(reply.tokens) == fields["max_tokens"] or reply.finish.reason == "cancelled"
        assert bench.tree.stats().sessions == 0
        stats = bench.engine.stats()
        assert (stats.running, stats.waiting, stats.following) == (0, 0, 0)
        sample = [entry for entry in handles if entry[0].request.sampling.max_tokens][5]
    handle, prompt, fields = sample
    with running() as bench:
        again = bench.engine.submit(request(prompt, **fields, **SAMPLED)).result()
        assert len(again) == fields["n"]


def test_without_memory_to_spare_requests_take_turns():
    requests = [request(text_tokens(50 + i, 100 + i), seed=i, **SAMPLED) for i in range(4)]
    with running(ram_bytes=1) as bench:
        with bench.paused():
            handles = [bench.engine.submit(each) for each in requests]
        replies = [handle.result()[0] for handle in handles]
        assert max(len(step) for step in bench.model.steps) == 1
    with running() as bench:
        for each, reply in zip(requests, replies, strict=True):
            assert bench.engine.submit(each).result()[0].tokens == reply.tokens


def test_those_who_run_leave_the_memory_to_those_who_wait_unless_there_is_a_disk(tmp_path: Path):
    requests = [request(text_tokens(70 + i, 100), max_tokens=24) for i in range(8)]
    layout = model().layout
    each = layout.state_bytes + 124 * layout.page_bytes // PAGE_TOKENS
    together = []
    for directory in (None, tmp_path):
        with running(ram_bytes=8 * 3 * each, directory=directory) as bench:
            with bench.paused():
                handles = [bench.engine.submit(each) for each in requests]
            for handle in handles:
                handle.result()
            together.append(max(len(step) for step in bench.model.steps))
    assert together[0] <= 4 < together[1] == 8
