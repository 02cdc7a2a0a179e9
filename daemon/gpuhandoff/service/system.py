"""The daemon on the real machine."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from gpuhandoff import names
from gpuhandoff.config import ConfigurationError, load
from gpuhandoff.host import Host
from gpuhandoff.host.archive import MachineArchive
from gpuhandoff.host.descriptors import MachineDescriptors
from gpuhandoff.host.logins import Logins
from gpuhandoff.host.machine import MachineKernel
from gpuhandoff.host.netlink import MachineUevents
from gpuhandoff.host.openings import MachineOpenings
from gpuhandoff.host.proc import MachineProcesses
from gpuhandoff.host.units import Units
from gpuhandoff.host.workers import Workers
from gpuhandoff.messages import RemoteError
from gpuhandoff.service import readiness
from gpuhandoff.service.bus import connect
from gpuhandoff.service.daemon import Setting
from gpuhandoff.service.recent import RecentLines
from gpuhandoff.service.serving import serve
from gpuhandoff.workshop import Workshop

log = logging.getLogger(__name__)


async def run_system(workshop: Workshop, *, configuration: Path) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    recent = RecentLines()
    readiness.configure_log(recent)
    stopping, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    try:
        bus = await connect()
    except RemoteError as error:
        log.error("the system bus cannot be reached: %s", error.message)
        return 1
    workers = Workers(workshop)
    processes = MachineProcesses()
    await workers.adopt(processes)
    host = Host(
        MachineKernel(workers),
        processes,
        MachineUevents(),
        MachineOpenings(),
        MachineDescriptors(),
        Units(bus),
        Logins(bus),
    )
    setting = Setting(
        bus,
        host,
        Path(names.RUNTIME_DIRECTORY),
        lambda: load(configuration, configuration.parent / "conf.d"),
        Path(names.STATE_DIRECTORY),
        MachineArchive(recent.lines),
        readiness.status,
        Path(names.HOOK_PATTERNS),
    )
    watchdog = asyncio.create_task(readiness.keep_watchdog())
    try:
        return await serve(setting, ready=readiness.ready, stopping=stopping, reload=reload)
    except ConfigurationError as error:
        log.error("%s", error)
        return 78
    finally:
        readiness.stopping()
        watchdog.cancel()
        await bus.close()
        workers.close()
