"""Others who bind GPUs: what is read of their files, and what the doctor makes of it."""

from __future__ import annotations

import pytest

from gpuhandoff.doctor import Finding, Severity, examine
from gpuhandoff.model.surroundings import Distribution, Family, Means, Rival, Surroundings
from gpuhandoff.model.verdict import Kind, Verdict
from gpuhandoff.model.world import State
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.survey import survey
from gpuhandoff.survey.surroundings import surroundings

DEBIAN = 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'


def read(files: dict[str, str], parameters: tuple[str, ...] = ()) -> Surroundings:
    """Return what is read on a machine with these files."""

    async def look() -> Surroundings:
        machine = SimulatedMachine(())
        for path, text in files.items():
            machine.tree.text(path, text)
        return surroundings(simulated_host(machine, LoopbackBroker().connect()), parameters)

    return run(look())


def found(files: dict[str, str], parameters: tuple[str, ...] = ()) -> dict[str, Finding]:
    """Return the findings, by what they are about, on a machine with an RTX 4070 beside Intel graphics."""

    async def look() -> tuple[Finding, ...]:
        machine = await igpu_dgpu()
        for path, text in {"/etc/os-release": DEBIAN, **files}.items():
            machine.tree.text(path, text)
        broker = LoopbackBroker()
        await machine.serve(broker)
        host = simulated_host(machine, broker.connect())
        world = await survey(host)
        verdicts = {gpu.address: Verdict(Kind.SAFE, "Because.", "somebody") for gpu in world.gpus}
        states = {gpu.address: (State.HOST, "") for gpu in world.gpus}
        return examine(world, surroundings(host, parameters), verdicts, states)

    return {one.check: one for one in run(look())}


@pytest.mark.parametrize(
    ("text", "family", "name"),
    [
        (DEBIAN, Family.DEBIAN, "Debian GNU/Linux 13 (trixie)"),
        ("ID=pop\nID_LIKE='ubuntu debian'\n", Family.POP, ""),
        ("NAME=Nobara\nID=nobara\nID_LIKE=fedora\n", Family.FEDORA, ""),
        ("ID=bazzite\nID_LIKE='fedora'\nOSTREE_VERSION='43.20261101.0'\n", Family.OSTREE, ""),
        ("ID=endless\nID_LIKE='debian'\nOSTREE_VERSION='6'\n", Family.OTHER, ""),
        ("ID=cachyos\nID_LIKE=arch\n", Family.ARCH, ""),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', Family.SUSE, ""),
        ("ID=void\n", Family.OTHER, ""),
        ("", Family.OTHER, ""),
    ],
)
def test_the_distribution(text: str, family: Family, name: str) -> None:
    assert read({"/etc/os-release": text}).distribution == Distribution(family, name)


def test_an_image_that_is_not_told_by_its_name() -> None:
    assert read({"/etc/os-release": "ID=fedora\n", "/run/ostree-booted": ""}).distribution.family is Family.OSTREE


@pytest.mark.parametrize(
    ("path", "text", "means", "subject"),
    [
        ("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2786,10de:22bc disable_vga=1", Means.MODPROBE,
         ("10de:2786", "10de:22bc")),
        ("/lib/modprobe.d/x.conf", "options vfio_pci disable_idle_d3=1 ids=10DE:2786:1043:8800", Means.MODPROBE,
         ("10de:2786",)),
        ("/etc/modprobe.d/b.conf", "blacklist nvidia", Means.BLACKLIST, ("nvidia",)),
        ("/etc/modprobe.d/b.conf", "blacklist nvidia-drm  # no", Means.BLACKLIST, ("nvidia_drm",)),
        ("/etc/modprobe.d/b.conf", "install amdgpu /bin/false", Means.BLACKLIST, ("amdgpu",)),
        ("/etc/modprobe.d/b.conf", "install nvidia-drm /usr/bin/true", Means.BLACKLIST, ("nvidia_drm",)),
        ("/etc/modprobe.d/b.conf", "install i915 false", Means.BLACKLIST, ("i915",)),
        ("/etc/modprobe.d/b.conf", "install snd-hda-intel :", Means.BLACKLIST, ("snd_hda_intel",)),
        ("/etc/driverctl.d/0000:01:00.0", "vfio-pci", Means.DRIVERCTL, ("0000:01:00.0",)),
        ("/etc/driverctl.d/pci-0000:01:00.0", "vfio-pci", Means.DRIVERCTL, ("0000:01:00.0",)),
        ("/etc/supergfxd.conf", '{"mode": "Vfio"}', Means.SUPERGFXCTL, ()),
        ("/etc/supergfxd.conf", '{"mode": "Hybrid", "vfio_enable": true}', Means.SUPERGFXCTL, ()),
        ("/etc/initramfs-tools/modules", "vfio_pci ids=10de:2786", Means.INITRAMFS, ()),
        ("/etc/mkinitcpio.conf", "MODULES=(vfio_pci vfio)", Means.INITRAMFS, ()),
        ("/etc/dracut.conf.d/vfio.conf", 'force_drivers+=" vfio-pci "', Means.INITRAMFS, ()),
    ],
)  # fmt: skip
def test_a_file_of_somebody_else(path: str, text: str, means: Means, subject: tuple[str, ...]) -> None:
    line = f"mode {'Vfio' if 'Vfio' in text else 'Hybrid'}" if means is Means.SUPERGFXCTL else text
    assert read({path: f"# a comment\n{text}\n"} if means is not Means.SUPERGFXCTL else {path: text}).rivals == (
        Rival(means, path, line, subject),
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/modprobe.d/vfio.conf", "# options vfio-pci ids=10de:2786"),
        ("/etc/modprobe.d/vfio.conf.bak", "options vfio-pci ids=10de:2786"),
        ("/etc/modprobe.d/vfio.conf", "options vfio-pci disable_idle_d3=1"),
        ("/usr/lib/modprobe.d/b.conf", "blacklist nouveau"),
        ("/etc/modprobe.d/nvidia.conf", "install nvidia modprobe -i nvidia-current $CMDLINE_OPTS"),
        ("/etc/modprobe.d/nvidia.conf", "install nvidia-drm modprobe nvidia-modeset ; modprobe -i nvidia-current-drm"),
        ("/etc/modprobe.d/nvidia.conf", "install nvidia /bin/true ; modprobe -i nvidia"),
        ("/etc/modprobe.d/b.conf", "blacklist nvidiafb-old.x"),
        ("/etc/supergfxd.conf", '{"mode": "Hybrid", "vfio_enable": false}'),
        ("/etc/supergfxd.conf", "no JSON"),
        ("/etc/supergfxd.conf", "[1]"),
        ("/etc/mkinitcpio.conf", "#MODULES=(vfio_pci)"),
    ],
)
def test_what_is_nobodys_rival(path: str, text: str) -> None:
    assert read({path: text}).rivals == ()


