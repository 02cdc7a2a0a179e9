"""What a domain's definition and the configuration say a guest needs, and what the hook is told of the GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration
from gpuhandoff.host import roms
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.model.request import HolderPolicy, Hugepages
from gpuhandoff.simulation.clock import in_virtual_time
from tests.support.domains import CARD, domain_xml
from tests.support.hypervisor_events import GPU, OTHER, ended, event, product, refused, state, unchanged
from tests.support.product import FOREVER, Product
from tests.support.roms import image


@in_virtual_time
async def test_needs_of_the_domain_become_steps(tmp_path: Path) -> None:
    one = await product(tmp_path, "igpu-dgpu")
    before = one.machine.snapshot()
    assert one.daemon is not None
    online = one.daemon.fleet.world.online_cpus
    xml = domain_xml(pins=("2", "3"), memory=512 << 10, pages="<hugepages/>")
    await event(one, "prepare", xml)
    steps = arguments(one)
    assert steps["confine-host"]["cpus"] == format_cpus(online - {2, 3})
    assert steps["back-guest-memory"] == {"kind": "static", "bytes": 512 << 20, "size_kib": 2048}
    await ended(one, xml=xml)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_the_configuration_of_the_guest_has_the_last_word(tmp_path: Path) -> None:
    own = {
        "cpus": frozenset({0}),
        "memory": 256 << 20,
        "hugepages": Hugepages.TRANSPARENT,
        "holders": HolderPolicy.TERMINATE,
    }
    defaults = {"cpus": frozenset({1}), "memory": 128 << 20}
    one = await product(tmp_path, "igpu-dgpu", Configuration(defaults=defaults, vms={"win11": own}))
    xml = domain_xml(pins=("2", "3"), memory=512 << 10, pages="<hugepages/>")
    await event(one, "prepare", xml)
    steps = arguments(one)
    assert steps["confine-host"]["cpus"] == "0"
    assert (steps["back-guest-memory"]["kind"], steps["back-guest-memory"]["bytes"]) == ("transparent", 256 << 20)
    await ended(one, xml=xml)
    await event(one, "prepare", domain_xml(name="linux", pins=("2", "3")), "linux")
    assert arguments(one)["confine-host"]["cpus"] != "1"  # the domain says more than the defaults
    await one.stop()


@in_virtual_time
async def test_in_parts(tmp_path: Path) -> None:
    one = await product(tmp_path)
    text = domain_xml(padding=400_000)
    parts = [text[place : place + 1000] for place in range(0, len(text), 1000)]
    hook = one.broker.connect(uid=0)
    await hook.call(
        names.BUS_NAME, names.MANAGER_PATH, names.HYPERVISOR_INTERFACE, "EventInParts", "ssssas",
        ("win11", "prepare", "begin", "-", parts), timeout=FOREVER,
    )  # fmt: skip
    assert await state(one) == "detached"
    await one.stop()


@in_virtual_time
async def test_the_hook_learns_of_the_gpus(tmp_path: Path) -> None:
    one = await product(tmp_path / "run", "twin")
    file = tmp_path / "patterns"
    lines = file.read_text().splitlines()
    assert [line for line in lines if line in domain_xml()]
    assert [line for line in lines if line in domain_xml((OTHER,))]
    assert not [line for line in lines if line in domain_xml(("0000:04:00.0",))]
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.stat().st_ino
    await one.handoff(GPU)
    await one.reclaim(GPU)
    assert file.stat().st_ino == first  # not written again without need
    await one.stop()
    assert file.exists()  # the hook's call starts the daemon again
    assert not file.with_name("patterns.new").exists()


def arguments(one: Product) -> dict[str, Any]:
    assert one.daemon is not None
    record = one.daemon._journals.record(PciAddress.parse(GPU))
    assert record is not None
    return {entry.name: entry.arguments for entry in record.entries}


@in_virtual_time
async def test_a_rom_file_that_is_not_this_cards_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roms, "HIDDEN", (f"{tmp_path}/home",))
    one = await product(tmp_path / "run")
    rom = tmp_path / "card.rom"

    def domain(shown: str = "") -> str:
        return domain_xml(roms={CARD[0]: f"<rom {shown} file='{rom}'/>", CARD[1]: f"<rom {shown}/>"})

    assert "card.rom of 0000:01:00.0 is not there" in await refused(one, xml=domain())
    rom.write_bytes(b"<html>Not found</html>")
    assert "is no ROM for 0000:01:00.0: it does not begin with 55 aa" in await refused(one, xml=domain())
    rom.write_bytes(image(0x1002, 0x73BF))
    assert "that of another card: 1002:73bf" in await refused(one, xml=domain())
    assert await state(one) == "host"
    rom.write_bytes(image(0x10DE, 0x2786))
    await event(one, "prepare", domain())
    assert await state(one) == "detached"
    await one.stop()


@in_virtual_time
async def test_a_rom_file_where_the_daemon_does_not_see_it_is_left_to_libvirt(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await event(one, "prepare", domain_xml(roms={CARD[0]: "<rom file='/home/somebody/card.rom'/>"}))
    assert await state(one) == "detached"
    await one.stop()
