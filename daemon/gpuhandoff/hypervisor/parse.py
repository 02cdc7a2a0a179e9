"""Reads a domain's XML. No document type, no entities, bounded in size and depth: nothing in it can make us read more."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from xml.parsers import expat

from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.hypervisor.domain import DEFAULT_PAGE, Domain, Hostdev
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.cpus import from_mask, parse_mask

LARGEST = 1 << 20
"""Bytes of UTF-8."""
DEEPEST = 64
"""Elements inside of each other; libvirt's own schema stays below 20."""
MOST_ELEMENTS = 20_000
"""Of all; large domains have a few hundred."""
MOST_VCPUS = 8192
MOST_MEMORY = 1 << 60
"""Bytes."""
LONGEST_PINS = 4096
"""Characters of one set of CPUs."""

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,8}")
_AMOUNT = re.compile(r"[0-9]{1,19}")
_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15}
_LIMITS = {"domain": 0xFFFF, "bus": 0xFF, "slot": 0x1F, "function": 0x7}


def parse_domain(xml: str) -> Domain:
    """Return what a `<domain>` says. Raises InvalidArgsError, with the place, when it is not what libvirt writes."""
    root = _tree(xml)
    if root.tag != "domain" or "xmlns" in root.attrib:
        raise InvalidArgsError("xml: the XML of a domain is expected.")
    return Domain(
        name=(root.findtext("name") or "").strip(),
        hostdevs=tuple(_hostdev(one) for one in root.iterfind("devices/hostdev[@type='pci']")),
        memory=_memory(root),
        huge_page_sizes_kib=_pages(root),
        vcpus=_vcpus(root),
        vcpu_pins=_vcpu_pins(root),
        emulator_pins=_pins(root, "cputune/emulatorpin"),
        iothread_pins=_pins(root, "cputune/iothreadpin"),
        firmware=_firmware(root),
    )


def _tree(xml: str) -> ET.Element:
    try:
        size = len(xml.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgsError("xml: text is expected.") from error
    if size > LARGEST:
        raise InvalidArgsError(f"xml: the domain's XML has {size >> 10} KiB; at most {LARGEST >> 10} KiB are read.")
    builder, parser = ET.TreeBuilder(), expat.ParserCreate()
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if count > MOST_ELEMENTS:
            raise InvalidArgsError(f"xml: there are more than {MOST_ELEMENTS} elements.")
        if depth > DEEPEST:
            raise InvalidArgsError(f"xml: elements are nested more than {DEEPEST} deep.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise InvalidArgsError("xml: a document type or entities have no place in a domain's XML.")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(xml, True)
        return builder.close()
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise InvalidArgsError(f"xml: line {error.lineno} is no XML: {what}.") from error


def _hostdev(element: ET.Element) -> Hostdev:
    address = element.find("source/address")
    rom = element.find("rom")
    if address is None:
        raise InvalidArgsError("xml: a hostdev of the type pci names no address.")
    shown = rom.get("bar") if rom is not None else None
    if rom is not None and rom.get("enabled") == "no":
        shown = "off"
    return Hostdev(
        PciAddress(
            _part(address.attrib, "domain"),
            _part(address.attrib, "bus"),
            _part(address.attrib, "slot"),
            _part(address.attrib, "function"),
        ),
        managed=element.get("managed") == "yes",
        rom_bar={"on": True, "off": False}.get(shown or ""),
        rom_file=rom.get("file", "") if rom is not None else "",
    )


def _part(attributes: Mapping[str, str], name: str) -> int:
    text = attributes.get(name, "0" if name == "domain" else "")
    value = int(text, 16 if text[:2] in {"0x", "0X"} else 10) if _NUMBER.fullmatch(text) else -1
    if not 0 <= value <= _LIMITS[name]:
        raise InvalidArgsError(f"xml: {name} of a hostdev's address is not a number from 0 to {_LIMITS[name]:#x}.")
    return value


def _memory(root: ET.Element) -> int:
    element = root.find("memory")
    return _size(element.text or "", element.get("unit", "KiB"), "memory") if element is not None else 0


def _pages(root: ET.Element) -> frozenset[int]:
    if root.find("memoryBacking/hugepages") is None:
        return frozenset()
    pages = root.findall("memoryBacking/hugepages/page")
    sizes = {_size(page.get("size", ""), page.get("unit", "KiB"), "the size of a page") >> 10 for page in pages}
    return frozenset(sizes or {DEFAULT_PAGE})


def _size(text: str, unit: str, what: str) -> int:
    amount, factor = text.strip(), _UNITS.get(unit.lower())
    size = int(amount) * factor if factor and _AMOUNT.fullmatch(amount) else -1
    if not 0 <= size <= MOST_MEMORY:
        raise InvalidArgsError(f"xml: {what} is not a size.")
    return size


def _vcpus(root: ET.Element) -> int:
    text = (root.findtext("vcpu") or "1").strip()
    count = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= count <= MOST_VCPUS:
        raise InvalidArgsError(f"xml: vcpu is not a number from 1 to {MOST_VCPUS}.")
    return count


def _vcpu_pins(root: ET.Element) -> frozenset[int]:
    """Those of each vCPU; one that has none of its own runs where `<vcpu cpuset>` says."""
    pins = _pins(root, "cputune/vcpupin")
    pinned = {one.get("vcpu") for one in root.iterfind("cputune/vcpupin")}
    vcpu = root.find("vcpu")
    others = vcpu.get("cpuset", "") if vcpu is not None else ""
    return pins | from_mask(_cpus(others, "vcpu")) if others and len(pinned) < _vcpus(root) else pins


def _pins(root: ET.Element, path: str) -> frozenset[int]:
    found = 0
    for element in root.iterfind(path):
        found |= _cpus(element.get("cpuset", ""), path.rpartition("/")[2])
    return from_mask(found)


def _cpus(text: str, what: str) -> int:
    """Libvirt's list format, in which ^3 takes a CPU out again, as a mask: a domain may have thousands of them."""
    parts = text.replace(" ", "").split(",")
    try:
        if len(text) > LONGEST_PINS:
            raise ValueError
        within = parse_mask(",".join(part for part in parts if not part.startswith("^")))
        return within & ~parse_mask(",".join(part[1:] for part in parts if part.startswith("^")))
    except ValueError as error:
        raise InvalidArgsError(f"xml: the cpuset of {what} is not a list of CPUs such as 2-7.") from error


def _firmware(root: ET.Element) -> str:
    operating_system = root.find("os")
    loader = root.find("os/loader")
    if operating_system is not None and operating_system.get("firmware"):
        return operating_system.get("firmware", "")
    return "" if loader is None else "efi" if loader.get("type") == "pflash" else "bios"
