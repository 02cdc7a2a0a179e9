"""Domains as libvirt hands them to its hooks: its own form, these quotes, this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CARD = ("0000:01:00.0", "0000:01:00.1")
"""The functions of the RTX 4070 of the simulated machines."""


def address(text: str) -> str:
    """Return a PCI address as the source of a hostdev has it."""
    domain, bus, rest = text.split(":")
    slot, function = rest.split(".")
    return f"<address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"


def hostdev(text: str, *, managed: str = "no", rom: str = "", guest_bus: int = 5) -> str:
    """Return a hostdev; `rom` is its element."""
    return f"""\
    <hostdev mode='subsystem' type='pci' managed='{managed}'>
      <driver name='vfio'/>
      <source>
        {address(text)}
      </source>
      <alias name='hostdev0'/>
      {rom}
      <address type='pci' domain='0x0000' bus='0x{guest_bus:02x}' slot='0x00' function='0x{text[-1]}'/>
    </hostdev>
"""


def domain_xml(
    functions: Sequence[str] = CARD,
    *,
    name: str = "win11",
    memory: int = 1 << 20,
    pins: Sequence[str] = (),
    emulator: str = "",
    pages: str = "",
    managed: str = "no",
    roms: Mapping[str, str] | None = None,
    padding: int = 0,
) -> str:
    """Return a domain; `memory` is in KiB, `pages` the inside of memoryBacking, `padding` bytes of metadata."""
    tune = "".join(f"    <vcpupin vcpu='{number}' cpuset='{cpus}'/>\n" for number, cpus in enumerate(pins))
    tune += f"    <emulatorpin cpuset='{emulator}'/>\n" if emulator else ""
    devices = "".join(hostdev(one, managed=managed, rom=(roms or {}).get(one, "")) for one in functions)
    note = "      <gpu:note xmlns:gpu='urn:x'>von Jürgen, für die Grafikkarte, nicht löschen</gpu:note>\n"
    metadata = f"  <metadata>\n{note * (padding // len(note.encode()))}  </metadata>\n" if padding else ""
    return f"""\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>8d1bd0a2-3f3b-4a0c-9d0e-1f2e3d4c5b6a</uuid>
{metadata}  <memory unit='KiB'>{memory}</memory>
  <currentMemory unit='KiB'>{memory}</currentMemory>
  <memoryBacking>{pages}</memoryBacking>
  <vcpu placement='static'>{max(2, len(pins))}</vcpu>
  <cputune>
{tune}  </cputune>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-10.0'>hvm</type>
    <loader readonly='yes' secure='no' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <source file='/var/lib/libvirt/images/{name}.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </disk>
{devices}  </devices>
</domain>
"""
