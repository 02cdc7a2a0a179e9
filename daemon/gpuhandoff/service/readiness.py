"""The service manager: READY, STATUS, WATCHDOG, STOPPING, and the journal with our fields."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from gpuhandoff.service.plain_log import PlainFormatter
from systemd import daemon, journal  # type: ignore[attr-defined]  # its modules are C


def configure_log(*more: logging.Handler) -> None:
    """Log to the journal with the fields GPU=, JOB=, STEP= where systemd started us, to stderr otherwise; and to `more`."""
    handler: logging.Handler
    if "JOURNAL_STREAM" in os.environ:
        handler = journal.JournalHandler(SYSLOG_IDENTIFIER="gpuhandoffd")
        handler.setFormatter(PlainFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler, *more])


def ready(status: str) -> None:
    """Tell the service manager that the name is owned and journals are taken over."""
    daemon.notify(f"READY=1\nSTATUS={status}")


def status(text: str) -> None:
    """Tell the service manager where the GPUs are: what `systemctl status` shows."""
    daemon.notify(f"STATUS={text}")


def stopping() -> None:
    """Tell the service manager that the end has begun."""
    daemon.notify("STOPPING=1")


async def keep_watchdog() -> None:
    """Tell the service manager, twice in each of its watchdog's periods, that the loop still turns."""
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while period:
        daemon.notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)
