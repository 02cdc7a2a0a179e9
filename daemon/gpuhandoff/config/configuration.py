"""The configuration as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpuhandoff.config import values
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Options


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The table [host]."""

    gpu_services: tuple[str, ...] = ("nvidia-persistenced.service", "nvidia-powerd.service")
    """Units that keep a GPU open or set it up, stopped before its driver goes and started after it is back."""
    consoles: str = "auto"
    """Text consoles on the GPU: detached when in use (auto), or left to the kernel (leave)."""
    holder_grace: int = 10
    """Seconds that processes get to let go of the GPU."""
    quiet_units: tuple[str, ...] = ()
    quiet_processes: tuple[str, ...] = ()
    confine_interrupts: bool = False
    confine_workqueues: bool = False
    guest_governor: str = ""
    inhibit_delay: int = 5
    """Seconds that delay inhibitors can hold a handoff off."""
    session_delay: int = 60
    """Seconds that a desktop which is about to end has to ask its person and to end by itself; 0: it is not asked."""
    reclaim_grace: int = 10
    """Seconds after the end of a VMM in which somebody may reclaim the GPU or start another, before it is taken back."""


HOST_PARSERS: dict[str, values.Parser] = {
    "gpu-services": values.unit_names,
    "consoles": values.console_policy,
    "holder-grace": values.seconds,
    "quiet-units": values.unit_names,
    "quiet-processes": values.process_names,
    "confine-interrupts": values.truth,
    "confine-workqueues": values.truth,
    "guest-governor": values.governor,
    "inhibit-delay": values.seconds,
    "session-delay": values.seconds,
    "reclaim-grace": values.seconds,
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything the files say; options by the names of their fields."""

    host: HostSettings = field(default_factory=HostSettings)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    gpus: Mapping[PciAddress, Mapping[str, Any]] = field(default_factory=dict)
    vms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options_for(self, gpu: PciAddress | None, vm: str, needs: Mapping[str, Any] | None = None) -> Options:
        """Return the options of a move before the caller's own: defaults, then the GPU's, then the VM's.

        `needs`: what the virtual machine's own definition asks for, which only its own section overrules.
        """
        options = replace(Options(), **self.defaults)
        if gpu is not None:
            options = replace(options, **self.gpus.get(gpu, {}))
        return replace(options, **{**(needs or {}), **self.vms.get(vm, {})})
