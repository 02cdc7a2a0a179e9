"""What others did to a machine is put in order: it is not gpuhandoff's to undo."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU
from tests.support.product import Product

FUNCTIONS = (GPU, SECOND_GPU, "0000:01:00.1", "0000:02:00.1")
MODULES = ("vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio", "irqbypass")
_NUMBER = re.compile(
    r"(?<=card)\d+|(?<=renderD)\d+|(?<=nvidia)\d+|(?<=controlC)\d+|(?<=pcmC)\d+|(?<=hwC)\d+|(?<=i2c-)\d+|^\d+"
)


async def tidy(product: Product, first: dict[str, Any], gpu: str) -> None:
    """Undo what others did to a card that nobody has lent."""
    machine = product.machine
    if f"{gpu}.journal" in product.journals():
        return
    for function in FUNCTIONS:
        if function.rpartition(".")[0] != gpu.rpartition(".")[0]:
            continue
        device, was = machine.pci.at(function), first["functions"][function]
        if device.override != was["override"]:
            await machine.kernel.write(override(function), f"{was['override']}\n")
        if device.driver is not None and device.driver.name == "vfio-pci":
            await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", function)
        if device.driver is None:
            await machine.kernel.write("/sys/bus/pci/drivers_probe", function)
        for attribute, value in (("power/control", was["control"]), ("d3cold_allowed", str(int(was["d3cold_allowed"])))):
            await machine.kernel.write(f"/sys/bus/pci/devices/{function}/{attribute}", value)
    await asyncio.sleep(1)


async def tidy_modules(machine: SimulatedMachine, first: dict[str, Any]) -> None:
    """Remove the modules that somebody's own moves have left."""
    for name in MODULES:
        if name not in first["modules"]:
            with contextlib.suppress(OSError):
                await machine.kernel.remove_module(name)


def override(function: str) -> str:
    """Return the path of a function's driver override."""
    return f"/sys/bus/pci/devices/{function}/driver_override"


def unnumbered(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Leave out the numbers that the kernel gives two cards in the order in which they come back."""
    numbered = {name: snapshot[name] for name in ("connectors", "nodes", "framebuffers", "consoles", "processes")}
    return {
        **snapshot,
        **{name: sorted(_NUMBER.sub("N", str(one)) for one in _items(seen)) for name, seen in numbered.items()},
    }


def _items(seen: Any) -> list[Any]:
    return list(seen.items()) if isinstance(seen, dict) else str(seen).splitlines() if isinstance(seen, str) else seen
