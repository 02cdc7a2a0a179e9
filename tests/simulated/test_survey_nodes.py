"""Through which nodes a card can be held: below its connectors, its capabilities, dma-bufs; and whose they are."""

from __future__ import annotations

from gpuhandoff.model.world import Gpu
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu, single_amd, single_nvidia, twin
from gpuhandoff.simulation.tree import Node
from gpuhandoff.survey import survey

GPU = "0000:01:00.0"


async def gpus(machine: SimulatedMachine) -> dict[str, Gpu]:
    """Return the GPUs as the survey sees them."""
    broker = LoopbackBroker()
    await machine.serve(broker)
    return {str(gpu.address): gpu for gpu in (await survey(simulated_host(machine, broker.connect()))).gpus}


@in_virtual_time
async def test_channels_below_a_connector() -> None:
    machine = await single_amd()
    device = machine.pci.at(GPU)
    connector = f"{device.path}/drm/card0/card0-DP-1"
    machine.tree.text(f"{connector}/i2c-9/name", "AMDGPU DM aux hw bus 0\n")
    machine.tree.text(f"{connector}/drm_dp_aux0/dev", "236:0\n")
    machine.tree.link("/sys/class/drm/card0", f"{device.path}/drm/card0")
    machine.processes.spawn("ddcutil", uid=1000).nodes.append(Node("/dev/i2c-9", 89 << 8 | 9, "amdgpu", device.path))
    found = (await gpus(machine))[GPU]
    assert {"/dev/i2c-9", "/dev/drm_dp_aux0", "/dev/kfd"} <= set(found.nodes)
    assert "ddcutil" in {holder.process.name for holder in found.holders}


@in_virtual_time
async def test_capabilities_of_nvidias_driver_are_a_cards_where_it_is_the_only_one() -> None:
    node = Node("/dev/nvidia-caps/nvidia-cap1", 240 << 8 | 1, "nvidia")
    for build, counts in ((single_nvidia, True), (twin, False)):
        machine = await build()
        machine.tree.add(node.path, node)
        assert (node.path in (await gpus(machine))[GPU].nodes) is counts


@in_virtual_time
async def test_a_dma_buf_without_any_other_descriptor() -> None:
    machine = await single_nvidia()
    device = machine.pci.at(GPU)
    machine.processes.spawn("gst-launch", uid=1000).nodes.append(Node("dmabuf:drm", 0, "nvidia_drm", device.path))
    found = (await gpus(machine))[GPU]
    assert "gst-launch" in {holder.process.name for holder in found.holders}


@in_virtual_time
async def test_a_dma_buf_of_nobody_knows_which_card_is_nobodys() -> None:
    machine = await igpu_dgpu()
    machine.processes.spawn("gst-launch", uid=1000).nodes.append(Node("dmabuf:drm", 0))
    machine.processes.spawn("vainfo", uid=1000).nodes.append(Node("dmabuf:i915", 0))
    found = await gpus(machine)
    held = {address: {holder.process.name for holder in gpu.holders} for address, gpu in found.items()}
    assert "gst-launch" not in held[GPU] | held["0000:00:02.0"]
    assert "vainfo" in held["0000:00:02.0"] - held[GPU]


@in_virtual_time
async def test_a_handoff_waits_for_a_dma_buf_as_for_a_descriptor() -> None:
    machine = await single_nvidia()
    node = Node("dmabuf:drm", 0, "nvidia_drm", machine.pci.at(GPU).path)
    machine.processes.spawn("gst-launch", uid=1000).nodes.append(node)
    holder = next(one for one in (await gpus(machine))[GPU].holders if one.process.name == "gst-launch")
    assert holder.nodes == ("dmabuf:drm",)
