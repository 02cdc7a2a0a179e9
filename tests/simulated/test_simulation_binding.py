"""The binding interfaces of sysfs, as kernel.md section 1 has them."""

import errno

import pytest

from gpuhandoff.host.door import Uevent
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, shared_group, single_amd

AUDIO = "0000:01:00.1"
DEVICE = f"/sys/bus/pci/devices/{GPU}"
OVERRIDE = f"{DEVICE}/driver_override"
PROBE = "/sys/bus/pci/drivers_probe"


def driver(name: str, verb: str) -> str:
    return f"/sys/bus/pci/drivers/{name}/{verb}"


async def free_gpu(machine: SimulatedMachine) -> None:
    """Take the idle NVIDIA card off its drivers."""
    for module in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"):
        await machine.kernel.remove_module(module)
    await machine.kernel.write(driver("snd_hda_intel", "unbind"), AUDIO)


@in_virtual_time
async def test_fact_2_an_unset_override_reads_null() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.read(OVERRIDE) == "(null)"


@in_virtual_time
@pytest.mark.parametrize("nothing", ["\n", "\0"])
async def test_fact_1_an_override_is_cleared_by_a_newline_and_never_by_nothing(nothing: str) -> None:
    machine = await igpu_dgpu()
    await machine.kernel.write(OVERRIDE, "vfio-pci")
    with pytest.raises(ValueError, match="empty write"):
        await machine.kernel.write(OVERRIDE, "")
    assert machine.kernel.read(OVERRIDE) == "vfio-pci"
    await machine.kernel.write(OVERRIDE, nothing)
    assert machine.kernel.read(OVERRIDE) == "(null)"


@in_virtual_time
async def test_an_override_neither_unbinds_nor_loads_and_survives_unbind_and_bind() -> None:
    machine = await igpu_dgpu()
    await machine.kernel.write(OVERRIDE, "vfio-pci")
    assert machine.kernel.link(f"{DEVICE}/driver") == "nvidia"
    await free_gpu(machine)
    await machine.kernel.load_module("vfio_pci")
    assert machine.kernel.link(f"{DEVICE}/driver") == "vfio-pci"
    await machine.kernel.write(driver("vfio-pci", "unbind"), GPU)
    await machine.kernel.write(driver("vfio-pci", "bind"), GPU)
    assert machine.kernel.read(OVERRIDE) == "vfio-pci"


@in_virtual_time
async def test_fact_4_drivers_probe_lies() -> None:
    machine = await igpu_dgpu()
    await free_gpu(machine)
    await machine.kernel.write(PROBE, GPU)
    await machine.kernel.write(OVERRIDE, "no-such-driver")
    await machine.kernel.write(PROBE, GPU)
    assert machine.kernel.link(f"{DEVICE}/driver") is None


@in_virtual_time
async def test_an_override_keeps_a_driver_away_whose_ids_match() -> None:
    machine = await igpu_dgpu()
    await free_gpu(machine)
    await machine.kernel.write(OVERRIDE, "vfio-pci")
    await machine.kernel.load_module("nvidia")
    assert machine.kernel.link(f"{DEVICE}/driver") is None


@in_virtual_time
async def test_loading_a_module_probes_all_its_unbound_devices_at_once() -> None:
    machine = await single_amd()
    functions = [f"0000:01:00.{number}" for number in range(4)]
    for function in functions:
        await machine.kernel.write(f"/sys/bus/pci/devices/{function}/driver_override", "vfio-pci")
        name = machine.kernel.link(f"/sys/bus/pci/devices/{function}/driver")
        await machine.kernel.write(driver(str(name), "unbind"), function)
    await machine.kernel.load_module("vfio_pci")
    bound = [machine.kernel.link(f"/sys/bus/pci/devices/{function}/driver") for function in functions]
    assert bound == ["vfio-pci"] * 4


@in_virtual_time
@pytest.mark.parametrize(
    ("path", "text", "number"),
    [
        (driver("nvidia", "bind"), GPU, errno.EBUSY),
        (driver("snd_hda_intel", "unbind"), GPU, errno.ENODEV),
        (driver("nvidia", "unbind"), "0000:77:00.0", errno.ENODEV),
        (driver("nvidia", "bind"), AUDIO, errno.ENODEV),
        (PROBE, "0000:77:00.0", errno.ENODEV),
        ("/sys/bus/pci/drivers/none/bind", GPU, errno.ENOENT),
        (f"{DEVICE}/vendor", "0", errno.EACCES),
    ],
)
async def test_errnos(path: str, text: str, number: int) -> None:
    machine = await igpu_dgpu()
    with pytest.raises(OSError) as caught:  # noqa: PT011  (the errno is the assertion)
        await machine.kernel.write(path, text)
    assert caught.value.errno == number


@in_virtual_time
async def test_vfio_pci_bind_without_override_is_enodev() -> None:
    machine = await igpu_dgpu()
    await free_gpu(machine)
    await machine.kernel.load_module("vfio_pci")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write(driver("vfio-pci", "bind"), GPU)
    assert caught.value.errno == errno.ENODEV


@in_virtual_time
async def test_fact_3_the_driver_link_goes_before_remove_and_comes_before_probe() -> None:
    machine = await igpu_dgpu()
    seen: list[tuple[str, str | None]] = []

    def note(event: Uevent) -> None:
        if event.path.endswith(("card1", GPU)):
            seen.append((event.action, machine.kernel.link(f"{DEVICE}/driver")))

    machine.uevents.subscribe(note)
    await machine.kernel.write(driver("nvidia", "unbind"), GPU)
    await machine.kernel.write(driver("nvidia", "bind"), GPU)
    assert seen[0] == ("remove", None)
    assert seen[1] == ("unbind", None)
    assert seen[2] == ("add", "nvidia")
    assert seen[-1] == ("bind", "nvidia")


@in_virtual_time
async def test_new_id_takes_every_unbound_device_with_that_id() -> None:
    machine = await igpu_dgpu()
    await free_gpu(machine)
    await machine.kernel.load_module("vfio_pci")
    await machine.kernel.write(driver("vfio-pci", "new_id"), "10de 2786")
    assert machine.kernel.link(f"{DEVICE}/driver") == "vfio-pci"


@in_virtual_time
async def test_a_bridge_and_a_stranger_share_the_group() -> None:
    machine = await shared_group()
    assert machine.kernel.entries("/sys/kernel/iommu_groups/14/devices") == [
        "0000:00:01.0",
        "0000:00:03.0",
        GPU,
        AUDIO,
        "0000:04:00.0",
    ]
    assert machine.kernel.link(f"{DEVICE}/iommu_group") == "14"


@in_virtual_time
async def test_the_upstream_port_is_the_parent_directory() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.resolve(DEVICE) == f"/sys/devices/pci0000:00/0000:00:01.0/{GPU}"
