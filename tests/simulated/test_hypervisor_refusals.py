"""Guests that do not get a GPU: refused before anything moves, with the reason and what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import in_virtual_time
from tests.support.domains import CARD, domain_xml
from tests.support.hypervisor_events import ALLOWED, GPU, OTHER, ended, event, moves, product, refused, state, unchanged


@in_virtual_time
async def test_without_consent_it_is_said_what_to_write_where(tmp_path: Path) -> None:
    one = await product(tmp_path, configuration=Configuration())
    before = one.machine.snapshot()
    said = await refused(one)
    assert said.startswith(f"{GPU} (NVIDIA AD104 [GeForce RTX 4070]) shows the desktop: ")
    assert said.endswith(
        'Save your work, then allow it with stop-display = true in the section [vm."win11"] of '
        "/etc/gpuhandoff/gpuhandoff.toml and `systemctl reload gpuhandoffd`."
    )
    await ended(one)
    unchanged(one, before)
    assert moves(one) == ["failed"]
    one.configuration = ALLOWED
    assert one.daemon is not None
    one.daemon.reload()
    await event(one, "prepare")
    await one.stop()


@in_virtual_time
async def test_consent_may_also_stand_with_the_gpu(tmp_path: Path) -> None:
    one = await product(tmp_path, configuration=Configuration(gpus={PciAddress.parse(GPU): {"stop_display": True}}))
    await event(one, "prepare")
    assert await state(one) == "detached"
    await one.stop()


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (domain_xml(CARD[:1]), "the domain lacks 0000:01:00.1"),
        (domain_xml(CARD[1:]), "the domain lacks 0000:01:00.0"),
        (domain_xml(pins=("400",)), "pinned to CPU 400"),
        (domain_xml(memory=1 << 40), "this machine has"),
        (domain_xml(roms={CARD[0]: "<rom bar='on'/>", CARD[1]: "<rom bar='off'/>"}), "hides that of 0000:01:00.1"),
        (domain_xml(pages="<hugepages><page size='1' unit='GiB'/></hugepages>"), "huge pages of 1048576 KiB"),
        ("<domain>", "is no XML"),
        ("<!DOCTYPE domain><domain/>", "document type"),
    ],
)
def test_refused_before_anything_moves(xml: str, why: str, tmp_path: Path) -> None:
    @in_virtual_time
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        assert why in await refused(one, xml=xml)
        assert [signal.member for signal in one.signals] == []
        await event(one, "release", xml)
        unchanged(one, before)
        await one.stop()

    main()


@in_virtual_time
async def test_who_was_refused_is_in_history(tmp_path: Path) -> None:
    one = await product(tmp_path)
    why = await refused(one, xml=domain_xml(CARD[:1]))
    assert await refused(one, xml=domain_xml(CARD[:1])) == why
    await event(one, "prepare")
    lent = await refused(one, guest="win10")
    await ended(one)
    history = [{key: told.value for key, told in move.items()} for move in await one.call("History", "su", GPU, 0)]
    assert [(move["vm"], move["operation"], move["outcome"]) for move in history] == [
        ("", "reclaim", "done"),
        ("win10", "handoff", "refused"),
        ("win11", "handoff", "done"),
        ("win11", "handoff", "refused"),  # the second one was the same
    ]
    assert (history[1]["message"], history[3]["message"]) == (lent, why)
    await one.stop()


@in_virtual_time
async def test_a_group_that_is_not_viable(tmp_path: Path) -> None:
    one = await product(tmp_path, "shared-group")
    before = one.machine.snapshot()
    assert "shares its IOMMU group 14 with 0000:04:00.0" in await refused(one)
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_two_gpus_in_one_domain(tmp_path: Path) -> None:
    one = await product(tmp_path, "twin")
    before = one.machine.snapshot()
    both = domain_xml((*CARD, OTHER, "0000:02:00.1"))
    assert "lends one GPU to a guest" in await refused(one, xml=both)
    await ended(one, xml=both)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_the_second_guest_is_refused_by_name_and_its_end_changes_nothing(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await event(one, "prepare")
    expected = f"{GPU} (NVIDIA AD104 [GeForce RTX 4070]) is lent to win11. Shut that guest down first."
    assert await refused(one, guest="win10") == expected
    await ended(one, "win10")
    assert await state(one) == "detached"
    one.machine.start_guest(GPU)
    await event(one, "started")
    assert await refused(one, guest="win10") == expected
    await ended(one, "win10")
    assert await state(one) == "guest"
    await one.stop()


@in_virtual_time
async def test_two_guests_at_once(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    first = asyncio.create_task(event(one, "prepare"))
    await asyncio.sleep(0.1)
    assert await state(one) == "handing-off"
    assert await refused(one, guest="win10") == f"{GPU} is being lent to win11. Shut that guest down first."
    await first
    assert (await one.status(GPU))["vm"] == "win11"
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_what_cannot_be_moved_or_saved(tmp_path: Path) -> None:
    one = await product(tmp_path)
    for operation in ("migrate", "restore"):
        assert "can be neither saved nor moved" in await refused(one, operation)
    assert "is none of attach, migrate, prepare" in await refused(one, "begin")
    for name in ("", "x" * 256, "a\nb"):
        assert "guest: a name" in await refused(one, guest=name)
    await one.stop()
