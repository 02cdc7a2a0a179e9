"""The modules of the simulated kernel, with the drivers they bring and what they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuhandoff.simulation.display_drivers import BochsDriver, DisplayDriver, VirtioDriver, load_drm, unload_drm
from gpuhandoff.simulation.drivers import AudioDriver, BridgeDriver, BusDriver, Driver, VfioDriver
from gpuhandoff.simulation.modules import Module
from gpuhandoff.simulation.nvidia_driver import NvidiaDriver, hide_version, show_version
from gpuhandoff.simulation.pci import AMD, INTEL, NVIDIA
from gpuhandoff.simulation.usb import UsbDriver
from gpuhandoff.simulation.vfio import load_vfio, unload_vfio

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

QEMU, CIRRUS = 0x1234, 0x1013

_LIBRARIES = (
    Module("drm", "kernel/drivers/gpu/drm/drm.ko"),
    Module("drm_kms_helper", "kernel/drivers/gpu/drm/drm_kms_helper.ko", ("drm",)),
    Module("ttm", "kernel/drivers/gpu/drm/ttm/ttm.ko"),
    Module("drm_ttm_helper", "kernel/drivers/gpu/drm/drm_ttm_helper.ko", ("ttm", "drm_kms_helper", "drm")),
    Module("gpu_sched", "kernel/drivers/gpu/drm/scheduler/gpu-sched.ko", ("drm",)),
    Module("video", "kernel/drivers/acpi/video.ko"),
    Module("i2c_algo_bit", "kernel/drivers/i2c/algos/i2c-algo-bit.ko"),
    Module("i2c_dev", "kernel/drivers/i2c/i2c-dev.ko"),
    Module("snd", "kernel/sound/core/snd.ko"),
    Module("snd_hda_core", "kernel/sound/hda/snd-hda-core.ko", ("snd",)),
    Module("snd_hda_codec", "kernel/sound/pci/hda/snd-hda-codec.ko", ("snd_hda_core", "snd")),
    Module("irqbypass", "kernel/virt/lib/irqbypass.ko"),
    Module("vfio", "kernel/drivers/vfio/vfio.ko", loaded=load_vfio, leaves=unload_vfio),
    Module("vfio_iommu_type1", "kernel/drivers/vfio/vfio_iommu_type1.ko", ("vfio",)),
    Module("vfio_pci_core", "kernel/drivers/vfio/pci/vfio-pci-core.ko", ("vfio", "irqbypass")),
    Module("vendor_reset", "updates/dkms/vendor-reset.ko"),
    Module("ucsi_ccg", "kernel/drivers/usb/typec/ucsi/ucsi_ccg.ko"),
)

_DRIVERS = (
    Module(
        "amdgpu",
        "kernel/drivers/gpu/drm/amd/amdgpu/amdgpu.ko",
        ("drm_ttm_helper", "ttm", "gpu_sched", "drm_kms_helper", "drm", "video", "i2c_algo_bit"),
        lambda machine: DisplayDriver(machine, "amdgpu", "amdgpu", AMD),
    ),
    Module(
        "nouveau",
        "kernel/drivers/gpu/drm/nouveau/nouveau.ko",
        ("drm_ttm_helper", "ttm", "gpu_sched", "drm_kms_helper", "drm", "video", "i2c_algo_bit"),
        lambda machine: DisplayDriver(machine, "nouveau", "nouveau", NVIDIA),
    ),
    Module(
        "i915",
        "kernel/drivers/gpu/drm/i915/i915.ko",
        ("ttm", "drm_kms_helper", "drm", "video", "i2c_algo_bit"),
        lambda machine: DisplayDriver(machine, "i915", "i915", INTEL),
    ),
    Module(
        "xe",
        "kernel/drivers/gpu/drm/xe/xe.ko",
        ("drm_ttm_helper", "ttm", "gpu_sched", "drm_kms_helper", "drm", "video", "i2c_algo_bit"),
        lambda machine: DisplayDriver(machine, "xe", "xe", INTEL),
    ),
    Module(
        "bochs",
        "kernel/drivers/gpu/drm/tiny/bochs.ko",
        ("drm_ttm_helper", "drm_kms_helper", "drm"),
        lambda machine: BochsDriver(machine, "bochs-drm", "bochs", QEMU),
    ),
    Module(
        "cirrus",
        "kernel/drivers/gpu/drm/tiny/cirrus.ko",
        ("drm_kms_helper", "drm"),
        lambda machine: BochsDriver(machine, "cirrus", "cirrus", CIRRUS),
    ),
    Module(
        "snd_hda_intel",
        "kernel/sound/pci/hda/snd-hda-intel.ko",
        ("snd_hda_codec", "snd_hda_core", "snd"),
        lambda machine: AudioDriver(machine, "snd_hda_intel", "snd_hda_intel", classes=(0x0403,)),
    ),
    Module(
        "i2c_nvidia_gpu",
        "kernel/drivers/i2c/busses/i2c-nvidia-gpu.ko",
        (),
        lambda machine: BusDriver(machine, "nvidia-gpu", "i2c_nvidia_gpu", classes=(0x0C80,), vendors=(NVIDIA,)),
    ),
    Module(
        "i2c_designware_pci",
        "kernel/drivers/i2c/busses/i2c-designware-pci.ko",
        (),
        lambda machine: BusDriver(machine, "i2c-designware-pci", "i2c_designware_pci", ids=((AMD, 0x73A4),)),
    ),
    Module(
        "igc",
        "kernel/drivers/net/ethernet/intel/igc/igc.ko",
        (),
        lambda machine: Driver(machine, "igc", "igc", classes=(0x0200,), vendors=(INTEL,)),
    ),
    Module(
        "nvme",
        "kernel/drivers/nvme/host/nvme.ko",
        (),
        lambda machine: Driver(machine, "nvme", "nvme", classes=(0x0108,)),
    ),
    Module(
        "vfio_pci",
        "kernel/drivers/vfio/pci/vfio-pci.ko",
        ("vfio_pci_core", "vfio"),
        lambda machine: VfioDriver(machine, "vfio-pci", "vfio_pci"),
    ),
    Module(
        "virtio_gpu",
        "kernel/drivers/gpu/drm/virtio/virtio-gpu.ko",
        ("drm_kms_helper", "drm"),
        loaded=load_drm,
        leaves=unload_drm,
    ),
    Module("xhci_pci", "kernel/drivers/usb/host/xhci-pci.ko", builtin=True),
    Module("virtio_pci", "kernel/drivers/virtio/virtio_pci.ko", builtin=True),
)


def nvidia_modules(version: str, flavour: str = "") -> tuple[Module, ...]:
    """NVIDIA's own modules, built for the running kernel by DKMS. `flavour`: what Debian calls their files after."""
    modeset = "Y" if version >= "595" else "N"
    file = f"updates/dkms/nvidia{'-' * bool(flavour)}{flavour}"
    return (
        Module("nvidia", f"{file}.ko", (), NvidiaDriver, version=version, loaded=show_version, leaves=hide_version),
        Module("nvidia_modeset", f"{file}-modeset.ko", ("nvidia", "video"), version=version),
        Module(
            "nvidia_drm",
            f"{file}-drm.ko",
            ("nvidia_modeset", "drm_kms_helper", "drm"),
            loaded=load_drm,
            leaves=unload_drm,
            parameters=(("modeset", modeset), ("fbdev", "Y")),
            version=version,
        ),
        Module("nvidia_uvm", f"{file}-uvm.ko", ("nvidia",), version=version),
    )


