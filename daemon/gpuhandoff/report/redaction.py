"""What a support report does not name: people, their homes, virtual machines, the host, identifiers, boot parameters.

Each becomes a placeholder, the same one wherever the report names the same thing: user1, vm1, uuid1. Pure: what is a name
follows from the document and from what the caller knows. Arguments of processes are never gathered in the first place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

LEFT_OUT = (
    "names of users (user1, ...) and of virtual machines (vm1, ...)",
    "paths below home directories",
    "the name of the host",
    "UUIDs, serial numbers, MAC and IP addresses (uuid1, serial1, mac1, ip1, ...)",
    "boot parameters that have nothing to do with GPUs",
)

FIRST_PERSON = 1000
"""The lowest uid of a person; those below are services, whose names tell nothing about anybody."""

_OURS = {"state", "operation", "outcome", "why", "step", "phase", "back", "driver", "result"}
"""Keys whose values are our own words, whoever is called like one of them; a sentence there is none."""
_WORD = re.compile(r"[a-z0-9_-]{1,32}")
_SHORTEST = 2
"""Characters of a name that is looked for in texts; a shorter one would be found everywhere."""
_LETTER = r"(?:[^\s\"'\\:;,)]|\\(?:x[0-9a-f]{2}|[0-7]{3}|[ ]))"
"""Of a path in a text, also one that is escaped."""
_PART = r"[^\s\"'\\:;,)/=]+"
_AFTER_SPACES = rf"(?:[ ]{_PART}){{0,4}}?[ ](?:{_PART}/{_LETTER}*|{_PART}\.[a-z]\w{{0,4}}(?!\w))"
"""What is still the path: all up to a word that has a slash inside of it, or a file's extension; better too much."""
_HOME = re.compile(
    rf"""
    (?:(?P<quote>["'])(?=(?:(?!(?P=quote))[^\n])*(?P=quote)))?
    (?:(?P<above>/(?:var/)?home/|/run/media/|/media/)(?P<user>[^/\s"'\\:;,)]+)|(?P<root>/root)(?=/{_LETTER}))
    (?(quote)(?:(?!(?P=quote))[^\n])*|(?:/{_LETTER}*(?:{_AFTER_SPACES})*)?)
    """,
    re.VERBOSE,
)
_HEXADECIMAL_PATH = re.compile(r"(?<==)2F(?:[0-9A-F]{2}){3,}(?![0-9A-Za-z])")
"""As the kernel's audit writes a path that has a space in it."""
_UUID = re.compile(r"(?<![0-9a-f])(?P<it>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})(?![0-9a-f])", re.IGNORECASE)
_SERIAL = re.compile(r"\bserial(?:[ _-]?(?:number|no\.?))?\s*[:=]\s*[\"']?(?P<it>[^\s\"',;]+)", re.IGNORECASE)
_MAC = re.compile(
    r"(?<![0-9a-f:.-])(?P<it>[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\2){4}[0-9a-f]{2}|(?<=enx)[0-9a-f]{12})(?![0-9a-f:.-])",
    re.IGNORECASE,
)
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"(?<![\w.])(?<!version )(?<!firmware )(?<!BIOS )(?P<it>(?:{_BYTE}\.){{3}}{_BYTE})(?!\w|\.[0-9])", re.IGNORECASE
)
_IPV6 = re.compile(
    r"(?<![\w:.])"
    r"(?P<it>(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}|(?:[0-9a-f]{1,4}:){1,7}:)"
    r"(?![\w:])",
    re.IGNORECASE,
)
_IDENTIFIERS = (("uuid", _UUID), ("serial", _SERIAL), ("mac", _MAC), ("ip", _IPV4), ("ip", _IPV6))
_MACHINE_SCOPE = re.compile(r"(machine-)[^/\s]+(\.scope)")
_MACHINE_DIRECTORY = re.compile(r"(/domain-[0-9]+-)[^/\s\"']+")
_BOOT_LINE = re.compile(r"(command line: )(.*)", re.IGNORECASE | re.DOTALL)
_BOOT_PARAMETER = re.compile(
    r"""
    ( (?:intel_|amd_)?iommu(?:_\w+)? | intremap
    | (?:vfio|kvm|nvidia|drm|pcie?|pciehp)(?:_\w+)?
    | amdgpu | radeon | nouveau | i915 | xe | ast | bochs | virtio_gpu | snd_hda_\w+
    | video | vga | vgacon | nomodeset | fbcon | (?:efi|vesa|uvesa|simple|sys)fb | simpledrm
    | (?:default_)?hugepages | (?:default_)?hugepagesz | hugetlb_\w+ | transparent_hugepage
    | (?:isol|max|nr_|possible_)cpus | nohz(?:_full)? | rcu(?:_\w+|tree|pdate) | (?:no|thread)?irq\w*
    | (?:rd\.)?modules_load | rd\.driver\.\w+ | (?:module_|modprobe\.|initcall_)blacklist
    | mem_encrypt | lockdown | console(?:blank)? | splash | quiet
    ) (?:\.\w+)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Whole names, with underscores: a parameter may carry such a word and have nothing to do with it (netconsole)."""


def redact(document: Any, *, users: Iterable[str] = (), hosts: Iterable[str] = ()) -> Any:
    """Return a JSON document without what `LEFT_OUT` lists.

    `users` and `hosts` are names that are known; the document's own keys user, vm and vms say more.
    """
    people = {*users, *_named(document, "user")} - {"", "root", "nobody"}
    machines = {*_named(document, "vm")} - {""}
    return _Redaction(people, machines, {*hosts} - {"", "localhost"}).value(document)


class _Redaction:
    def __init__(self, users: Collection[str], machines: Collection[str], hosts: Collection[str]) -> None:
        self._places: dict[str, str] = {}
        for kind, names in (("host", hosts), ("vm", machines), ("user", users)):
            self._places |= {name: f"{kind}{number}" for number, name in enumerate(sorted(names), 1)}
        self._identifiers: dict[str, str] = {}
        self._spelled = {
            spelling.lower(): place
            for name, place in self._places.items()
            if len(name) >= _SHORTEST and not name.isdigit()
            for spelling in (name.replace("-", "\\x2d"), name)  # as in the names of units
        }
        self._names = _pattern(self._spelled)

    def value(self, value: Any, key: str = "") -> Any:
        match value:
            case str():
                return self._own(value, key)
            case list() | tuple():
                return [self.value(one, key) for one in value]
            case Mapping() if key == "vms":
                return {self._places.get(name, name): self.value(one) for name, one in value.items()}
            case Mapping():
                return {name: self.value(one, name) for name, one in value.items()}
        return value

    def _own(self, text: str, key: str) -> str:
        if key.lower() in _OURS and _WORD.fullmatch(text):
            return text
        if key in {"vm", "user"}:
            return self._places.get(text, text)
        text = _BOOT_LINE.sub(_boot_parameters, text)
        text = _HOME.sub(self._home, text)
        text = _HEXADECIMAL_PATH.sub("…", text)
        text = _MACHINE_SCOPE.sub(r"\1…\2", text)
        text = _MACHINE_DIRECTORY.sub(r"\1…", text)
        for kind, pattern in _IDENTIFIERS:
            text = pattern.sub(self._identifier(kind), text)
        return self._names.sub(lambda found: self._spelled.get(found[0].lower(), "…"), text)

    def _home(self, found: re.Match[str]) -> str:
        quote = found["quote"] or ""
        if found["root"]:
            return f"{quote}/root/…"
        return f"{quote}{found['above']}{self._places.get(found['user'], 'someone')}/…"

    def _identifier(self, kind: str) -> Callable[[re.Match[str]], str]:
        def place(found: re.Match[str]) -> str:
            count = sum(one.startswith(kind) for one in self._identifiers.values())
            one = self._identifiers.setdefault(found["it"].lower(), f"{kind}{count + 1}")
            return found[0].removesuffix(found["it"]) + one

        return place


def _named(document: Any, key: str) -> Iterator[str]:
    """Yield what a document says under a key, and the keys of the table of its plural."""
    match document:
        case list() | tuple():
            for one in document:
                yield from _named(one, key)
        case Mapping():
            for name, value in document.items():
                if name == key and isinstance(value, str) and not _of_the_system(document):
                    yield value
                elif name == f"{key}s" and isinstance(value, Mapping):
                    yield from value
                yield from _named(value, key)


def _of_the_system(document: Mapping[str, Any]) -> bool:
    """Tell a service from a person, by the uid beside its name, or that of the process that is told of."""
    process = document.get("process")
    uid = process.get("uid") if isinstance(process, Mapping) else document.get("uid")
    return "user" in document and isinstance(uid, int) and uid < FIRST_PERSON


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds names as words, also where systemd's escape of a dash precedes them."""
    words = "|".join(re.escape(one) for one in sorted(names, key=lambda one: (-len(one), one)))
    return re.compile(rf"(?:(?<![^\W_])|(?<=\\x2d))(?:{words})(?![^\W_])" if words else r"(?!)", re.IGNORECASE)


def _boot_parameters(found: re.Match[str]) -> str:
    kept = [word if _concerns_gpus(word) else "…" for word in found[2].split()]
    return found[1] + " ".join(word for index, word in enumerate(kept) if word != "…" or kept[index - 1 : index] != ["…"])


def _concerns_gpus(word: str) -> bool:
    name, _, _ = word.partition("=")
    return _BOOT_PARAMETER.fullmatch(name.replace("-", "_")) is not None
