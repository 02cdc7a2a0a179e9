"""Kernel modules: what is available, what is loaded, who pins it (kernel.md 1.4)."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import Attribute, failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.drivers import Driver
    from gpuhandoff.simulation.machine import SimulatedMachine

LOAD_SECONDS = 0.05
INSTALLS = "/etc/modprobe.d/nvidia.conf"
"""Where Debian says which files modprobe is to take for the modules of NVIDIA."""
_INSTALL = re.compile(r"install (\S+) .*modprobe -i (\S+) .*")
Hook = Callable[["SimulatedMachine", str], None]


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the running kernel: its file below /lib/modules/RELEASE, what it needs, the PCI driver it brings."""

    name: str
    file: str
    needs: tuple[str, ...] = ()
    driver: Callable[[SimulatedMachine], Driver] | None = None
    builtin: bool = False
    loaded: Hook | None = None
    """Called once it is in."""
    leaves: Hook | None = None
    """Called before it goes."""
    parameters: tuple[tuple[str, str], ...] = ()
    version: str = ""


class Modules:
    """The module list of the machine."""

    def __init__(self, machine: SimulatedMachine, available: dict[str, Module]) -> None:
        self._machine = machine
        self.available = available
        self.loaded: dict[str, Driver | None] = {}
        """Module and the PCI driver it brought, oldest first."""
        self._turns: dict[str, asyncio.Lock] = {}
        tree, base = machine.tree, f"/lib/modules/{machine.kernel_release}"
        tree.text("/proc/modules", self._list)
        tree.text(f"{base}/modules.dep", self._dependencies)
        tree.text(f"{base}/modules.builtin", "".join(f"{one.file}\n" for one in available.values() if one.builtin))
        for one in available.values():
            if not one.builtin:
                tree.text(f"{base}/{one.file}", "\x7fELF")

    def references(self, name: str) -> int:
        """The reference count: users in user space, modules that need it, bindings that pin it."""
        machine = self._machine
        pinned = machine.processes.references(name) + machine.sound.pins(name) + machine.vfio.pins(name)
        return len(self._users(name)) + pinned

    async def load(self, name: str) -> None:
        """Do what modprobe does: load what it needs, then the module; built in or loaded already is success.

        It knows modules by the names of their files, and does what modprobe.d says to install one instead.
        """
        file = self._file_of(name)
        module = next((one for one in self.available.values() if _stem(one.file) == file), None)
        if module is None:
            raise failure(errno.ENOENT, f"/lib/modules/{self._machine.kernel_release}/{file}.ko")
        name = module.name
        if module.builtin or name in self.loaded:
            return
        for needed in module.needs:
            await self.load(needed)
        async with self._turn(name):
            if name not in self.loaded:
                await self._insert(module)

    async def _insert(self, module: Module) -> None:
        name = module.name
        await self._machine.waits.takes(LOAD_SECONDS)
        driver = module.driver(self._machine) if module.driver else None
        self.loaded[name] = driver
        self._show(module)
        self._machine.uevents.emit("add", f"/sys/module/{name}", "module")
        if driver is not None:
            await self._machine.pci.register(driver)
        if module.loaded is not None:
            module.loaded(self._machine, name)

    async def remove(self, name: str) -> None:
        """Do what delete_module does: EAGAIN at once while it is used, no timeout once its exit function runs."""
        if name not in self.loaded:
            raise failure(errno.ENOENT, f"/sys/module/{name}")
        if self._turn(name).locked():
            raise failure(errno.EBUSY, f"/sys/module/{name}")
        if self.references(name):
            raise failure(errno.EAGAIN, f"/sys/module/{name}")
        async with self._turn(name):
            await self._take_out(name)

    async def _take_out(self, name: str) -> None:
        module, driver = self.available[name], self.loaded[name]
        await self._machine.waits.takes(LOAD_SECONDS)
        if module.leaves is not None:
            module.leaves(self._machine, name)
        if driver is not None:
            await self._machine.pci.unregister(driver)
        del self.loaded[name]
        self._machine.tree.remove(f"/sys/module/{name}")
        for needed in module.needs:
            self._machine.tree.remove(f"/sys/module/{needed}/holders/{name}")
        self._machine.uevents.emit("remove", f"/sys/module/{name}", "module")
        self._machine.waits.wake()

    def _turn(self, name: str) -> asyncio.Lock:
        """Whoever loads a module that comes or goes just then waits; whoever removes one is told that it is busy."""
        return self._turns.setdefault(name, asyncio.Lock())

    def _file_of(self, name: str) -> str:
        """Return the file, without its ending, that modprobe looks for when it is asked for a name or an alias."""
        if ":" in name:
            return self._aliased(name)
        name = name.replace("-", "_")
        said = self._machine.tree.find(INSTALLS)
        lines = said.read().splitlines() if isinstance(said, Attribute) and said.read else ()
        pairs = [found.groups() for found in map(_INSTALL.fullmatch, lines) if found]
        return next((file.replace("-", "_") for asked, file in pairs if asked.replace("-", "_") == name), name)

    def _aliased(self, alias: str) -> str:
        """Return the file that has a device's alias; where NVIDIA's own is installed nouveau is blacklisted."""
        for device in self._machine.pci.devices.values():
            if device.alias == alias:
                for name, module in self.available.items():
                    spurned = name == "nouveau" and "nvidia" in self.available
                    if module.driver is not None and not spurned and module.driver(self._machine).matches(device):
                        return _stem(module.file)
        return alias

    def _users(self, name: str) -> list[str]:
        return [other for other in reversed(self.loaded) if name in self.available[other].needs]

    def _show(self, module: Module) -> None:
        tree, base = self._machine.tree, f"/sys/module/{module.name}"
        tree.text(f"{base}/refcnt", lambda: f"{self.references(module.name)}\n")
        tree.text(f"{base}/initstate", "live\n")
        tree.directory(f"{base}/holders")
        if module.version:
            tree.text(f"{base}/version", f"{module.version}\n")
        for parameter, value in module.parameters:
            tree.text(f"{base}/parameters/{parameter}", f"{value}\n")
        for needed in module.needs:
            if needed in self.loaded:
                tree.link(f"/sys/module/{needed}/holders/{module.name}", base)

    def _list(self) -> str:
        """/proc/modules: the newest first."""
        lines = []
        for name in reversed(self.loaded):
            users = "".join(f"{user}," for user in self._users(name)) or "-"
            lines.append(f"{name} 65536 {self.references(name)} {users} Live 0x0000000000000000\n")
        return "".join(lines)

    def _dependencies(self) -> str:
        """modules.dep: file, then the files of everything it needs, deepest last."""
        lines = []
        for module in self.available.values():
            if not module.builtin:
                needed = " ".join(self.available[name].file for name in self._closure(module))
                lines.append(f"{module.file}: {needed}".rstrip() + "\n")
        return "".join(lines)

    def _closure(self, module: Module) -> list[str]:
        found: list[str] = []
        for name in module.needs:
            if not self.available[name].builtin:
                found += [one for one in (name, *self._closure(self.available[name])) if one not in found]
        return found


def _stem(file: str) -> str:
    """Return what modprobe calls the module in a file."""
    return file.rpartition("/")[2].removesuffix(".ko").replace("-", "_")
