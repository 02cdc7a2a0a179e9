"""What the doctor says of a card is what a handoff would refuse, for the same reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.doctor import Finding, Severity
from gpuhandoff.errors import InUseError, NotIsolatedError, ProblemError
from gpuhandoff.model.hardware import DiskUse, Usage, UsbDevice
from gpuhandoff.model.kernel import Module
from gpuhandoff.model.request import Options
from gpuhandoff.model.world import World
from gpuhandoff.plan.refusal import refuse_handoff
from gpuhandoff.simulation.scenarios import igpu_dgpu
from tests.support.diagnosis import GPU, dgpu_of, found, with_dgpu, world_of


def problem(world: World, refused: type[ProblemError], severity: Severity = Severity.PROBLEM) -> Finding:
    """Return the only finding as bad as that; the card is not lent for the same reason."""
    with pytest.raises(refused):
        refuse_handoff(world, dgpu_of(world), Options())
    (here,) = [each for each in found(world) if each.severity is severity]
    return here


def test_a_module_of_somebody_else_that_needs_the_driver() -> None:
    world = world_of(igpu_dgpu)
    held = [replace(one, used_by=(*one.used_by, "nvidia_fs")) if one.name == "nvidia" else one for one in world.modules]
    here = problem(replace(world, modules=(*held, Module("nvidia_fs", 0, ()))), InUseError)
    assert here.check == "driver"
    assert here.evidence == "The module nvidia_fs, which does not belong to the driver, needs nvidia."
    assert here.remedy.endswith("`sudo modprobe -r nvidia_fs`")


def test_a_card_that_is_in_no_group() -> None:
    world = world_of(igpu_dgpu)
    without = [replace(one, iommu_group=None) if one.address == GPU else one for one in dgpu_of(world).functions]
    here = problem(with_dgpu(world, functions=tuple(without)), NotIsolatedError)
    assert (here.check, here.evidence) == ("group", "Without a group: 0000:01:00.0")


def test_a_sound_device_that_holds_the_driver() -> None:
    world = world_of(igpu_dgpu)
    (here,) = [each for each in found(world) if each.check == "driver"]
    assert (here.severity, here.gpu) == (Severity.NOTE, "0000:00:02.0")
    alone = replace(world, gpus=tuple(gpu for gpu in world.gpus if gpu.address != GPU))
    (here,) = [each for each in found(alone) if each.check == "driver"]
    assert here.severity is Severity.PROBLEM
    assert here.evidence == "The sound device 0000:00:1f.3, which plays through its screens, holds the module i915."
    assert here.remedy.endswith("`echo 0000:00:1f.3 | sudo tee /sys/bus/pci/drivers/snd_hda_intel/unbind`")


def test_a_disk_at_the_cards_own_port() -> None:
    ssd = UsbDevice("SanDisk Extreme SSD", (DiskUse("sdb1", Usage.MOUNTED, "/mnt"),))
    here = problem(with_dgpu(world_of(igpu_dgpu), attached=(ssd,)), InUseError, Severity.WARNING)
    assert (here.check, here.evidence) == ("disk", "SanDisk Extreme SSD: sdb1 (mounted: /mnt)")
