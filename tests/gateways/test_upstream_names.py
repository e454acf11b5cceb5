"""The look-up of an upstream's name, which is the one thing that its connections share."""

import asyncio
from typing import Any

import pytest

from routstr.gateways.upstream import Deadlines
from routstr.gateways.upstream_failure import UpstreamNotSent
from tests.gateways.test_upstream_wire import SIZED, ask, pair, told


class SlowNames(asyncio.SelectorEventLoop):
    """A loop whose resolver is silent until `is_back`; `asked` counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = asyncio.Event()
        self.asked = 0

    async def getaddrinfo(self, *given: Any, **more: Any) -> Any:
        self.asked += 1
        await self.is_back.wait()
        return await super().getaddrinfo(*given, **more)


def test_a_silent_resolver_is_asked_once_however_many_wait() -> None:
    async def story(loop: SlowNames) -> None:
        async with pair() as (upstream, client):
            upstream.say(SIZED)
            for _ in range(3):
                with pytest.raises(UpstreamNotSent, match="time-out"):
                    await ask(client, deadlines=Deadlines(connect_s=0.01))
            asking = [asyncio.create_task(told(client)) for _ in range(3)]
            await asyncio.sleep(0)
            asking[0].cancel()
            loop.is_back.set()
            ends = await asyncio.gather(*asking, return_exceptions=True)
            assert ends[1:] == [(b"hello world", "whole")] * 2
        assert loop.asked == 1

    with asyncio.Runner(loop_factory=SlowNames) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SlowNames)
        runner.run(asyncio.wait_for(story(loop), 60))
