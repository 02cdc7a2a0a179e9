"""What a support report names, and what not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpuhandoff.report.redaction import redact

UUID = "3f0c2f4e-5d0a-4b57-9a39-0c6f7b1d2e88"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("the session of alice ends", "the session of user1 ends"),
        ("Alice's desktop", "user1's desktop"),
        ("malice and alice2 and alicea", "malice and alice2 and alicea"),
        ("app-alice-1.scope", "app-user1-1.scope"),
        ("/home/alice/.config/x y", "/home/user1/… y"),
        ("exe='/var/home/bob/vm.qcow2'", "exe='/var/home/user2/…'"),
        ("/home/carol/secret and /root/.ssh/id", "/home/someone/… and /root/…"),
        ("/run/media/alice/stick/x", "/run/media/user1/…"),
        ("is lent to win-11", "is lent to vm1"),
        ("WIN-11.", "vm1."),
        ("/machine.slice/machine-qemu\\x2d1\\x2dother.scope/libvirt", "/machine.slice/machine-….scope/libvirt"),
        ("vm-win\\x2d11.service", "vm-vm1.service"),
        ("on tower.example.org and tower", "on host2 and host1"),
        (f"boot {UUID}, {UUID.upper()}", "boot uuid1, uuid1"),
        ("eth0: 52:54:00:12:34:56", "eth0: mac1"),
        ("xe on 52-54-00-12-34-56, enx525400123456", "xe on mac1, enxmac2"),
        ("NVRM: GPU Board Serial Number: 0322118094021", "NVRM: GPU Board Serial Number: serial1"),
        ("usb 1-1: SerialNumber: 0815 serial='0815'", "usb 1-1: SerialNumber: serial1 serial='serial1'"),
        ("from tcp:192.168.1.77 and fe80::5054:ff:fe12:3456", "from tcp:ip1 and ip2"),
        ("2001:db8:0:0:0:0:0:1 is not 10.0.0.7:6666.", "ip2 is not ip1:6666."),
        ("DMUB version 0.0.224.0, vBIOS 94.02.71.80.b2, 12:00:05 0000:01:00",) * 2,
        ("rom /home/alice/My Secret Project/gpu.rom", "rom /home/user1/…"),
        (
            "The ROM file /media/alice/My Stick/my rom.rom of 0000:01:00.0 is not there.",
            "The ROM file /media/user1/… of 0000:01:00.0 is not there.",
        ),
        ("name=\"/home/alice/Carol's Secret\" comm='x y'", "name=\"/home/user1/…\" comm='x y'"),
        (
            "mount /home/bob/My\\040Secret\\x20Disk/a b and /home/bob/My\\ Disk\\x",
            "mount /home/user2/… b and /home/user2/…\\x",
        ),
        ("it's /root/My Secret/x, and so on", "it's /root/…, and so on"),
        ("audit: name=2F686F6D652F616C6963652F4120422E726F6D kvm", "audit: name=… kvm"),
        ("/var/lib/libvirt/qemu/domain-3-payroll/monitor.sock", "/var/lib/libvirt/qemu/domain-3-…/monitor.sock"),
        ("0000:01:00.0: vfio_bar_restore 01:00.0", "0000:01:00.0: vfio_bar_restore 01:00.0"),
        (
            "Command line: BOOT_IMAGE=/vmlinuz root=/dev/mapper/vg ro intel_iommu=on vfio-pci.ids=10de:2786 me=alice",
            "Command line: … intel_iommu=on vfio-pci.ids=10de:2786 …",
        ),
        (
            "Command line: netconsole=6666@10.0.0.7/eth0 init=/xe quiet fixed=1 console=tty0 drm.debug=1 xenial=kvm mypci=1",
            "Command line: … quiet … console=tty0 drm.debug=1 …",
        ),
        (
            "Kernel command line: rd.driver.pre=vfio-pci kvm-amd.npt=1 pcie_aspm=off xx isolcpus=1 modprobe.blacklist=xe",
            "Kernel command line: rd.driver.pre=vfio-pci kvm-amd.npt=1 pcie_aspm=off … isolcpus=1 modprobe.blacklist=xe",
        ),
    ],
)
def test_what_a_text_does_not_name(text: str, redacted: str) -> None:
    document = {"vm": "win-11", "text": text}
    found = redact(document, users=["alice", "bob"], hosts=["tower", "tower.example.org"])
    assert found == {"vm": "vm1", "text": redacted}


def test_one_thing_has_one_name_everywhere() -> None:
    document = {
        "configuration": {"vms": {"win11": {"cpus": "0-1"}, "work": {}}},
        "history": [{"vm": "win11", "message": "win11 took 0000:01:00.0"}, {"vm": "", "message": f"{UUID} work"}],
        "machine": {"boot_id": UUID, "sessions": [{"user": "alice", "uid": 1000}, {"user": "sddm", "uid": 110}]},
        "holders": [{"user": one, "process": {"uid": uid}} for one, uid in (("ollama", 998), ("bob", 1001))],
        "log": ["alice", "sddm", "ollama.service", "bob"],
    }
    assert redact(document) == {
        "configuration": {"vms": {"vm1": {"cpus": "0-1"}, "vm2": {}}},
        "history": [{"vm": "vm1", "message": "vm1 took 0000:01:00.0"}, {"vm": "", "message": "uuid1 vm2"}],
        "machine": {"boot_id": "uuid1", "sessions": [{"user": "user1", "uid": 1000}, {"user": "sddm", "uid": 110}]},
        "holders": [{"user": one, "process": {"uid": uid}} for one, uid in (("ollama", 998), ("user2", 1001))],
        "log": ["user1", "sddm", "ollama.service", "user2"],
    }


def test_names_that_differ_in_their_case_only_are_two() -> None:
    found = redact({"vms": {"a": 1, "A": 2}, "vm": "A"})
    assert found == {"vms": {"vm2": 1, "vm1": 2}, "vm": "vm1"}


def test_our_own_words_stay_whoever_is_called_like_them() -> None:
    document = {"state": "host", "outcome": "done", "driver": "nvidia", "why": "done", "message": "done by nvidia on host"}
    found = redact(document, users=["done", "nvidia"], hosts=["host"])
    assert found == {
        "state": "host",
        "outcome": "done",
        "driver": "nvidia",
        "why": "done",
        "message": "user1 by user2 on host1",
    }
    assert redact({"why": "lent to alice"}, users=["alice"]) == {"why": "lent to user1"}


def test_names_that_would_be_found_everywhere_are_left_alone_in_texts_only() -> None:
    for name in ("1", "2026"):
        text = f"0000:01:00.1, job 1 of {name}"
        assert redact({"vm": name, "text": text}) == {"vm": "vm1", "text": text}
    assert redact({"text": "root and nobody at localhost"}, users=["root", "nobody", ""], hosts=["localhost", ""]) == {
        "text": "root and nobody at localhost"
    }


words = st.text(alphabet=st.sampled_from(["a", "B", "-", " ", "/", ".", "\\", "x", "2", "d", "é", "_"]), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["text", "vm", "user", "vms", "state"]) | words, inner),
)


@given(json_values, st.lists(words), st.lists(words))
def test_any_document_keeps_its_shape(document: Any, users: list[str], hosts: list[str]) -> None:
    found = redact(document, users=users, hosts=hosts)
    json.dumps(found)
    assert shape(found) == shape(document)
    assert redact(document, users=users, hosts=hosts) == found


def shape(value: Any) -> Any:
    match value:
        case dict():
            return ["table", *(shape(inner) for inner in value.values())]
        case list():
            return [shape(inner) for inner in value]
    return type(value).__name__


@given(st.text(alphabet="abcdefgh", min_size=3, max_size=8), st.lists(words))
def test_no_name_of_a_person_survives_as_a_word(name: str, texts: list[str]) -> None:
    assume(all(name not in text for text in texts))  # within another word it is no name
    found = redact({"texts": [f"{text} {name} /home/{name}/{text}" for text in texts], "user": name})
    assert name not in json.dumps(found).replace("texts", "").replace("user", "")


@given(st.text(st.characters(exclude_characters='"\n', exclude_categories=["Cs"]), max_size=20))
def test_nothing_of_a_quoted_path_below_a_home_survives(below: str) -> None:
    assert redact({"text": f'rom "/home/carol/{below}" is'}) == {"text": 'rom "/home/someone/…" is'}
