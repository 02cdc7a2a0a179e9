"""The large lists of a machine: which modules its kernel has, and what its devices are called."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from gpuhandoff.model.kernel import Module
from gpuhandoff.survey import modules
from gpuhandoff.survey.names import FILES, DeviceNames

RELEASE = "6.12.9-test"
DEPENDENCIES = f"/lib/modules/{RELEASE}/modules.dep"
BUILT_IN = f"/lib/modules/{RELEASE}/modules.builtin"


@dataclasses.dataclass
class Files:
    """A kernel that has files, and counts how often each is read."""

    texts: dict[str, str]
    reads: Counter[str] = dataclasses.field(default_factory=Counter)

    def read(self, path: str) -> str:
        self.reads[path] += 1
        if path not in self.texts:
            raise FileNotFoundError(path)
        return self.texts[path]

    def exists(self, path: str) -> bool:
        return path in self.texts

    def version(self, path: str) -> object:
        return hash(self.texts[path]) if path in self.texts else None


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(modules, "_lists", {})
    return Files(
        {
            "/proc/sys/kernel/osrelease": RELEASE,
            DEPENDENCIES: "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n"
            "kernel/drivers/vfio/vfio_iommu_type1.ko:\nextra/nvidia.ko.zst:\nupdates/dkms/odd.name-here.ko:\n",
            BUILT_IN: "kernel/drivers/pci/pcie-thing.ko\nkernel/drivers/vfio/vfio.ko\n",
        }
    )


def loaded(*names: str) -> tuple[Module, ...]:
    return tuple(Module(name, 0, ()) for name in names)


def available(files: Files, *names: str) -> frozenset[str]:
    host: Any = SimpleNamespace(kernel=files)
    return modules.available(host, loaded(*names))


VFIO = {"vfio_pci", "vfio_iommu_type1"}


def test_modules_that_could_be_loaded_again(files: Files) -> None:
    assert available(files, "nvidia", "nouveau", "pcie_thing") == {*VFIO, "nvidia", "pcie_thing"}
    host: Any = SimpleNamespace(kernel=files)
    assert modules.builtin(host, frozenset({"vfio", "vfio_pci", "nvidia"})) == {"vfio"}


def test_a_list_is_read_when_a_name_is_new_and_not_when_modules_come_and_go(files: Files) -> None:
    available(files, "nvidia")
    available(files, "nvidia", "vfio", "irqbypass")
    assert files.reads[DEPENDENCIES] == 2
    for _ in range(3):
        assert available(files) == VFIO
        assert available(files, "nvidia", "vfio", "irqbypass") == {*VFIO, "nvidia", "vfio"}
    assert files.reads[DEPENDENCIES] == 2
    assert files.reads[BUILT_IN] == 2


def test_a_list_that_is_written_anew_is_read_again(files: Files) -> None:
    assert "nvidia" in available(files, "nvidia")
    files.texts[DEPENDENCIES] = files.texts[DEPENDENCIES].replace("extra/nvidia.ko.zst:\n", "extra/nouveau.ko:\n")
    assert available(files, "nvidia", "nouveau") == {*VFIO, "nouveau"}


def test_a_kernel_whose_modules_were_removed_by_an_upgrade(files: Files) -> None:
    assert available(files, "nvidia") == {*VFIO, "nvidia"}
    text = files.texts.pop(DEPENDENCIES)
    assert available(files, "nvidia") == frozenset()
    files.texts["/sys/module/vfio_pci"] = ""
    assert available(files, "nvidia") == {"vfio_pci"}
    files.texts[DEPENDENCIES] = text
    assert available(files, "nvidia") == {*VFIO, "nvidia"}


def test_a_kernel_that_loads_no_modules(files: Files) -> None:
    host: Any = SimpleNamespace(kernel=files)
    assert modules.loaded(host) == ()
    files.texts["/proc/modules"] = "vfio_pci 65536 2 vfio,other, Live 0x0\nkvm 1 0 - Live 0x0\n"
    assert modules.loaded(host) == (Module("vfio_pci", 2, ("vfio", "other")), Module("kvm", 0, ()))


@pytest.mark.parametrize("flavour", ["current", "current-open", "tesla", "tesla-535", "legacy-390xx"])
def test_modules_of_nvidia_that_debian_installs_under_names_of_their_own(files: Files, flavour: str) -> None:
    parts = ("", "-modeset", "-drm", "-uvm", "-peermem")
    lines = [f"updates/dkms/nvidia-{flavour}{part}.ko.xz: kernel/drivers/x.ko.xz\n" for part in parts]
    files.texts[DEPENDENCIES] = "".join([*lines, "kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko.xz:\n"])
    stack = ("nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm", "nvidia_peermem")
    assert available(files, *stack, "nvidia_fs") == set(stack)
    files.texts[DEPENDENCIES] = "".join(line for line in lines if "-drm" not in line)
    assert available(files, *stack) == {*stack} - {"nvidia_drm"}
    files.texts[DEPENDENCIES] = "kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko.xz:\n"
    assert available(files, *stack) == frozenset()


IDS = """# comment
0001  SafeNet (wrong ID)
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]
\t\t1002 0e3b  a subsystem
\t164e  Raphael
abcd  Another Maker
\t0001  First

# in the middle of it
\t0002  Second
10de  NVIDIA Corporation
\t2786  AD104 [GeForce RTX 4070]
C 03  Display controller
\t00  VGA compatible controller
"""


@pytest.mark.parametrize(
    ("vendor", "device", "name"),
    [
        (0x1002, 0x744C, "AMD Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]"),
        (0x1002, 0x164E, "AMD Raphael"),
        (0x1002, 0x2786, "AMD 1002:2786"),
        (0x10DE, 0x2786, "NVIDIA AD104 [GeForce RTX 4070]"),
        (0x10DE, 0x0000, "NVIDIA 10de:0000"),
        (0xABCD, 0x0001, "Another Maker First"),
        (0xABCD, 0x0002, "Another Maker Second"),
        (0x0001, 0x0001, "0001:0001"),
        (0x0003, 0x0000, "0003:0000"),
    ],
)
def test_what_a_device_is_called(vendor: int, device: int, name: str) -> None:
    names: Any = DeviceNames()
    files: Any = Files({FILES[1]: IDS})
    assert names.name(files, vendor, device) == name
    assert names.name(files, vendor, device) == name
    assert files.reads[FILES[1]] == 1


def test_a_file_that_begins_with_the_vendor_and_ends_in_the_middle() -> None:
    files: Any = Files({FILES[0]: "10de  NVIDIA Corporation\n\t2786  AD104"})
    assert DeviceNames().name(files, 0x10DE, 0x2786) == "NVIDIA AD104"
