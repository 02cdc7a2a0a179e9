"""PCI addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?:(?P<domain>[0-9a-f]{4}):)?(?P<bus>[0-9a-f]{2}):(?P<device>[01][0-9a-f])\.(?P<function>[0-7])")


@dataclass(frozen=True, slots=True, order=True)
class PciAddress:
    """Domain, bus, device and function of a PCI function; sorts in that order."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """Parse `0000:01:00.0` or `01:00.0` (domain 0); raises ValueError."""
        found = _FORM.fullmatch(text.lower())
        if found is None:
            raise ValueError(f"{text[:40]!r} is not a PCI address such as 0000:01:00.0")
        return cls(
            int(found["domain"] or "0", 16),
            int(found["bus"], 16),
            int(found["device"], 16),
            int(found["function"], 16),
        )

    def __str__(self) -> str:
        """Return the form that sysfs uses, `0000:01:00.0`."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"

    @property
    def sysfs(self) -> str:
        """The device's directory in sysfs."""
        return f"/sys/bus/pci/devices/{self}"

    def same_slot(self, other: PciAddress) -> bool:
        """Tell whether both are functions of one device."""
        return (self.domain, self.bus, self.device) == (other.domain, other.bus, other.device)
