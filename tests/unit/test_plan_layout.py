"""What kind of machine it is: what shows the picture decides, not which slots are filled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Connector
from gpuhandoff.model.world import Console, Function, Gpu, Unit, World
from gpuhandoff.plan.layout import LayoutKind, is_integrated, layout_of, why_desktop_stays
from tests.support.worlds import ALICE, COMPOSITOR

SCREEN = (Connector("HDMI-A-1", connected=True),)
CONSOLE = (Console("vtcon1", "frame buffer device", bound=True),)
SDDM = Unit("sddm.service", "active")


def gpu(where: str, vendor: int, device: int, name: str) -> Gpu:
    address = PciAddress.parse(where)
    return Gpu(address, name, (Function(address, vendor, device, 0x030000, driver="a driver"),))


INTEL = gpu("00:02.0", 0x8086, 0x4680, "UHD Graphics 770")
RYZEN = gpu("0c:00.0", 0x1002, 0x164E, "Raphael")
NVIDIA = gpu("01:00.0", 0x10DE, 0x2786, "RTX 4070")
OTHER = gpu("02:00.0", 0x10DE, 0x2504, "RTX 3060")
ARC = gpu("03:00.0", 0x8086, 0x56A0, "Arc A770")


def world(*gpus: Gpu, desktop: bool = True) -> World:
    sessions = (ALICE,) if desktop else ()
    return World("b", "6.12", gpus, sessions=sessions, display_manager=SDDM if desktop else None)


def shown(one: Gpu) -> Gpu:
    return replace(one, holders=(COMPOSITOR,))


@pytest.mark.parametrize(
    ("machine", "kind", "words"),
    [
        (world(), LayoutKind.HEADLESS, "no GPU"),
        (world(NVIDIA, desktop=False), LayoutKind.HEADLESS, "No screen"),
        (world(shown(NVIDIA)), LayoutKind.SINGLE, "only GPU"),
        (world(replace(NVIDIA, connectors=SCREEN), desktop=False), LayoutKind.SINGLE, "only GPU"),
        (world(shown(INTEL), NVIDIA), LayoutKind.HYBRID, "0000:01:00.0 (RTX 4070) can be lent while the desktop goes on."),
        (world(NVIDIA, shown(RYZEN)), LayoutKind.HYBRID, "Raphael"),
        (world(INTEL, shown(NVIDIA)), LayoutKind.MULTI, "plugged into the mainboard"),
        (world(shown(NVIDIA), OTHER), LayoutKind.MULTI, "There are 2 GPUs"),
        (world(shown(ARC), NVIDIA), LayoutKind.MULTI, "There are 2 GPUs"),
        (world(replace(INTEL, consoles=CONSOLE), NVIDIA, desktop=False), LayoutKind.HYBRID, "UHD"),
        (world(replace(NVIDIA, connectors=SCREEN), OTHER, desktop=False), LayoutKind.MULTI, "RTX 4070"),
    ],
)
def test_the_layout(machine: World, kind: LayoutKind, words: str) -> None:
    found = layout_of(machine)
    assert found.kind is kind
    assert words in found.reason


def test_a_screen_on_another_card_does_not_count_while_a_desktop_is_seen() -> None:
    machine = world(shown(INTEL), replace(NVIDIA, connectors=SCREEN))
    assert layout_of(machine).kind is LayoutKind.HYBRID


def test_a_desktop_that_has_a_card_open_without_a_screen_on_it() -> None:
    card = shown(NVIDIA)
    machine = world(replace(shown(INTEL), connectors=SCREEN), card)
    found = layout_of(machine)
    assert found.kind is LayoutKind.HYBRID
    assert "could be lent while the desktop goes on, if that did not have it open" in found.reason
    assert why_desktop_stays(machine, card).startswith("It ends, as it has this card open, though its picture comes from")


def test_processor_graphics_are_told_from_cards() -> None:
    assert [is_integrated(one) for one in (INTEL, RYZEN, NVIDIA, ARC)] == [True, True, False, False]


def test_why_the_desktop_stays_or_ends() -> None:
    machine = world(shown(INTEL), NVIDIA)
    assert why_desktop_stays(machine, NVIDIA) == "It stays: it is on 0000:00:02.0 (UHD Graphics 770)."
    assert why_desktop_stays(machine, machine.gpus[0]) == "It ends: this card shows it to alice."
    assert why_desktop_stays(world(NVIDIA, INTEL, desktop=False), NVIDIA) == "There is none that could end."


def test_a_card_with_two_display_functions_is_named_by_either() -> None:
    both = [Function(PciAddress(0, 1, 0, place), 0x1002, 0x7187, 0x030000 + 0x8000 * place) for place in range(2)]
    first, second = (Gpu(one.address, "X1300", tuple(sorted(both, key=lambda each: each != one))) for one in both)
    found = world(first, second)
    assert [found.gpu(one.address) for one in both] == [first, second]
    assert found.gpu(PciAddress(0, 1, 0, 2)) is None
