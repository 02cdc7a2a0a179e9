"""Domains of the real libvirt in the test host, and the nested guest that they boot (`guest/init.sh`)."""

from __future__ import annotations

import functools
import shlex
import uuid
from collections.abc import Sequence

from tests.vm.agent import Done
from tests.vm.bench_host import BenchHost

BOOT = 300
"""Seconds that the nested guest may take to boot: emulation inside emulation's host."""
IMAGES = "/var/lib/guest"
LOGS = "/var/log/libvirt/qemu"
GREEN = (0, 0xAA, 0)
"""What the guest fills its console with."""
MEMORY = 192
"""MiB of the guest."""
WORDS = "console=ttyS0 console=tty0 quiet mitigations=off"


class Guest:
    """One domain, and what its guest says on the serial port."""

    def __init__(
        self,
        host: BenchHost,
        name: str = "guest",
        *,
        functions: Sequence[str] | None = None,
        managed: bool = False,
        disk: str = "",
        words: str = "",
    ) -> None:
        self.host, self.name = host, name
        self.functions = host.layout.functions if functions is None else functions
        host.machine.agent.push_text(domain(name, self.functions, managed=managed, disk=disk, words=words), self.file)
        self.virsh(f"define {self.file}")

    def virsh(self, command: str, *, check: bool = True, timeout: float = 200) -> Done:
        """Run virsh."""
        return self.host.run(f"LC_ALL=C virsh --quiet {command}", check=check, timeout=timeout)

    def start(self, *, check: bool = True) -> Done:
        """Start it; returns when libvirt says that it runs, or why it does not."""
        self.host.run(f"rm -f {self.serial_file}")
        return self.virsh(f"start {self.name}", check=check)

    @property
    def file(self) -> str:
        """Where its XML is."""
        return f"/root/{self.name}.xml"

    @property
    def serial_file(self) -> str:
        """Where its serial port goes."""
        return f"{LOGS}/{self.name}-serial.log"

    def wait_for(self, said: str) -> None:
        """Wait until the guest has said something."""
        self.host.wait_for(f"grep -q 'guest: {said}' {self.serial_file}", timeout=BOOT)

    def said(self) -> list[str]:
        """Return what the guest's first process has said."""
        lines = self.host.run(f"grep '^guest: ' {self.serial_file}", check=False).output.splitlines()
        return [line.removeprefix("guest: ").strip() for line in lines]

    def wait_for_end(self) -> None:
        """Wait until libvirt calls it shut off: after its hooks have run."""
        self.host.wait_for(f"virsh domstate {self.name} | grep -q 'shut off'", timeout=120)

    def pid(self) -> str:
        """Return the pid of its QEMU."""
        return self.host.run(f"cat /run/libvirt/qemu/{self.name}.pid").output.strip()


def domain(name: str, functions: Sequence[str], *, managed: bool = False, disk: str = "", words: str = "") -> str:
    """Return the XML as a person would write it."""
    devices = "".join(_hostdev(one, managed=managed) for one in functions)
    if disk:
        devices += (
            f"<disk type='file' device='disk'><driver name='qemu' type='{disk.rpartition('.')[2]}'/><source file='{disk}'/>"
            "<target dev='vda' bus='virtio'/></disk>\n"
        )
    return f"""\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, name)}</uuid>
  <memory unit='MiB'>{MEMORY}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{IMAGES}/vmlinuz</kernel>
    <initrd>{IMAGES}/initrd</initrd>
    <cmdline>{WORDS} {words}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{LOGS}/{name}-serial.log'/></serial>
    <video><model type='none'/></video>
    <memballoon model='none'/>
{devices}  </devices>
</domain>
"""


def _hostdev(address: str, *, managed: bool) -> str:
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    several = " multifunction='on'" if function == "0" else ""
    return (
        f"<hostdev mode='subsystem' type='pci' managed='{'yes' if managed else 'no'}'>"
        f"<source><address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>"
        f"<rom enabled='no'/><address type='pci' bus='0x05' slot='0x00' function='0x{function}'{several}/></hostdev>\n"
    )


def consent(host: BenchHost, *guests: str) -> None:
    """Let guests end the desktop."""
    text = "".join(f'[vm."{guest}"]\nstop-display = true\n' for guest in guests)
    host.run(f"printf %s {shlex.quote(text)} > /etc/gpuhandoff/conf.d/guests.toml; systemctl reload gpuhandoffd")


@functools.cache
def ready(host: BenchHost) -> str:
    """Start libvirtd in a host, and return the name of the machine's snapshot from then.

    A guest without a GPU has run before: what libvirt's first guest loads and starts is libvirt's, not ours.
    """
    consent(host, "guest", "other")
    host.run("systemctl start libvirtd")
    disk = "/var/lib/libvirt/images/first.raw"
    host.run(f"mkdir -p $(dirname {disk}); truncate -s 1M {disk}")
    first = Guest(host, "first", functions=(), disk=disk)
    first.start()
    first.wait_for("up")
    first.virsh("destroy first")
    first.virsh("undefine first")
    host.settle()
    host.save("libvirt")
    return "libvirt"
