"""A file system in memory: /sys, /proc, /dev and a few files of the simulated machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Reader = Callable[[], str]
Writer = Callable[[str], Awaitable[None] | None]


@dataclass(slots=True)
class Directory:
    """A directory: the names in it."""

    names: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Link:
    """A symbolic link with an absolute target."""

    target: str


@dataclass(slots=True)
class Attribute:
    """A file whose text is computed when it is read, and which may react to a write."""

    read: Reader | None
    write: Writer | None = None


@dataclass(eq=False, slots=True)
class Node:
    """A device node. It lives on in the hands of those who have it open after its name is gone from /dev.

    `module` is the module that an open reference pins, `device` the sysfs path of the device behind it.
    """

    path: str
    number: int
    module: str | None = None
    device: str = ""


Entry = Directory | Link | Attribute | Node


def failure(number: int, path: str) -> OSError:
    """Return the OSError that a system call with this errno raises."""
    return OSError(number, os.strerror(number), path)


def _split(path: str) -> tuple[str, str]:
    """Return the directory and the name in it."""
    above, _, name = path.rpartition("/")
    return above or "/", name


class Tree:
    """Entries by physical path: one in which no component is a symbolic link."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {"/": Directory()}
        self._resolved: dict[str, str] = {}
        """What `resolve` found since a link last came or went."""

    def add(self, path: str, entry: Entry) -> None:
        """Put an entry at a physical path, with the directories above it."""
        above, name = _split(path)
        directory = self._entries.get(above)
        if directory is None:
            directory = Directory()
            self.add(above, directory)
        if not isinstance(directory, Directory):
            raise failure(errno.ENOTDIR, above)
        directory.names.add(name)
        self._forget_resolved(self._entries.get(path), entry)
        self._entries[path] = entry

    def directory(self, path: str) -> None:
        """Make a directory unless it is there."""
        if path not in self._entries:
            self.add(path, Directory())

    def text(self, path: str, text: str | Reader, write: Writer | None = None) -> None:
        """Make a file of fixed or computed text."""
        self.add(path, Attribute(text if callable(text) else lambda: text, write))

    def trigger(self, path: str, write: Writer) -> None:
        """Make a file that can only be written."""
        self.add(path, Attribute(None, write))

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        self.add(path, Link(target))

    def remove(self, path: str) -> None:
        """Remove an entry and everything below it; nothing happens when it is not there."""
        entry = self._entries.pop(path, None)
        if entry is None:
            return
        self._forget_resolved(entry)
        if isinstance(entry, Directory):
            for name in sorted(entry.names):
                self.remove(f"{path}/{name}")
        above, name = _split(path)
        directory = self._entries.get(above)
        if isinstance(directory, Directory):
            directory.names.discard(name)

    def resolve(self, path: str) -> str:
        """Return the physical path; components that do not exist stay as they are."""
        known = self._resolved.get(path)
        if known is not None:
            return known
        above, _, name = path.rstrip("/").rpartition("/")
        found = f"{self.resolve(above) if above else ''}/{name}".replace("//", "/")
        entry = self._entries.get(found)
        if isinstance(entry, Link):
            found = self.resolve(entry.target)
        self._resolved[path] = found
        return found

    def find(self, path: str) -> Entry | None:
        """Return what is at `path`, links followed."""
        return self._entries.get(self.resolve(path))

    def find_link(self, path: str) -> Link | None:
        """Return the link at `path` itself, links above it followed."""
        above, name = _split(path)
        entry = self._entries.get(f"{self.resolve(above)}/{name}")
        return entry if isinstance(entry, Link) else None

    def attribute(self, path: str) -> Attribute:
        """Return the file at `path`; raises OSError as open(2) would."""
        entry = self.find(path)
        if entry is None:
            raise failure(errno.ENOENT, path)
        if isinstance(entry, Directory):
            raise failure(errno.EISDIR, path)
        if not isinstance(entry, Attribute):
            raise failure(errno.EACCES, path)
        return entry

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; empty when there is none."""
        entry = self.find(path)
        return sorted(entry.names) if isinstance(entry, Directory) else []

    def node(self, path: str) -> Node | None:
        """Return the device node at `path`."""
        entry = self.find(path)
        return entry if isinstance(entry, Node) else None

    def nodes(self) -> list[Node]:
        """Return every device node that has a name."""
        return [entry for entry in self._entries.values() if isinstance(entry, Node)]

    def _forget_resolved(self, *entries: Entry | None) -> None:
        for entry in entries:
            if isinstance(entry, Link):
                self._resolved.clear()
