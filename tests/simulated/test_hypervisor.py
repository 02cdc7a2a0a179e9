"""What a hypervisor's events do: the GPU is lent before the guest starts and back when it has ended, whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.host import roms
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.model.request import HolderPolicy, Hugepages
from gpuhandoff.service.hypervisor import GUEST_TIMEOUT
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.domains import CARD, domain_xml
from tests.support.product import FOREVER, Product
from tests.support.roms import image

GPU = "0000:01:00.0"
OTHER = "0000:02:00.0"
ALLOWED = Configuration(vms={"win11": {"stop_display": True}, "win10": {"stop_display": True}})


async def product(directory: Path, scenario: str = "single-nvidia", configuration: Configuration = ALLOWED) -> Product:
    return await Product(
        await SCENARIOS[scenario](), directory, configuration, hook_patterns=directory.with_name("patterns")
    ).start()


async def event(
    one: Product, operation: str, xml: str | None = None, guest: str = "win11", caller: LoopbackBus | None = None
) -> None:
    """Do what the hook does: come as root, call, leave."""
    hook = caller or one.broker.connect(uid=0)
    body = (guest, operation, "begin", "-", domain_xml(name=guest) if xml is None else xml)
    try:
        await hook.call(
            names.BUS_NAME, names.MANAGER_PATH, names.HYPERVISOR_INTERFACE, "Event", "sssss", body, timeout=FOREVER
        )
    finally:
        await hook.close()


async def refused(one: Product, operation: str = "prepare", xml: str | None = None, guest: str = "win11") -> str:
    with pytest.raises(RemoteError) as caught:
        await event(one, operation, xml, guest)
    assert "\n" not in caught.value.message
    return caught.value.message


async def state(one: Product, gpu: str = GPU) -> str:
    return str((await one.status(gpu))["state"])


async def ended(one: Product, guest: str = "win11", xml: str | None = None) -> None:
    """Do what libvirt does when a guest has ended or failed to start."""
    await event(one, "stopped", xml, guest)
    await event(one, "release", xml, guest)


def moves(one: Product) -> list[str]:
    return [signal.body[1] for signal in one.signals if signal.member == "JobRemoved"]


def unchanged(one: Product, before: dict[str, Any]) -> None:
    assert differences(before, one.machine.snapshot()) == []
    assert one.journals() == []


@in_virtual_time
async def test_from_prepare_to_release(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    status = await one.status(GPU)
    assert (status["state"], status["vm"]) == ("detached", "win11")
    await event(one, "start")
    one.machine.start_guest(GPU)
    await event(one, "started")
    assert await state(one) == "guest"
    await asyncio.sleep(10_000)
    assert await state(one) == "guest"
    one.machine.stop_guest(GPU)
    await ended(one)
    assert await state(one) == "host"
    unchanged(one, before)
    assert moves(one) == ["done", "done"]  # once there, once back, although two events tell of the end
    await asyncio.sleep(1000)
    assert moves(one) == ["done", "done"]
    await one.stop()


@in_virtual_time
async def test_ten_cycles(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    for _ in range(10):
        await event(one, "prepare")
        one.machine.start_guest(GPU)
        await event(one, "started")
        one.machine.stop_guest(GPU)
        await ended(one)
        unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_domain_without_a_gpu_moves_nothing(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    for operation in ("prepare", "start", "started", "stopped", "release", "reconnect", "migrate", "restore", "attach"):
        await event(one, operation, domain_xml(()))
        await event(one, operation, domain_xml(("0000:04:00.0",)))
    assert one.signals == []
    unchanged(one, before)
    await one.stop()


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
async def test_each_of_two_gpus_to_a_guest_of_its_own(tmp_path: Path) -> None:
    one = await product(tmp_path, "twin")
    before = one.machine.snapshot()
    second = domain_xml((OTHER, "0000:02:00.1"), name="win10")
    await event(one, "prepare")
    await event(one, "prepare", second, "win10")
    assert (await state(one), await state(one, OTHER)) == ("detached", "detached")
    await ended(one)
    assert (await state(one), await state(one, OTHER)) == ("host", "detached")
    await ended(one, "win10", second)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_guest_that_fails_to_start_brings_the_gpu_back(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_so_does_one_of_whose_end_nobody_tells(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await asyncio.sleep(GUEST_TIMEOUT - 5)
    assert await state(one) == "detached"
    await asyncio.sleep(30)
    unchanged(one, before)
    await event(one, "release")
    assert moves(one) == ["done", "done"]
    await one.stop()


@in_virtual_time
async def test_the_configuration_may_say_how_long(tmp_path: Path) -> None:
    one = await product(tmp_path, configuration=Configuration(vms={"win11": {"stop_display": True, "guest_timeout": 20}}))
    await event(one, "prepare")
    await asyncio.sleep(40)
    assert await state(one) == "host"
    await one.stop()


@pytest.mark.parametrize("probed", [True, False])
def test_managed_by_libvirt_ends_in_the_same_place(probed: bool, tmp_path: Path) -> None:
    """libvirt finds the functions on vfio-pci and leaves them; at the end it may have given them back already."""

    @in_virtual_time
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        xml = domain_xml(managed="yes")
        await event(one, "prepare", xml)
        one.machine.start_guest(GPU)
        await event(one, "started", xml)
        one.machine.stop_guest(GPU)
        await event(one, "stopped", xml)
        kernel = one.machine.kernel
        for address in CARD:
            device = f"/sys/bus/pci/devices/{address}"
            await kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", address)
            await kernel.write(f"{device}/driver_override", "\n")
            if probed:
                await kernel.write("/sys/bus/pci/drivers_probe", address)
        await event(one, "release", xml)
        assert await state(one) == "host"
        unchanged(one, before)
        await one.stop()

    main()


@in_virtual_time
async def test_managed_and_nobody_told_of_the_end(tmp_path: Path) -> None:
    """The next prepare finds a journal of a handoff that libvirt has half undone."""
    one = await product(tmp_path, configuration=Configuration(HostSettings(reclaim_grace=3600), vms=ALLOWED.vms))
    before = one.machine.snapshot()
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    for address in CARD:
        await one.machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", address)
    await event(one, "prepare")
    assert await state(one) == "detached"
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_card_that_is_lent_to_this_guest_already_stays(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, vm=Variant("s", "win11"))
    await event(one, "prepare")
    assert moves(one) == ["done"]
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_card_that_is_lent_to_nobody_in_particular_stays_as_well(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    await ended(one)
    assert await state(one) == "detached"  # not lent to this guest by us: whoever did so, or the daemon, takes it back
    await asyncio.sleep(30)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_guest_that_starts_again_at_once_is_not_overtaken_by_the_grace_of_the_last(tmp_path: Path) -> None:
    """The last end was told by nobody; ten seconds after it the daemon would take the card back."""
    one = await product(tmp_path)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    await asyncio.sleep(9)
    await event(one, "prepare")
    await asyncio.sleep(60)  # QEMU is slow to come
    assert await state(one) == "detached"
    one.machine.start_guest(GPU)
    await event(one, "started")
    await asyncio.sleep(1000)
    assert await state(one) == "guest"
    assert moves(one) == ["done"]
    await one.stop()


@in_virtual_time
async def test_and_is_missed_when_it_does_not_come(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await asyncio.sleep(200)
    await event(one, "prepare")
    await asyncio.sleep(GUEST_TIMEOUT - 100)
    assert await state(one) == "detached"
    await asyncio.sleep(200)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_start_during_the_way_back_waits_for_it(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    back = asyncio.create_task(event(one, "release"))
    await asyncio.sleep(0.1)
    assert await state(one) == "reclaiming"
    await event(one, "prepare")
    await back
    assert await state(one) == "detached"
    await ended(one)
    unchanged(one, before)
    assert moves(one) == ["done"] * 4
    await one.stop()


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.5, 1.0, 2.0, 4.0])
def test_who_leaves_during_prepare_cancels_it(moment: float, tmp_path: Path) -> None:
    @in_virtual_time
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        hook = one.broker.connect(uid=0)
        preparing = asyncio.create_task(event(one, "prepare", caller=hook))
        await asyncio.sleep(moment)
        finished = preparing.done()
        await hook.close()
        await asyncio.sleep(1)
        await one.idle()
        await asyncio.gather(preparing, return_exceptions=True)
        if finished:
            await ended(one)
        unchanged(one, before)
        assert set(moves(one)) <= ({"done"} if finished else {"cancelled"})
        await one.stop()

    main()


@in_virtual_time
async def test_who_leaves_when_it_is_too_late_to_cancel_leaves_no_gpu_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    monkeypatch.setattr(one.jobs, "cancel", lambda job: None)
    hook = one.broker.connect(uid=0)
    preparing = asyncio.create_task(event(one, "prepare", caller=hook))
    await asyncio.sleep(0.5)
    await hook.close()
    await asyncio.gather(preparing, return_exceptions=True)
    await asyncio.sleep(100)
    unchanged(one, before)
    assert moves(one) == ["done", "done"]
    await one.stop()


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
async def test_a_daemon_that_is_killed_meanwhile_knows_whose_the_gpu_is(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.kill()
    await one.start_daemon()
    await event(one, "reconnect")
    assert (await one.status(GPU))["vm"] == "win11"
    assert await state(one) == "guest"
    assert "is lent to win11" in await refused(one, guest="win10")
    one.machine.stop_guest(GPU)
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_running_guest_is_never_torn_from_its_gpu(tmp_path: Path) -> None:
    """An event that is out of turn, or somebody's mistake."""
    one = await product(tmp_path)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    assert "qemu-system-x86" in await refused(one, "release")
    assert "qemu-system-x86" in await refused(one)
    assert await state(one) == "guest"
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
