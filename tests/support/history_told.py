"""A product that keeps its history, and what it tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpuhandoff.history.file import HistoryFile
from gpuhandoff.history.line import read
from gpuhandoff.history.move import Move
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import single_nvidia
from tests.support.product import Product

GPU = "0000:01:00.0"


BOOT = "/proc/sys/kernel/random/boot_id"


async def started(directory: Path, machine: SimulatedMachine | None = None) -> Product:
    """Return a product that keeps its history."""
    return await Product(machine or await single_nvidia(), directory / "run", state_directory=directory / "state").start()


async def history(product: Product, gpu: str = "", count: int = 0) -> list[dict[str, Any]]:
    """Return what History answers."""
    reply = await product.call("History", "su", gpu, count)
    return [{key: variant.value for key, variant in move.items()} for move in reply]


async def told(product: Product) -> list[tuple[str, str, str, str]]:
    """Return the most important of it, oldest first."""
    moves = reversed(await history(product))
    return [(move["operation"], move["why"], move["outcome"], move["back"]) for move in moves]


async def rebooted() -> SimulatedMachine:
    """Return the machine after a reboot."""
    machine = await single_nvidia()
    machine.tree.text(BOOT, "another boot\n")
    return machine


def kept(directory: Path) -> list[Move]:
    """Return the moves in the file."""
    found = [read(line) for line in HistoryFile(directory / "state").lines()]
    return [move for move in found if move is not None]
