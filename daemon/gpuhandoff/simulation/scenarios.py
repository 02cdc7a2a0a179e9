"""The machines that tests and `--simulate` run on, booted and with somebody logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.machine import COMMAND_LINE, SimulatedMachine
from gpuhandoff.simulation.pci import PciDevice
from gpuhandoff.simulation.sessions import Compositor, Login
from gpuhandoff.simulation.tree import Node
from gpuhandoff.simulation.units import Program, SimulatedUnit

KERNEL = "6.12.107+deb13-amd64"
NVIDIA_VERSION = "595.45.04"
NVIDIA_STACK = ("nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm")
ALICE = 1000
EVERY_SOUND = "/dev/snd/controlC"
ONBOARD_SOUND = "/dev/snd/controlC0"
SERVICES = ("display-manager.service", "nvidia-persistenced.service", "cron.service", "libvirtd.service", "ssh.service")
OTHER_GROUPS = 1000
"""IOMMU groups of this machine's own devices begin here, where a card has theirs."""
USER_STOP_DELAY = 1.0
"""UserStopDelaySec of these machines; logind's default is 10 s."""

GPU = "0000:01:00.0"
SECOND_GPU = "0000:02:00.0"
INTEL_GPU = "0000:00:02.0"

_DESKTOP = (
    Program("plasmashell", ALICE, memory=300 << 20),
    Program("Xwayland", ALICE),
    Program("firefox", ALICE, memory=1 << 30),
)


async def single_nvidia(*, ends: Compositor = Compositor.IN_SESSION, kernel: str = KERNEL) -> SimulatedMachine:
    """One GeForce RTX 4070 that shows the greeter and alice's Plasma."""
    above = hardware.port(1, 1)
    machine = assemble((above, *hardware.rtx_4070(above, 1, 14, boot_vga=True)), kernel, NVIDIA_VERSION)
    return await boot(machine, NVIDIA_STACK, _desktop(GPU, ends=ends))


async def blackwell(*, ends: Compositor = Compositor.IN_SESSION, kernel: str = KERNEL) -> SimulatedMachine:
    """One GeForce RTX 5090 that shows alice's Plasma."""
    above = hardware.port(1, 1)
    machine = assemble((above, *hardware.rtx_5090(above, 1, 14)), kernel, NVIDIA_VERSION)
    return await boot(machine, NVIDIA_STACK, _desktop(GPU, ends=ends))


async def single_amd(*, ends: Compositor = Compositor.IN_SESSION, kernel: str = KERNEL) -> SimulatedMachine:
    """One Radeon RX 6800 with four functions that shows alice's Plasma."""
    above = hardware.port(1, 1)
    machine = assemble((above, *hardware.rx_6800(above, 1, 14)), kernel)
    return await boot(machine, ("amdgpu", "i2c_designware_pci"), _desktop(GPU, ends=ends))


async def igpu_dgpu(*, kernel: str = KERNEL, sound: str = ONBOARD_SOUND) -> SimulatedMachine:
    """Intel graphics show alice's Plasma; a GeForce RTX 4070 sleeps and nobody uses it.

    With `sound=EVERY_SOUND` WirePlumber also has the sleeping card's HDMI audio open, as it does by default. The modules of
    NVIDIA are those of Debian's packages, in files that are called otherwise.
    """
    above = hardware.port(1, 1)
    dgpu = hardware.rtx_4070(above, 1, 14, boot_vga=False, screen=False)
    for function in dgpu:
        function.control = "auto"
    functions = (hardware.intel_graphics(), above, *dgpu)
    machine = assemble(functions, kernel, NVIDIA_VERSION, nvidia_flavour="current-open")
    return await boot(machine, ("i915", *NVIDIA_STACK), _desktop(INTEL_GPU), persistence=False, sound=sound)


async def twin(*, kernel: str = KERNEL, nvidia_version: str = NVIDIA_VERSION) -> SimulatedMachine:
    """Two GeForce RTX 3060 on one driver; the first shows alice's Plasma."""
    first, second = hardware.port(1, 1), hardware.port(3, 2)
    functions = (
        first,
        second,
        *hardware.rtx_3060(first, 1, 14, boot_vga=True),
        *hardware.rtx_3060(second, 2, 15, boot_vga=False),
    )
    machine = assemble(functions, kernel, nvidia_version)
    return await boot(machine, NVIDIA_STACK, _desktop(GPU), persistence=False, sound=ONBOARD_SOUND)


async def shared_group(*, kernel: str = KERNEL) -> SimulatedMachine:
    """Intel graphics show the desktop; the RTX 4070's IOMMU group holds a network card that stays with the host."""
    above, beside = hardware.port(1, 14), hardware.port(3, 14)
    dgpu = hardware.rtx_4070(above, 1, 14, boot_vga=False, screen=False)
    functions = (hardware.intel_graphics(), above, *dgpu, beside, hardware.network(4, 14, beside))
    machine = assemble(functions, kernel, NVIDIA_VERSION)
    return await boot(machine, ("i915", *NVIDIA_STACK), _desktop(INTEL_GPU), persistence=False, sound=ONBOARD_SOUND)


