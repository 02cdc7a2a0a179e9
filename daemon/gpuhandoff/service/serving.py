"""A daemon from its start to its end: until it is told to stop, or the bus goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gpuhandoff.messages import RemoteError
from gpuhandoff.names import BUS_NAME
from gpuhandoff.service.daemon import Daemon, Setting
from gpuhandoff.service.objects import ApiMismatchError

log = logging.getLogger(__name__)


async def serve(setting: Setting, *, ready: Callable[[str], None], stopping: asyncio.Event, reload: asyncio.Event) -> int:
    """Run a daemon until `stopping` is set (status 0) or the bus goes away (status 1)."""
    daemon = Daemon(setting)
    try:
        await daemon.start()
    except RemoteError as error:
        log.error("cannot serve %s: %s", BUS_NAME, error.message)
        return 1
    except ApiMismatchError as error:
        log.critical("not starting: %s", error)
        return 1
    ready(daemon.summary())
    lost = asyncio.create_task(setting.bus.wait_closed())
    stop = asyncio.create_task(stopping.wait())
    again = asyncio.create_task(reload.wait())
    try:
        while True:
            done, _ = await asyncio.wait({lost, stop, again}, return_when=asyncio.FIRST_COMPLETED)
            if again in done:
                reload.clear()
                daemon.reload()
                again = asyncio.create_task(reload.wait())
            if lost in done:
                log.error("the message bus is gone")
            if lost in done or stop in done:
                break
    finally:
        for task in (lost, stop, again):
            task.cancel()
        await daemon.stop()
    return 1 if lost in done else 0
