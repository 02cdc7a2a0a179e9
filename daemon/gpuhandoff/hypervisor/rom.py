"""A file with a card's ROM, as libvirt gives it to a guest: whether it is one, and whether it is this card's.

One expansion ROM holds several images, each with a header of its own (PCI Firmware Specification 3.x, 5.1). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

LARGEST = 2 << 20
"""Bytes that are read; a card's flash has at most that."""
_SIGNATURE = b"\x55\xaa"
_BLOCK = 512
_POINTER = 0x18
_IMAGES = 16


def problem_of(data: bytes, vendor: int, device: int) -> str:
    """Return what is wrong with a ROM for a card with these ids, in words; empty when nothing is."""
    if not data.startswith(_SIGNATURE):
        begin = next((place for place in _places(data) if _ids(data, place)), -1)
        if begin > 0:
            return (
                f"it begins with a header of the tool that read it, and the ROM itself at byte {begin}: "
                f"cut that off (tail -c +{begin + 1})"
            )
        return "it does not begin with 55 aa, as every ROM does"
    found = [ids for place in _images(data) for ids in _ids(data, place)]
    if not found:
        return "it has no image that says for which card it is"
    if (vendor, device) in found:
        return ""
    named = ", ".join(dict.fromkeys(f"{maker:04x}:{model:04x}" for maker, model in found))
    return f"it is that of another card: {named}, not {vendor:04x}:{device:04x}"


def _places(data: bytes) -> Iterator[int]:
    """Yield where the signature occurs."""
    place = data.find(_SIGNATURE)
    while place >= 0:
        yield place
        place = data.find(_SIGNATURE, place + 1)


def _images(data: bytes) -> Iterator[int]:
    """Yield where each image begins."""
    place = 0
    for _ in range(_IMAGES):
        structure = _structure(data, place)
        if structure < 0:
            return
        yield place
        length = int.from_bytes(data[structure + 16 : structure + 18], "little") * _BLOCK
        if data[structure + 21 : structure + 22] >= b"\x80" or not length:
            return
        place += length


def _structure(data: bytes, place: int) -> int:
    """Return where the structure of an image is that says what it is for, -1 when there is none."""
    if data[place : place + 2] != _SIGNATURE:
        return -1
    structure = place + int.from_bytes(data[place + _POINTER : place + _POINTER + 2], "little")
    whole = data[structure : structure + 4] == b"PCIR" and len(data) >= structure + 24
    return structure if whole else -1


def _ids(data: bytes, place: int) -> list[tuple[int, int]]:
    """Return the cards that an image is for: the one it names, and those of its list."""
    structure = _structure(data, place)
    if structure < 0:
        return []
    vendor = int.from_bytes(data[structure + 4 : structure + 6], "little")
    found = [(vendor, int.from_bytes(data[structure + 6 : structure + 8], "little"))]
    listed = int.from_bytes(data[structure + 8 : structure + 10], "little")
    at = structure + listed
    while listed and len(found) < _BLOCK and (model := int.from_bytes(data[at : at + 2], "little")):
        found.append((vendor, model))
        at += 2
    return found
