"""Who owns the well-known names whose signals we listen to: signals carry their sender's unique name only."""

from __future__ import annotations

from gpuhandoff.messages import Bus, Match, RemoteError, Signal

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"


class Owners:
    """Owners by name, kept up to date by the bus itself."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._followed: set[str] = set()
        self._owners: dict[str, str] = {}

    async def follow(self, name: str) -> None:
        """Know the owner of `name` from now on. Raises RemoteError when the bus cannot tell."""
        if name == DBUS or name.startswith(":"):
            return
        if name not in self._followed:
            await self._bus.subscribe(Match(DBUS, "NameOwnerChanged", sender=DBUS, arg0=name), self._changed)
            self._followed.add(name)
        if name not in self._owners:
            try:
                (owner,) = await self._bus.call(DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", (name,))
            except RemoteError:
                owner = ""
            self._owners.setdefault(name, str(owner))  # a signal that has come meanwhile is newer

    def owner(self, name: str) -> str:
        """Return the unique name behind `name`, empty when nobody has it. The bus speaks under its own name."""
        return name if name == DBUS or name.startswith(":") else self._owners.get(name, "")

    def _changed(self, signal: Signal) -> None:
        name, _, owner = signal.body
        self._owners[str(name)] = str(owner)