SCENARIOS: dict[str, Callable[[], Awaitable[SimulatedMachine]]] = {
    "single-nvidia": single_nvidia,
    "single-amd": single_amd,
    "igpu-dgpu": igpu_dgpu,
    "twin": twin,
    "blackwell": blackwell,
    "shared-group": shared_group,
}
"""By the name that `--simulate` takes."""


def assemble(
    functions: tuple[PciDevice, ...],
    kernel: str,
    nvidia_version: str = "",
    *,
    nvidia_flavour: str = "",
    iommu: bool = True,
    iommu_table: str = "DMAR",
    command_line: str = COMMAND_LINE,
    pci_ids: str = hardware.PCI_IDS,
) -> SimulatedMachine:
    """Return a machine with these devices, a disk and sound on the mainboard, switched off."""
    taken = {function.address for function in functions}
    disk = hardware.disk()
    others = [one for one in (disk.parent, disk, hardware.intel_audio()) if one is not None and one.address not in taken]
    groups = {function.group for function in functions}
    for one in others:
        one.group += OTHER_GROUPS * (one.group in groups)
    machine = SimulatedMachine(
        (*functions, *others),
        kernel_release=kernel,
        nvidia_version=nvidia_version,
        nvidia_flavour=nvidia_flavour,
        iommu=iommu,
        iommu_table=iommu_table,
        command_line=command_line,
    )
    machine.tree.text("/usr/share/misc/pci.ids", pci_ids)
    firmware = next((function for function in functions if function.boot_vga), None)
    if firmware is not None:
        machine.graphics.add_firmware(firmware)
    return machine


async def boot(
    machine: SimulatedMachine,
    modules: tuple[str, ...],
    logins: tuple[Login, ...],
    *,
    persistence: bool = True,
    sound: str = EVERY_SOUND,
) -> SimulatedMachine:
    """Load the drivers, start what every machine here runs, and have everybody log in."""
    if "nvidia" in modules:
        for name, number in (
            ("nvidiactl", 195 << 8 | 255),
            ("nvidia-modeset", 195 << 8 | 254),
            ("nvidia-uvm", 508 << 8),
        ):
            module = {"nvidia-modeset": "nvidia_modeset", "nvidia-uvm": "nvidia_uvm"}.get(name, "nvidia")
            machine.tree.add(f"/dev/{name}", Node(f"/dev/{name}", number, module))
    _add_units(machine)
    machine.sessions.logins = logins
    machine.sessions.sound = sound
    machine.sessions.user_stop_delay = USER_STOP_DELAY
    services = [name for name in SERVICES if persistence or name != "nvidia-persistenced.service"]
    await machine.boot(("i2c_dev", "nvme", "igc", *modules, "snd_hda_intel"), services)
    return machine


def _desktop(gpu: str, *, ends: Compositor = Compositor.IN_SESSION) -> tuple[Login, ...]:
    """The greeter and alice, who is logged in automatically whenever sddm starts."""
    greeter = Login("sddm", 110, "kwin_wayland", (gpu,), kind="greeter")
    alice = Login("alice", ALICE, "kwin_wayland", (gpu,), programs=_DESKTOP)
    return (greeter, replace(alice, ends=ends))


def _add_units(machine: SimulatedMachine) -> None:
    """Load what every machine here has; PID 1 and logind exist before anything is started."""
    machine.units.add(SimulatedUnit("-.slice", "/"), active=True)
    for name in ("init.scope", "system.slice", "user.slice", "machine.slice"):
        machine.units.add(SimulatedUnit(name, f"/{name}"), active=True)
    machine.processes.spawn("systemd", pid=1, cgroup="/init.scope")
    for name, program in (("systemd-logind", "systemd-logind"), ("dbus", "dbus-daemon"), ("polkit", "polkitd")):
        unit = SimulatedUnit(f"{name}.service", f"/system.slice/{name}.service")
        machine.units.add(unit, active=True)
        unit.main = machine.units.run(Program(program), unit.control_group)
    for name, program in (("cron", "cron"), ("libvirtd", "libvirtd"), ("ssh", "sshd")):
        machine.units.add(SimulatedUnit(f"{name}.service", f"/system.slice/{name}.service", (Program(program),)))
    machine.units.add(
        SimulatedUnit(
            "sddm.service",
            "/system.slice/sddm.service",
            (Program("sddm"),),
            aliases=("display-manager.service",),
            restart=True,
            after_start=machine.sessions.start_display,
        )
    )
    if machine.nvidia_version:
        machine.units.add(
            SimulatedUnit(
                "nvidia-persistenced.service",
                "/system.slice/nvidia-persistenced.service",
                (Program("nvidia-persistenced", 120, ("/dev/nvidia0", "/dev/nvidiactl")),),
                needs_module="nvidia",
            )
        )
