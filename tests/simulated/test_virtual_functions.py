"""Graphics that are shared out as virtual functions (SR-IOV): those are no cards of ours, and the card stays."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.plan.display import drives_display
from gpuhandoff.plan.layout import LayoutKind, layout_of
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.replay import replay
from gpuhandoff.simulation.scenarios import INTEL_GPU, KERNEL, assemble, boot
from gpuhandoff.simulation.sessions import Login
from gpuhandoff.simulation.snapshot import differences
from tests.support.domains import domain_xml
from tests.support.hypervisor_events import ALLOWED, ended, event, moves, unchanged
from tests.support.product import Product

FIRST = "0000:00:02.1"
COUNT = 7
NUMBER = f"/sys/bus/pci/devices/{INTEL_GPU}/sriov_numvfs"


async def shared_out() -> SimulatedMachine:
    """Intel graphics that show alice's desktop, and seven virtual functions, on which the host's driver is as well."""
    graphics = hardware.intel_graphics()
    machine = assemble((graphics, *hardware.virtual_functions(graphics, COUNT)), KERNEL)
    return await boot(machine, ("i915",), (Login("alice", 1000, "kwin_wayland", (INTEL_GPU,)),), persistence=False)


async def product(directory: Path, machine: SimulatedMachine | None = None) -> Product:
    patterns = directory / "patterns"
    return await Product(machine or await shared_out(), directory / "run", ALLOWED, hook_patterns=patterns).start()


async def refused(one: Product, gpu: str) -> tuple[str, str]:
    with pytest.raises(RemoteError) as caught:
        await one.call("Handoff", "sa{sv}", gpu, {"stop-display": Variant("b", True)})
    return caught.value.name.rpartition(".")[2], caught.value.message


@in_virtual_time
async def test_the_card_is_the_only_gpu_and_has_none_of_its_virtual_functions(tmp_path: Path) -> None:
    one = await product(tmp_path)
    assert one.daemon is not None
    world = one.daemon.fleet.world
    (gpu,) = world.gpus
    assert [str(function.address) for function in gpu.functions] == [INTEL_GPU]
    assert [str(address) for address in gpu.virtual_functions] == [f"0000:00:02.{place}" for place in range(1, 8)]
    assert world.gpu(PciAddress.parse(FIRST)) is None
    assert layout_of(world).kind is LayoutKind.SINGLE
    assert drives_display(world, gpu)
    await one.stop()


@pytest.mark.parametrize("managed", ["yes", "no"])
@in_virtual_time
async def test_a_guest_with_a_virtual_function_is_none_of_ours(managed: str, tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    assert "function='0x0'" in (tmp_path / "patterns").read_text()
    assert "function='0x1'" not in (tmp_path / "patterns").read_text()
    xml = domain_xml((FIRST,), managed=managed)
    for operation in ("prepare", "start", "started", "migrate"):
        await event(one, operation, xml)
    await ended(one, xml=xml)
    unchanged(one, before)
    assert moves(one) == []
    await one.stop()


@in_virtual_time
async def test_the_card_is_refused_with_the_desktop_as_it_is_until_they_are_removed(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    name, message = await refused(one, INTEL_GPU)
    assert name == "Unsupported"
    assert FIRST in message
    assert f"`echo 0 | sudo tee {NUMBER}`" in message
    assert differences(before, one.machine.snapshot()) == []
    (found,) = [told for told in await findings(one) if told["check"] == "sharing"]
    assert NUMBER in found["remedy"]
    await one.machine.kernel.write(NUMBER, "0")
    assert one.machine.kernel.read(NUMBER) == "0"
    sound = str(hardware.intel_audio().address)  # which holds the driver's module, and is another matter
    await one.machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", sound)
    plan = await one.call("Plan", "ssa{sv}", INTEL_GPU, "handoff", {"stop-display": Variant("b", True)})
    assert "bind-vfio" in [step for step, *_ in plan]
    await one.stop()


async def findings(one: Product) -> list[dict[str, Any]]:
    return [{key: told.value for key, told in finding.items()} for finding in await one.call("Diagnose")]


@in_virtual_time
async def test_a_virtual_function_is_not_taken_for_its_card(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    name, message = await refused(one, FIRST)
    assert name == "NotFound"
    assert f"{FIRST} is a virtual function (SR-IOV) of {INTEL_GPU}" in message
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_vfio_takes_no_card_that_has_virtual_functions() -> None:
    machine = await shared_out()
    await machine.kernel.load_module("vfio_pci")
    for address in (FIRST, INTEL_GPU):
        await machine.kernel.write(f"/sys/bus/pci/devices/{address}/driver_override", "vfio-pci")
        await machine.kernel.write("/sys/bus/pci/drivers/i915/unbind", address)
    await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/bind", FIRST)
    with pytest.raises(OSError, match="busy") as caught:
        await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/bind", INTEL_GPU)
    assert caught.value.errno == errno.EBUSY
    assert machine.kernel.link(f"/sys/bus/pci/devices/{FIRST}/driver") == "vfio-pci"


@in_virtual_time
async def test_they_are_in_a_report_and_in_its_replay(tmp_path: Path) -> None:
    one = await product(tmp_path)
    report = json.loads(await one.call("Report", "a{sv}", {}))
    await one.stop()
    again = await product(tmp_path / "again", await replay(report))
    assert (await refused(again, INTEL_GPU))[0] == "Unsupported"
    assert FIRST in again.machine.pci.devices
    await again.stop()
