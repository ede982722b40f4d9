"""Reading a reply: from threads, from asyncio, and not at all."""

import asyncio
import threading

from ramet.engine import FinishEvent, TokenEvent
from tests.engine_support import request, running, text_tokens


def test_events_in_order():
    with running() as bench:
        events = list(bench.engine.submit(request(text_tokens(0, 20), n=2)))
    for choice in range(2):
        own = [event for event in events if event.choice == choice]
        assert [type(event) for event in own] == [TokenEvent] * 12 + [FinishEvent]


def test_events_come_while_the_reply_is_written():
    with running() as bench:
        handle = bench.engine.submit(request(text_tokens(0, 20), max_tokens=400))
        events = iter(handle)
        assert isinstance(next(events), TokenEvent)
        assert not handle.finished
        handle.cancel()
        assert next(event for event in events if isinstance(event, FinishEvent)).reason == "cancelled"


def test_reading_goes_on_where_it_was_left():
    async def read(handle):
        return [event async for event in handle.stream()]

    with running() as bench:
        handle = bench.engine.submit(request(text_tokens(0, 20), n=2))
        first = []
        for event in handle:
            first.append(event)
            if isinstance(event, FinishEvent):  # of one choice; the other's is still to come
                break
        events = first + list(handle)
        assert [isinstance(event, FinishEvent) for event in events].count(True) == 2
        assert len(events) == 26
        assert list(handle) == []
        assert asyncio.run(asyncio.wait_for(read(handle), 10)) == []
        assert bench.engine.stats().finished["cancelled"] == 0


def test_many_readers_on_one_loop():
    async def read(handle):
        return [event async for event in handle.stream()]

    async def main(bench):
        handles = [bench.engine.submit(request(text_tokens(i, 30))) for i in range(40)]
        return await asyncio.gather(*map(read, handles))

    with running() as bench:
        for events in asyncio.run(main(bench)):
            assert [type(event) for event in events] == [TokenEvent] * 12 + [FinishEvent]


def test_a_reader_that_begins_late_misses_nothing():
    async def main(handle):
        return [event async for event in handle.stream()]

    with running() as bench:
        handle = bench.engine.submit(request(text_tokens(0, 30)))
        bench.ask(text_tokens(1, 30))
        while not handle.finished:
            bench.engine.call(lambda: None).result()
        assert len(asyncio.run(main(handle))) == 13


def test_a_reader_that_goes_away_cancels():
    async def main(bench):
        handle = bench.engine.submit(request(text_tokens(0, 30), max_tokens=8000))
        stream = handle.stream()
        async for _ in stream:
            break
        await stream.aclose()
        while not handle.finished:
            await asyncio.sleep(0.001)

        task = asyncio.create_task(collect(bench.engine.submit(request(text_tokens(1, 30), max_tokens=8000))))
        await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("the task was not cancelled")

    async def collect(handle):
        return [event async for event in handle.stream()]

    with running() as bench:
        asyncio.run(main(bench))
        bench.ask([1])
        assert bench.engine.stats().finished["cancelled"] == 2
        assert bench.tree.stats().sessions == 0


def test_a_loop_that_is_closed_cancels():
    with running() as bench:
        handle = bench.engine.submit(request(text_tokens(0, 30), max_tokens=8000))
        loop = asyncio.new_event_loop()
        stream = handle.stream()
        loop.run_until_complete(anext(stream))
        loop.close()
        deadline = threading.Event()
        while not handle.finished and not deadline.wait(0.001):
            pass
        assert bench.engine.stats().finished["cancelled"] == 1


def test_calls_run_between_steps_and_bring_back_errors():
    with running() as bench:
        ask = bench.engine.submit(request(text_tokens(0, 30), max_tokens=2000))
        assert bench.engine.call(threading.current_thread).result().name == "ramet-engine"
        try:
            bench.engine.call(lambda: 1 / 0).result()
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("the error did not come back")
        ask.cancel()
        assert ask.result()[0].finish.reason == "cancelled"
