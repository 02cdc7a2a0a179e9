"""Gathers a support report. A source that fails or does not answer becomes a note in it, never a failure."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gpuhandoff
from gpuhandoff.config import Configuration
from gpuhandoff.host import Host, Purpose
from gpuhandoff.host.archive import Archive
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.names import API_VERSION
from gpuhandoff.report.plain import plain
from gpuhandoff.report.redaction import LEFT_OUT, redact
from gpuhandoff.report.relevance import relevance
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs

FORMAT = 1
PATIENCE = 15.0
"""Seconds for each source."""
MOVES = 100
JOURNAL = 64 * 1024
"""Bytes of each open journal."""
LIBRARIES = ("dbus-next", "pyudev", "psutil", "systemd-python")

log = logging.getLogger(__name__)


class Support:
    """Makes reports, one at a time."""

    def __init__(
        self,
        host: Host,
        fleet: Fleet,
        jobs: Jobs,
        chronicle: Chronicle,
        configuration: Callable[[], Configuration],
        journals: Path,
        archive: Archive,
    ) -> None:
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._chronicle = chronicle
        self._configuration = configuration
        self._journals = journals
        self._archive = archive
        self._turn = asyncio.Lock()

    async def report(self, *, names: bool) -> str:
        """Return the report as JSON. `names`: with everything that `LEFT_OUT` lists."""
        async with self._turn:
            notes = _Notes()
            document = await self._document(notes)
            document["left-out"] = [] if names else list(LEFT_OUT)
            document["notes"] = notes.lines
            if names:
                return await asyncio.to_thread(json.dumps, document)
            users = await notes.read("the names of users", asyncio.to_thread(self._archive.users), [])
            hosts = await notes.read("the name of the host", asyncio.to_thread(self._archive.host_names), [])
            return await asyncio.to_thread(_redacted, document, users, hosts)

    async def _document(self, notes: _Notes) -> dict[str, Any]:
        world: World = await notes.read("the machine as it is now", self._fleet.survey(), self._fleet.world)
        versions: dict[str, Any] = await notes.read("versions", asyncio.to_thread(_versions), {})
        versions |= {"kernel": world.kernel_release, "nvidia": world.nvidia_version}
        versions["systemd"] = await notes.read("the version of systemd", self._host.units.version(), "")
        return {
            "report": FORMAT,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions,
            "gpus": {str(gpu.address): self._gpu(gpu) for gpu in world.gpus},
            "jobs": [job.properties() for gpu in world.gpus if (job := self._jobs.running(gpu.address)) is not None],
            "journals": await notes.read("open journals", asyncio.to_thread(_journals, self._journals), {}),
            "history": [plain(move) for move in self._chronicle.moves(None, MOVES)],
            "configuration": plain(self._configuration()),
            "machine": plain(world),
            "kernel-log": await notes.read(
                "the kernel's log", asyncio.to_thread(self._archive.kernel_lines, relevance(world.gpus)), []
            ),
            "log": await notes.read("the daemon's log", asyncio.to_thread(self._archive.daemon_lines), []),
        }

    def _gpu(self, gpu: Gpu) -> dict[str, Any]:
        told = self._fleet.properties(gpu)
        return {
            **{key.lower(): told[key] for key in ("Name", "State", "Reason", "Driver", "Vm", "Owner", "Job")},
            "pending": [plain(one) for one in self._host.kernel.pending(Purpose(str(gpu.address)))],
        }


class _Notes:
    """What could not be read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def read(self, what: str, reading: Awaitable[Any], otherwise: Any) -> Any:
        """Return what a source says, or `otherwise`, and note why."""
        try:
            return await asyncio.wait_for(reading, PATIENCE)
        except TimeoutError:
            self.lines.append(f"{what}: no answer within {PATIENCE:g} s")
        except (OSError, RemoteError) as error:
            self.lines.append(f"{what}: {error}")
        except Exception as error:
            log.exception("a part of the support report failed: %s", what)
            self.lines.append(f"{what}: {type(error).__name__}; the daemon's log has the details")
        return otherwise


def _versions() -> dict[str, Any]:
    from importlib import metadata  # noqa: PLC0415  (a megabyte, for what is asked once in a while)

    found: dict[str, Any] = {
        "gpuhandoff": gpuhandoff.__version__,
        "api": API_VERSION,
        "python": platform.python_version(),
    }
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = ""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    found["distribution"] = release.get("PRETTY_NAME", "")
    return found


def _journals(directory: Path) -> dict[str, list[Any]]:
    """Return the lines of every open journal, and of those set aside; those that are whole as JSON."""
    found = {}
    for path in sorted([*directory.glob("*.journal"), *directory.glob("*.unreadable")]):
        with path.open("rb") as file:
            lines = file.read(JOURNAL).decode(errors="replace").splitlines()
        found[path.name] = [_parsed(line) for line in lines]
    return found


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _redacted(document: dict[str, Any], users: list[str], hosts: list[str]) -> str:
    """Return the JSON without what must not be named; versions are nobody's names."""
    return json.dumps({**redact(document, users=users, hosts=hosts), "versions": document["versions"]})