def nvidia_conf(flavour: str) -> str:
    """Return the lines of modprobe.d with which Debian has modprobe find the files of a flavour."""
    return (
        f"install nvidia modprobe -i nvidia-{flavour} $CMDLINE_OPTS\n"
        f"install nvidia-modeset modprobe nvidia ; modprobe -i nvidia-{flavour}-modeset $CMDLINE_OPTS\n"
        f"install nvidia-drm modprobe nvidia-modeset ; modprobe -i nvidia-{flavour}-drm $CMDLINE_OPTS\n"
        f"install nvidia-uvm modprobe nvidia ; modprobe -i nvidia-{flavour}-uvm $CMDLINE_OPTS\n"
    )


def catalogue(nvidia_version: str, nvidia_flavour: str = "") -> dict[str, Module]:
    """Return every module that the simulated kernel has."""
    modules = (*_LIBRARIES, *_DRIVERS, *(nvidia_modules(nvidia_version, nvidia_flavour) if nvidia_version else ()))
    return {module.name: module for module in modules}


def builtin_drivers(machine: SimulatedMachine) -> tuple[Driver, ...]:
    """Return the drivers that are part of the kernel itself and have no module."""
    return (
        BridgeDriver(machine, "pcieport", None, classes=(0x0604,)),
        UsbDriver(machine, "xhci_hcd", None, classes=(0x0C03,)),
        VirtioDriver(machine),
    )
