"""A small pool for what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Threads for what blocks, off the event loop; more would only wait for one another at the database."""

    def __init__(self, threads: int = 4, name: str = "web-db") -> None:
        """Make the threads when they are first needed."""
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._beside: list[Pool] = []

    def beside(self, threads: int, name: str) -> Pool:
        """Another pool, for what may take so long that nobody should wait behind it; it ends with this one."""
        made = Pool(threads, name)
        self._beside.append(made)
        return made

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Wait for running work and end the threads."""
        for pool in self._beside:
            pool.close()
        self._executor.shutdown()
