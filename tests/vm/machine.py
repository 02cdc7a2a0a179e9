"""One QEMU process with an emulated IOMMU: software emulation unless told otherwise, as a /dev/kvm may not run a kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.vm.agent import Agent, Done
from tests.vm.image import Image
from tests.vm.picture import Picture
from tests.vm.qmp import Monitor
from tests.vm.tally import SILENCES

OVMF = Path("/usr/share/OVMF")
BOOT = 400
"""Seconds from power-on to the agent's answer on a slow machine."""


class Machine:
    """A running test host."""

    def __init__(self, image: Image, devices: Sequence[str]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gpuhandoff-vm-"))
        disk = self.directory / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.disk), str(disk)], check=True
        )
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", self.directory / "vars.fd")
        # savevm needs qcow2 for everything that can be written.
        subprocess.run(
            ["qemu-img", "convert", "-O", "qcow2", str(self.directory / "vars.fd"), str(self.directory / "vars.qcow2")],
            check=True,
        )
        with (self.directory / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(image, disk, devices),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=image.emulator.environment,
            )
        self.monitor = Monitor(self.directory / "qmp")
        self.agent = Agent(self.directory / "agent", self._silent)

    def _command(self, image: Image, disk: Path, devices: Sequence[str]) -> list[str]:
        accelerator = os.environ.get("GPUHANDOFF_VM_ACCEL", "tcg,thread=multi")
        arguments = [arg for device in devices for arg in ("-device", device)]
        return [
            *image.emulator.command,
            *("-machine", "q35,kernel-irqchip=split", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "4096"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"),
            # The chipset's watchdog, which runs from the start, would switch a host off that has fallen silent, unseen.
            *("-action", "watchdog=none"),
            *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"),
            *("-drive", f"if=pflash,format=qcow2,file={self.directory / 'vars.qcow2'}"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *(
                "-append",
                "root=LABEL=root rw intel_iommu=on console=tty0 console=ttyS0 quiet mitigations=off clocksource=hpet",
            ),
            *("-serial", f"file:{self.directory / 'serial.log'}"),
            *("-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off"),
            *("-drive", f"if=none,id=disk,format=qcow2,file={disk},cache=unsafe"),
            # eim: the kernel chooses x2APIC, whose registers are not in memory. QEMU looks up where a store goes, then waits
            # for its lock; if another processor changes the map of memory meanwhile, as the reset of a card does, the store
            # goes astray. Probably that way, about once in thirty guests, the end of an interrupt got lost: its bit stayed
            # set in the local APIC, and the processor slept for good.
            *("-device", "intel-iommu,intremap=on,eim=on,caching-mode=on"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={self.directory / 'agent'},server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-audiodev", "none,id=silence"),
            *arguments,
        ]

    def wait_for_boot(self) -> None:
        """Wait for the agent, then for everything that systemd starts."""
        self.agent.sync(BOOT)
        self.run("systemctl is-system-running --wait", timeout=BOOT, check=False)

    def run(self, command: str, *, timeout: float = 120, check: bool = True) -> Done:
        """Run a shell command inside; raises AssertionError when it fails and `check` is set."""
        done = self.agent.run(command, timeout)
        if check and done.status:
            raise AssertionError(f"{command}\nexit status {done.status}\n{done.output}{done.errors}")
        return done

    def save(self, name: str) -> None:
        """Keep the whole machine as it is now."""
        self.monitor.human(f"savevm {name}")

    def restore(self, name: str) -> None:
        """Be as it was then."""
        self.monitor.human(f"loadvm {name}")
        self.agent.sync(30)

    def cut_power(self) -> None:
        """Lose what is in memory, and boot again.

        What the guest's kernel has written to its disk is there afterwards, what it had only in its caches is not. Not
        shown: a disk that loses what it was given and not told to flush.
        """
        self.monitor.reset()
        self.wait_for_boot()

    def screenshot(self, target: Path) -> None:
        """Write what the first display shows as PNG."""
        self.monitor.execute("screendump", filename=str(target), format="png")

    def picture(self) -> Picture:
        """Return what the first display shows."""
        target = self.directory / "screen.ppm"
        self.monitor.execute("screendump", filename=str(target))
        return Picture.parse(target.read_bytes())

    def rouse(self) -> None:
        """Interrupt the machine from outside, with what changes nothing: a key and a mouse do."""
        key = {"type": "key", "data": {"down": False, "key": {"type": "qcode", "data": "shift"}}}
        mouse = {"type": "rel", "data": {"axis": "x", "value": 1}}
        self.monitor.execute("input-send-event", events=[key])
        self.monitor.execute("input-send-event", events=[mouse])

    def _silent(self) -> None:
        """Rouse a machine in which nobody answers.

        About once in forty nested guests both processors sleep for good, as if an interrupt had been lost. It may be that:
        QEMU's svm_helper.c notes without a lock what a processor has to look at (before 10.2). Then the next one from
        wherever makes them look.
        """
        SILENCES.append("\n".join(self.monitor.ask(line) for line in ("info registers -a", "info lapic 0", "info lapic 1")))
        self.rouse()

    def ended(self, patience: float = 0) -> int | None:
        """Return the exit status of the emulator, negative after a signal; None while it runs.

        Its sockets close a moment before there is one: hence some seconds of patience for whoever saw that.
        """
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def outside(self) -> str:
        """Return what can be seen of a machine in which nobody answers."""
        try:
            seen = [f"{line}:\n{self.monitor.ask(line)}" for line in ("info status", "info cpus", "info registers -a")]
        except OSError as error:
            seen = [f"QEMU does not answer either: {error!r}, exit status {self.ended(patience=5)}"]
        serial = (self.directory / "serial.log").read_text(errors="replace")
        return "\n".join(
            [*seen, f"serial port:\n{serial[-6000:]}", (self.directory / "qemu.log").read_text(errors="replace")]
        )

    def stop(self) -> None:
        """Switch the machine off and forget it."""
        self.agent.close()
        self.monitor.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
