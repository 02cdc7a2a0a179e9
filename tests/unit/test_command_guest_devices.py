"""What `{gpu}` becomes in the command of `gpuhandoff run`."""

from __future__ import annotations

import pytest

from gpuhandoff_command.guest_devices import places, with_gpu

CARD = ["0000:01:00.0", "0000:01:00.1", "0000:01:00.2"]
EXPRESS = [
    "-device", "pcie-root-port,id=gpuhandoff,chassis=251",
    "-device", "vfio-pci,host=0000:01:00.0,bus=gpuhandoff,addr=00.0,multifunction=on",
    "-device", "vfio-pci,host=0000:01:00.1,bus=gpuhandoff,addr=00.1",
    "-device", "vfio-pci,host=0000:01:00.2,bus=gpuhandoff,addr=00.2",
]  # fmt: skip
PLAIN = [
    "-device", "vfio-pci,host=0000:01:00.0,bus=pci.0,addr=1e.0,multifunction=on",
    "-device", "vfio-pci,host=0000:01:00.1,bus=pci.0,addr=1e.1",
    "-device", "vfio-pci,host=0000:01:00.2,bus=pci.0,addr=1e.2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "devices"),
    [
        (["-machine", "q35"], EXPRESS),
        (["-M", "q35,accel=kvm"], EXPRESS),
        (["-machine", "type=q35,kernel-irqchip=split"], EXPRESS),
        (["-M", "pc-q35-9.2"], EXPRESS),
        (["-machine=q35"], EXPRESS),
        (["--machine", "q35"], EXPRESS),
        (["-machine", "accel=kvm,type=q35"], EXPRESS),
        (["-machine=accel=kvm,type=pc-q35-8.2,usb=off"], EXPRESS),
        (["-machine", "accel=kvm", "-M", "type=virt-9.0"], EXPRESS),
        (["-M", "pc", "-machine", "q35"], EXPRESS),
        (["-M", "q35", "-machine", "type=pc"], PLAIN),
        (["-machine", "pc,memory-backend=q35"], PLAIN),
        (["-M", "accel=kvm"], PLAIN),
        (["-M", "q35x"], PLAIN),
        (["-M", "virt"], EXPRESS),
        (["-M", "pc"], PLAIN),
        (["-machine", "pc-i440fx-9.2"], PLAIN),
        ([], PLAIN),
        (["-name", "q35"], PLAIN),
    ],
)
def test_all_functions_in_one_slot_of_the_guest(machine: list[str], devices: list[str]) -> None:
    program = ["qemu-system-x86_64", *machine, "{gpu}", "-m", "4G"]
    assert with_gpu(program, CARD) == ["qemu-system-x86_64", *machine, *devices, "-m", "4G"]


def test_inside_of_a_script() -> None:
    found = with_gpu(["sh", "-c", "exec qemu-system-x86_64 -M q35 {gpu} -m 4G"], CARD)
    assert found == ["sh", "-c", f"exec qemu-system-x86_64 -M q35 {' '.join(EXPRESS)} -m 4G"]
    for machine in ("-M 'accel=kvm,type=q35'", '-machine \\\n accel=kvm,type="q35"', "-M q35;"):
        assert " ".join(EXPRESS) in with_gpu(["sh", "-c", f"qemu {{gpu}} {machine}"], CARD)[2]


def test_a_card_without_a_function_0_and_one_with_a_single_function() -> None:
    found = with_gpu(["{gpu}"], ["0000:01:00.2", "0000:01:00.1"])
    assert [one for one in found if one != "-device"] == [
        "vfio-pci,host=0000:01:00.1,bus=pci.0,addr=1e.0,multifunction=on",
        "vfio-pci,host=0000:01:00.2,bus=pci.0,addr=1e.1",
    ]
    assert with_gpu(["{gpu}"], CARD[:1]) == ["-device", "vfio-pci,host=0000:01:00.0,bus=pci.0,addr=1e.0"]


def test_a_command_that_names_its_devices_itself_is_left_alone() -> None:
    program = ["qemu", "-device", "vfio-pci,host=01:00.0,romfile=x", "{gpus}", "{}"]
    assert (places(program), with_gpu(program, CARD)) == (0, program)
    assert places(["{gpu}", "x{gpu}{gpu}"]) == 3
