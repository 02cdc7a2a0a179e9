"""Memory, CPUs and control groups (kernel.md 6, 7)."""

import asyncio
import errno

import pytest

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.memory import HUGEPAGES
from gpuhandoff.simulation.scenarios import igpu_dgpu

TRANSPARENT = "/sys/kernel/mm/transparent_hugepage/enabled"


@in_virtual_time
async def test_too_many_huge_pages_are_given_in_part_and_compaction_gives_more() -> None:
    machine = await igpu_dgpu()
    await machine.kernel.write(f"{HUGEPAGES}/nr_hugepages", "7000")
    first = int(machine.kernel.read(f"{HUGEPAGES}/nr_hugepages"))
    assert 0 < first < 7000
    await machine.kernel.write("/proc/sys/vm/drop_caches", "3")
    await machine.kernel.write("/proc/sys/vm/compact_memory", "1")
    await machine.kernel.write(f"{HUGEPAGES}/nr_hugepages", "7000")
    assert int(machine.kernel.read(f"{HUGEPAGES}/nr_hugepages")) == 7000
    await machine.kernel.write(f"{HUGEPAGES}/nr_hugepages", "0")
    assert machine.kernel.read(f"{HUGEPAGES}/free_hugepages") == "0"


@in_virtual_time
async def test_transparent_huge_pages_show_the_choice_in_brackets() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.read(TRANSPARENT) == "always [madvise] never"
    await machine.kernel.write(TRANSPARENT, "always")
    assert machine.kernel.read(TRANSPARENT) == "[always] madvise never"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write(TRANSPARENT, "perhaps")
    assert caught.value.errno == errno.EINVAL


@in_virtual_time
async def test_reclaim_of_less_than_was_asked_for_is_eagain() -> None:
    machine = await igpu_dgpu()
    before = machine.memory.available
    await machine.kernel.write("/sys/fs/cgroup/user.slice/memory.reclaim", str(1 << 20))
    with pytest.raises(BlockingIOError):
        await machine.kernel.write("/sys/fs/cgroup/user.slice/memory.reclaim", str(64 << 30))
    assert machine.memory.available > before


@in_virtual_time
async def test_6_1_has_no_swappiness_in_reclaim() -> None:
    machine = await igpu_dgpu(kernel="6.1.0-56-amd64")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write("/sys/fs/cgroup/user.slice/memory.reclaim", "1024 swappiness=0")
    assert caught.value.errno == errno.EINVAL


@in_virtual_time
@pytest.mark.parametrize(
    ("kernel", "number"), [("6.1.0-56-amd64", errno.EIO), ("6.6.80", errno.EPERM), ("6.12.107", errno.EACCES)]
)
async def test_a_managed_interrupt_cannot_be_moved(kernel: str, number: int) -> None:
    machine = await igpu_dgpu(kernel=kernel)
    await machine.kernel.write("/proc/irq/24/smp_affinity_list", "0-1")
    assert machine.kernel.read("/proc/irq/24/smp_affinity_list") == "0-1"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write("/proc/irq/25/smp_affinity_list", "0-1")
    assert caught.value.errno == number


@in_virtual_time
async def test_an_interrupt_needs_an_online_cpu() -> None:
    machine = await igpu_dgpu()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write("/proc/irq/24/smp_affinity_list", "64")
    assert caught.value.errno == errno.EINVAL


@in_virtual_time
async def test_masks_are_hexadecimal_and_governors_are_checked() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.read("/sys/devices/virtual/workqueue/cpumask") == "ff"
    await machine.kernel.write("/sys/devices/virtual/workqueue/cpumask", "3")
    assert machine.kernel.read("/sys/devices/virtual/workqueue/cpumask") == "3"
    assert machine.kernel.read("/sys/devices/system/cpu/online") == "0-7"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await machine.kernel.write("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "warp")
    assert caught.value.errno == errno.EINVAL


@in_virtual_time
async def test_freezing_takes_a_moment_and_is_delayed_by_a_sleeper_in_d_state() -> None:
    machine = await igpu_dgpu()
    group = "/sys/fs/cgroup/system.slice/cron.service"
    await machine.kernel.write(f"{group}/cgroup.freeze", "1")
    assert "frozen 0" in machine.kernel.read(f"{group}/cgroup.events")
    await asyncio.sleep(0.1)
    assert "frozen 1" in machine.kernel.read(f"{group}/cgroup.events")
    machine.processes.spawn("stuck", cgroup="/system.slice/ssh.service", state="D")
    await machine.kernel.write("/sys/fs/cgroup/system.slice/ssh.service/cgroup.freeze", "1")
    await asyncio.sleep(10)
    assert "frozen 0" in machine.kernel.read("/sys/fs/cgroup/system.slice/ssh.service/cgroup.events")
