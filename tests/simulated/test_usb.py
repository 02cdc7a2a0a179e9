"""What is plugged into a card's own USB port goes with it: it is named beforehand, and no disk that is used is cut off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import DiskUse, Usage, UsbDevice
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.disks import Disks
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.replay import replay
from gpuhandoff.simulation.scenarios import single_amd, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.usb import HUB, Plugged
from gpuhandoff.survey import survey
from tests.support.product import Product

GPU, USB = "0000:01:00.0", "0000:01:00.2"
STOP = {"stop-display": Variant("b", True)}
KEYBOARD = Plugged("K120 Keyboard", "Logitech", port="1.3")
DISK = Plugged("Extreme SSD", "SanDisk", port="1.4", disks=("sdb", "sdb1"))
BACKUP = "/media/alice/My Backup"


async def plugged() -> SimulatedMachine:
    """Return a Radeon with a keyboard and a disk in a hub at its USB port."""
    machine = await single_amd()
    machine.usb.plug(machine.pci.at(USB), HUB, KEYBOARD, DISK)
    return machine


async def attached(machine: SimulatedMachine) -> tuple[UsbDevice, ...]:
    """Return what the survey sees."""
    broker = LoopbackBroker()
    await machine.serve(broker)
    gpu = (await survey(simulated_host(machine, broker.connect()))).gpu(PciAddress.parse(GPU))
    assert gpu is not None
    return gpu.attached


@in_virtual_time
async def test_everything_behind_the_port_is_named_but_the_hubs() -> None:
    machine = await plugged()
    assert await attached(machine) == (UsbDevice("Logitech K120 Keyboard"), UsbDevice("SanDisk Extreme SSD"))
    assert await attached(await single_amd()) == ()
    assert await attached(await single_nvidia()) == ()


@in_virtual_time
async def test_names_where_the_device_has_none() -> None:
    machine = await single_amd()
    machine.usb.plug(machine.pci.at(USB), Plugged("558c", "0781"), Plugged("Sync\x1b[2J", port="2"), Plugged("", port="3"))
    (says,) = (
        name for name in machine.tree.names("/run/udev/data") if "0781" in machine.kernel.read(f"/run/udev/data/{name}")
    )
    ids = "E:ID_VENDOR_ID=0781\nE:ID_MODEL_ID=558c\nE:ID_VENDOR_FROM_DATABASE=SanDisk Corp.\n"
    machine.tree.text(f"/run/udev/data/{says}", f"E:ID_VENDOR_ENC=0781\nE:ID_MODEL_ENC=558c\n{ids}")
    assert [one.name for one in await attached(machine)] == [
        "SanDisk Corp. USB device 0781:558c", "Sync?[2J", "USB device 0781:558c",
    ]  # fmt: skip


@in_virtual_time
async def test_the_plan_says_what_is_disconnected_and_it_comes_back(tmp_path: Path) -> None:
    machine = await plugged()
    product = await Product(machine, tmp_path).start()
    before = machine.snapshot()
    assert before["usb"] == ["Logitech K120 Keyboard", "SanDisk Extreme SSD", "USB2.1 Hub"]
    preview = await product.call("Preview", "ssa{sv}", GPU, "handoff", STOP)
    costs = {one["step"].value: one["costs"].value for one in preview["steps"].value}
    assert costs["unload-driver"] == "disconnected: Logitech K120 Keyboard, SanDisk Extreme SSD"
    await product.handoff(GPU)
    assert machine.snapshot()["usb"] == []
    await product.reclaim(GPU)
    assert differences(before, machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_nothing_plugged_in_costs_nothing(tmp_path: Path) -> None:
    product = await Product(await single_amd(), tmp_path).start()
    preview = await product.call("Preview", "ssa{sv}", GPU, "handoff", STOP)
    assert [one["costs"].value for one in preview["steps"].value if one["step"].value == "unload-driver"] == [""]
    await product.stop()


@in_virtual_time
async def test_the_kernel_cuts_off_what_is_mounted() -> None:
    machine = await plugged()
    machine.disks.mount("sdb1", BACKUP)
    await machine.kernel.write("/sys/bus/pci/drivers/xhci_hcd/unbind", USB)
    assert machine.disks.lost == [f"sdb1 on {BACKUP}"]
    assert machine.snapshot()["lost"]


def _encrypt(disks: Disks) -> None:
    disks.map("sdb1", "dm-0", "luks-backup")


def _open(disks: Disks) -> None:
    _encrypt(disks)
    disks.mount("dm-0", BACKUP)


Does = Callable[[Disks], Any]
USES: list[tuple[Does, Usage, str, str]] = [
    (
        lambda disks: disks.mount("sdb1", BACKUP),
        Usage.MOUNTED,
        BACKUP,
        r"sdb1 is mounted on /media/alice/My Backup\. .*Unmount it",
    ),
    (lambda disks: disks.mount("sdb1", BACKUP, "btrfs"), Usage.MOUNTED, BACKUP, "sdb1 is mounted on /media/alice/My Backup"),
    (lambda disks: disks.swap("sdb1"), Usage.SWAP, "/dev/sdb1", r"sdb1 has the swap space /dev/sdb1\. .*swapoff /dev/sdb1"),
    (_open, Usage.MOUNTED, BACKUP, "sdb1 is mounted on /media/alice/My Backup"),
    (_encrypt, Usage.PART, "dm-0 (luks-backup)", r"sdb1 is a part of dm-0 \(luks-backup\)\. .*Stop or close that"),
]


@pytest.mark.parametrize(("does", "usage", "where", "said"), USES)
def test_a_disk_that_is_used_keeps_the_card(does: Does, usage: Usage, where: str, said: str, tmp_path: Path) -> None:
    async def main() -> None:
        machine = await plugged()
        does(machine.disks)
        assert (await attached(machine))[1].uses == (DiskUse("sdb1", usage, where),)
        product = await Product(machine, tmp_path).start()
        before = machine.snapshot()
        with pytest.raises(RemoteError, match=f"SanDisk Extreme SSD, which is plugged into it, is in use: {said}") as caught:
            await product.handoff(GPU)
        assert caught.value.name.endswith(".InUse")
        assert differences(before, machine.snapshot()) == []
        assert machine.disks.lost == []
        await product.stop()

    run(main())


@in_virtual_time
async def test_what_is_unmounted_keeps_nobody(tmp_path: Path) -> None:
    machine = await plugged()
    machine.disks.mount("sdb1", BACKUP)
    product = await Product(machine, tmp_path).start()
    with pytest.raises(RemoteError, match="plug it in elsewhere"):
        await product.handoff(GPU)
    machine.disks.unmount(BACKUP)
    await product.handoff(GPU)
    assert machine.disks.lost == []
    await product.reclaim(GPU)
    await product.stop()


@in_virtual_time
async def test_a_file_system_of_several_disks_names_one_of_them_only() -> None:
    machine = await plugged()
    machine.disks.mount("sdb1", BACKUP, "btrfs")
    machine.tree.text("/proc/1/mountinfo", "31 1 0:45 / /pool rw shared:1 - btrfs /dev/sdz rw\n")
    assert (await attached(machine))[1].uses == (DiskUse("sdb1", Usage.PART, "a btrfs file system (5f2a)"),)


@in_virtual_time
async def test_what_others_have_mounted_keeps_nobody() -> None:
    machine = await plugged()
    machine.tree.text("/sys/devices/pci0000:00/sda/dev", "8:0\n")
    machine.tree.link("/sys/class/block/sda", "/sys/devices/pci0000:00/sda")
    machine.disks.mount("sda", BACKUP)
    machine.tree.text("/proc/swaps", "Filename\nbroken\n\n/dev/sda partition 1 0 -2\n")
    assert [one.uses for one in await attached(machine)] == [(), ()]


@in_virtual_time
async def test_a_report_says_what_is_plugged_in(tmp_path: Path) -> None:
    product = await Product(await plugged(), tmp_path).start()
    report = json.loads(await product.call("Report", "a{sv}", {}))
    await product.stop()
    assert [one["name"] for one in report["machine"]["gpus"][0]["attached"]] == [
        "Logitech K120 Keyboard",
        "SanDisk Extreme SSD",
    ]
    again = await replay(report)
    assert [one.name for one in await attached(again)] == ["Logitech K120 Keyboard", "SanDisk Extreme SSD"]
