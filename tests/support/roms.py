"""ROM images as cards have them."""

from __future__ import annotations


def image(vendor: int, *devices: int, last: bool = True, blocks: int = 2, code: int = 0) -> bytes:
    """Return one image; further devices go into its list."""
    structure = bytearray(24)
    structure[:4] = b"PCIR"
    structure[4:6] = vendor.to_bytes(2, "little")
    structure[6:8] = devices[0].to_bytes(2, "little")
    structure[16:18] = blocks.to_bytes(2, "little")
    structure[20] = code
    structure[21] = 0x80 if last else 0
    more = b""
    if devices[1:]:
        structure[8:10] = len(structure).to_bytes(2, "little")
        more = b"".join(device.to_bytes(2, "little") for device in devices[1:]) + bytes(2)
    head = bytearray(0x40)
    head[:2] = b"\x55\xaa"
    head[0x18:0x1A] = (0x40).to_bytes(2, "little")
    return (bytes(head) + bytes(structure) + more).ljust(blocks * 512, b"\xff")