def test_a_file_in_etc_hides_one_of_the_same_name_elsewhere() -> None:
    both = {"/etc/modprobe.d/vfio.conf": "", "/usr/lib/modprobe.d/vfio.conf": "options vfio-pci ids=10de:2786"}
    assert read(both).rivals == ()


def test_ids_that_are_those_of_a_card_here() -> None:
    one = found({"/etc/modprobe.d/vfio.conf": "options vfio-pci ids=10de:2786\n"})["modprobe"]
    assert (one.severity, one.gpu) == (Severity.WARNING, "0000:01:00.0")
    assert one.evidence == "/etc/modprobe.d/vfio.conf: options vfio-pci ids=10de:2786"
    assert "sudo update-initramfs -u" in one.remedy
    assert "modprobe" not in found({"/etc/modprobe.d/vfio.conf": "options vfio-pci ids=10de:ffff\n"})


def test_ids_on_the_command_line() -> None:
    one = found({}, ("vfio-pci.ids=10de:2786",))["command-line"]
    assert "GRUB_CMDLINE_LINUX_DEFAULT" in one.remedy
    fedora = found({"/etc/os-release": "ID=fedora\n"}, ("vfio-pci.ids=10de:2786",))["command-line"]
    assert fedora.remedy == "`sudo grubby --update-kernel=ALL --remove-args=vfio-pci.ids=10de:2786` and reboot."


@pytest.mark.parametrize(
    ("release", "removes", "renews"),
    [
        ("ID=bazzite\nID_LIKE=fedora\nOSTREE_VERSION='43'\n", "`sudo rpm-ostree kargs --delete-if-present={}` and reboot.",
         "Remove that line and reboot."),
        ("ID=pop\n", "`sudo kernelstub -d {}` and reboot.", "Remove that line, then `sudo update-initramfs -u` and reboot."),
        ("ID=void\n", "Remove {} from the kernel command line of your boot loader, and reboot.",
         "Remove that line, then make the initial ram disk anew and reboot."),
    ],
)  # fmt: skip
def test_what_is_typed_elsewhere(release: str, removes: str, renews: str) -> None:
    word = "vfio-pci.ids=10de:2786"
    here = found({"/etc/os-release": release, "/etc/modprobe.d/vfio.conf": "options vfio-pci ids=10de:2786\n"}, (word,))
    assert here["command-line"].remedy == removes.format(word)
    assert here["modprobe"].remedy == renews


def test_others_that_would_fight() -> None:
    assert found({"/etc/supergfxd.conf": '{"mode": "Vfio"}'})["supergfxctl"].severity is Severity.PROBLEM
    assert "unset-override 0000:01:00.1" in found({"/etc/driverctl.d/0000:01:00.1": "vfio-pci"})["driverctl"].remedy
    assert "driverctl" not in found({"/etc/driverctl.d/0000:09:00.0": "vfio-pci"})
    assert found({"/etc/modprobe.d/b.conf": "blacklist nvidia_drm"})["blacklist"].gpu == "0000:01:00.0"
    assert "blacklist" not in found({"/etc/modprobe.d/b.conf": "blacklist nouveau"})
    assert found({"/etc/initramfs-tools/modules": "vfio_pci"})["initramfs"].severity is Severity.NOTE
