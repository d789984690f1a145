"""The queue on its own: batches fill, places are freed, whoever stops waiting is not computed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msresnet.serve.batching import Answer, Batcher, Job
from msresnet.serve.failures import Refusal


def image(value: int) -> Any:
    return np.full((1, 2, 2), value, np.uint8)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(whole())


def answered(jobs: list[Job]) -> list[int]:
    """Answer each image with its value; the values."""
    values = [int(job.image[0, 0, 0]) for job in jobs]
    for job, value in zip(jobs, values, strict=True):
        job.answer.set_result(Answer(np.array(value), 0, 0, len(jobs)))
    return values


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_everyone_gets_their_own_answers_once_and_no_batch_is_too_large(counts: list[int], size: int) -> None:
    async def work() -> None:
        batcher, computed = Batcher(size, 0.0, 1000, 10), []

        async def worker() -> None:
            while True:
                values = answered(await batcher.take())
                assert 1 <= len(values) <= size
                computed.extend(values)
                await asyncio.sleep(0)

        async def client(number: int, count: int) -> None:
            with batcher.room(count):
                mine = [(10 * number + i) % 256 for i in range(count)]
                found = await batcher.compute([image(value) for value in mine])
                assert [int(answer.outputs) for answer in found] == mine

        workers = [asyncio.create_task(worker()) for _ in range(2)]
        await asyncio.gather(*(client(number, count) for number, count in enumerate(counts)))
        assert len(computed) == sum(counts)
        assert batcher.held == 0
        for task in workers:
            task.cancel()

    run(work)


def test_images_that_come_together_are_computed_together() -> None:
    async def work() -> None:
        batcher = Batcher(4, 5.0, 100, 10)
        asking = [asyncio.create_task(batcher.compute([image(value)])) for value in range(6)]
        assert answered(await batcher.take()) == [0, 1, 2, 3]  # full: it does not wait
        batcher.delay = 0.01
        with batcher.coming(1):
            assert answered(await batcher.take()) == [4, 5]
        await asyncio.gather(*asking)

    run(work)


def test_images_wait_for_those_that_are_being_decoded_and_for_no_others() -> None:
    async def work() -> None:
        batcher = Batcher(4, 1000.0, 100, 10)
        with batcher.room(1):  # that others are here is no reason
            alone = asyncio.create_task(batcher.compute([image(1)]))
            assert answered(await batcher.take()) == [1]
            await alone
        taking = asyncio.create_task(batcher.take())

        async def decoded() -> None:
            with batcher.coming(1):
                asking.append(asyncio.create_task(batcher.compute([image(2)])))
                await asyncio.sleep(0.05)
                assert not taking.done()
            await batcher.compute([image(3)])

        asking = list[asyncio.Task[Any]]()
        asking.append(asyncio.create_task(decoded()))
        assert answered(await taking) == [2, 3]
        await asyncio.gather(*asking)
        with contextlib.suppress(ValueError), batcher.coming(1):
            asking = [asyncio.create_task(batcher.compute([image(4)]))]
            taking = asyncio.create_task(batcher.take())
            await asyncio.sleep(0.05)
            assert not taking.done()
            raise ValueError  # no image after all
        assert answered(await taking) == [4]
        await asyncio.gather(*asking)

    run(work)


def test_a_full_queue_refuses_and_says_when() -> None:
    async def work() -> None:
        batcher = Batcher(4, 0.0, 10, 60)
        batcher.done(4, 8.0)
        with batcher.room(9), pytest.raises(Refusal) as caught, batcher.room(2):
            pass
        assert caught.value.status == 503
        assert caught.value.retry_after == 18  # nine images at two seconds each
        with batcher.room(10):
            pass

    run(work)


def test_what_would_come_too_late_is_refused_at_once() -> None:
    async def work() -> None:
        batcher = Batcher(4, 0.0, 1000, patience=10)
        batcher.done(4, 4.0)
        with batcher.room(11), pytest.raises(Refusal, match="too many images are waiting"), batcher.room(1):
            pass

    run(work)


def test_two_workers_together_take_half_of_the_time_for_an_image() -> None:
    async def work() -> None:
        batcher = Batcher(4, 0.0, 1000, patience=10)
        batcher.done(4, 4.0, together=2)
        with batcher.room(20), batcher.room(1), pytest.raises(Refusal) as caught, batcher.room(1):
            pass
        assert caught.value.retry_after == 11  # 21 images at half a second each

    run(work)


def test_H16_who_leaves_is_not_computed_and_frees_the_place() -> None:
    async def work() -> None:
        batcher = Batcher(8, 0.0, 8, 10)

        async def client(value: int) -> None:
            with batcher.room(2):
                await batcher.compute([image(value), image(value)])

        leaving, staying = asyncio.create_task(client(1)), asyncio.create_task(client(2))
        await asyncio.sleep(0)
        assert batcher.held == 4
        leaving.cancel()
        await asyncio.wait([leaving])
        assert batcher.held == 2
        assert answered(await batcher.take()) == [2, 2]
        await staying
        assert batcher.held == 0
        await batcher.emptied()

    run(work)


def test_a_worker_waits_for_those_that_stay() -> None:
    """A queue of which everybody has gone is empty."""

    async def work() -> None:
        batcher = Batcher(8, 0.0, 8, 10)
        gone = asyncio.create_task(batcher.compute([image(1)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0.05)
        assert not taking.done()
        asking = asyncio.create_task(batcher.compute([image(3)]))
        assert answered(await taking) == [3]
        await asking

    run(work)


def test_one_failure_is_told_to_each_of_the_batch() -> None:
    async def work() -> None:
        batcher = Batcher(8, 0.0, 8, 10)
        asking = [asyncio.create_task(batcher.compute([image(n), image(n)])) for n in range(2)]
        for job in await batcher.take():
            job.answer.set_exception(Refusal(503, "the worker died", retry_after=1))
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, Refusal)

    run(work)
