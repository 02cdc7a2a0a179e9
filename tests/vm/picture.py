"""What a display shows, as pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of red, green, blue."""

    width: int
    height: int
    data: bytes

    @classmethod
    def parse(cls, ppm: bytes) -> Picture:
        """Read what QEMU's screendump writes."""
        header = _HEADER.match(ppm)
        if header is None:
            raise ValueError("no picture in PPM format")
        return cls(int(header[1]), int(header[2]), ppm[header.end() :])

    def share(self, colour: tuple[int, int, int]) -> float:
        """Return how much of the picture has exactly this colour, from 0 to 1."""
        wanted = bytes(colour)
        pixels = self.width * self.height
        return sum(self.data[at : at + 3] == wanted for at in range(0, 3 * pixels, 3)) / pixels

    def likeness(self, other: Picture) -> float:
        """Return how many of the pixels are the same, from 0 to 1; pictures of different sizes have none in common."""
        if (self.width, self.height) != (other.width, other.height):
            return 0.0
        pixels = self.width * self.height
        return sum(self.data[at : at + 3] == other.data[at : at + 3] for at in range(0, 3 * pixels, 3)) / pixels
