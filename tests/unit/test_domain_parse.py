"""A domain's XML as a value: what libvirt writes is understood, and nothing else does harm."""

from __future__ import annotations

import contextlib
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.hypervisor.domain import DEFAULT_PAGE, Domain, Hostdev
from gpuhandoff.hypervisor.parse import DEEPEST, LARGEST, MOST_ELEMENTS, parse_domain
from gpuhandoff.model.address import PciAddress
from tests.support.domains import CARD, domain_xml, hostdev


def test_an_ordinary_domain() -> None:
    found = parse_domain(
        domain_xml(
            memory=16 << 20,
            pins=("2", "3", "4-5"),
            emulator="0-1",
            pages="<hugepages/>",
            managed="yes",
            roms={CARD[0]: "<rom bar='on' file='/var/lib/rom.bin'/>"},
        )
    )
    assert found == Domain(
        name="win11",
        hostdevs=(
            Hostdev(PciAddress(0, 1, 0, 0), managed=True, rom_bar=True, rom_file="/var/lib/rom.bin"),
            Hostdev(PciAddress(0, 1, 0, 1), managed=True),
        ),
        memory=16 << 30,
        huge_page_sizes_kib=frozenset({DEFAULT_PAGE}),
        vcpus=3,
        vcpu_pins=frozenset({2, 3, 4, 5}),
        emulator_pins=frozenset({0, 1}),
        firmware="efi",
    )
    assert found.pins == frozenset(range(6))


def test_a_domain_that_says_next_to_nothing() -> None:
    assert parse_domain("<domain/>") == Domain(vcpus=1)


@pytest.mark.parametrize(
    ("inside", "field", "value"),
    [
        ("<memory>2048</memory>", "memory", 2 << 20),
        ("<memory unit='GiB'>2</memory>", "memory", 2 << 30),
        ("<memory unit='G'> 2\n</memory>", "memory", 2 << 30),
        ("<memory unit='MB'>2</memory>", "memory", 2_000_000),
        ("<memory unit='bytes'>4096</memory>", "memory", 4096),
        ("<vcpu placement='static' cpuset='2-5,^4'>4</vcpu>", "vcpu_pins", frozenset({2, 3, 5})),
        (
            "<vcpu cpuset='6'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/></cputune>",
            "vcpu_pins",
            frozenset({2, 6}),
        ),
        (
            "<vcpu cpuset='6'>1</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/></cputune>",
            "vcpu_pins",
            frozenset({2}),
        ),
        ("<cputune><iothreadpin iothread='1' cpuset='0,7'/></cputune>", "iothread_pins", frozenset({0, 7})),
        (
            "<memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>",
            "huge_page_sizes_kib",
            frozenset({1 << 20}),
        ),
        (
            "<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>",
            "huge_page_sizes_kib",
            frozenset({2048}),
        ),
        ("<memoryBacking><locked/></memoryBacking>", "huge_page_sizes_kib", frozenset()),
        ("<os><loader type='rom'>/x</loader></os>", "firmware", "bios"),
        ("<os><loader type='pflash'>/x</loader></os>", "firmware", "efi"),
        ("<os><type>hvm</type></os>", "firmware", ""),
    ],
)
def test_one_element(inside: str, field: str, value: object) -> None:
    assert getattr(parse_domain(f"<domain>{inside}</domain>"), field) == value


@pytest.mark.parametrize(
    ("rom", "shown"),
    [
        ("", None),
        ("<rom bar='on'/>", True),
        ("<rom bar='off'/>", False),
        ("<rom enabled='no'/>", False),
        ("<rom file='/x'/>", None),
    ],
)
def test_the_rom(rom: str, shown: bool | None) -> None:
    (found,) = parse_domain(domain_xml(CARD[:1], roms={CARD[0]: rom})).hostdevs
    assert found.rom_bar is shown


def test_only_pci_functions_of_the_host_count() -> None:
    others = (
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>"
        "<hostdev mode='subsystem' type='mdev'><source><address uuid='x'/></source></hostdev>"
        "<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
        "</source></interface>"
    )
    assert parse_domain(f"<domain><devices>{others}</devices></domain>").hostdevs == ()


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("", "is no XML"),
        ("nonsense", "line 1 is no XML"),
        ("<domain>", "is no XML"),
        ("<domain>\n<a></b>\n</domain>", "line 2 is no XML"),
        ("<network/>", "the XML of a domain"),
        ("<!DOCTYPE domain><domain/>", "document type"),
        ('<!DOCTYPE d [<!ENTITY a "b">]><domain><name>&a;</name></domain>', "document type"),
        ('<!DOCTYPE d SYSTEM "file:///etc/shadow"><domain/>', "document type"),
        ("<domain><name>&a;</name></domain>", "undefined entity"),
        ("<domain>" + "<a>" * DEEPEST + "</a>" * DEEPEST + "</domain>", "nested more than"),
        ("<domain>" + " " * LARGEST + "</domain>", "at most 1024 KiB"),
        ("<domain>\ud800</domain>", "text is expected"),
        ("<domain>" + "<a/>" * MOST_ELEMENTS + "</domain>", "more than 20000 elements"),
        ("<domain><memory>many</memory></domain>", "memory"),
        ("<domain><memory>-1</memory></domain>", "memory"),
        (f"<domain><memory unit='PiB'>{10**18}</memory></domain>", "memory"),
        ("<domain><memory unit='stones'>1</memory></domain>", "memory"),
        ("<domain><vcpu>0</vcpu></domain>", "vcpu"),
        ("<domain><vcpu>²</vcpu></domain>", "vcpu"),
        ("<domain><cputune><vcpupin vcpu='0' cpuset='a'/></cputune></domain>", "vcpupin"),
        ("<domain><cputune><emulatorpin cpuset='0-99999'/></cputune></domain>", "emulatorpin"),
        ("<domain><devices><hostdev type='pci'/></devices></domain>", "names no address"),
    ],
)
def test_what_is_none_is_refused_with_the_place(xml: str, why: str) -> None:
    with pytest.raises(InvalidArgsError, match=why) as caught:
        parse_domain(xml)
    assert caught.value.message.startswith("xml: ")


@pytest.mark.parametrize(
    "bad", ["bus='0x100'", "slot='0x20'", "function='0x8'", "bus='one'", "bus=''", "bus='-1'", "slot='٣'"]
)
def test_an_address_that_is_none(bad: str) -> None:
    key = bad.partition("=")[0]
    attributes = {"domain": "domain='0x0000'", "bus": "bus='0x01'", "slot": "slot='0x00'", "function": "function='0x0'"}
    attributes[key] = bad
    element = f"<hostdev type='pci'><source><address {' '.join(attributes.values())}/></source></hostdev>"
    with pytest.raises(InvalidArgsError, match=key):
        parse_domain(f"<domain><devices>{element}</devices></domain>")


def test_an_entity_bomb_costs_nothing() -> None:
    bomb = "<!DOCTYPE d [" + "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9)) + "]><domain>&e9;</domain>"
    with pytest.raises(InvalidArgsError):
        parse_domain(bomb)


@given(st.text())
def test_any_text_is_a_domain_or_a_refusal(text: str) -> None:
    understood(text)


@given(st.integers(0, 3000), st.integers(0, 3000), st.text(alphabet=string.printable, max_size=20))
def test_a_damaged_domain_is_a_domain_or_a_refusal(start: int, length: int, instead: str) -> None:
    text = domain_xml(pins=("0", "1"), pages="<hugepages/>")
    understood(text[:start] + instead + text[start + length :])


@given(
    st.dictionaries(
        st.sampled_from(["domain", "bus", "slot", "function"]), st.text(alphabet="0123456789abcdefxX-+_ .", max_size=12)
    ),
    st.text(alphabet="0123456789,-^ ", max_size=30),
    st.text(alphabet="0123456789.-+eE_ ", max_size=30),
    st.sampled_from(["KiB", "k", "TB", "bytes", "", "x"]),
)
def test_any_values_are_a_domain_or_a_refusal(parts: dict[str, str], pins: str, amount: str, unit: str) -> None:
    address = " ".join(f"{key}='{value}'" for key, value in parts.items())
    understood(
        f"<domain><memory unit='{unit}'>{amount}</memory><vcpu cpuset='{pins}'>{amount}</vcpu>"
        f"<devices><hostdev type='pci'><source><address {address}/></source></hostdev></devices></domain>"
    )


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))))
def test_every_address_comes_back(numbers: list[tuple[int, int, int, int]]) -> None:
    wanted = [PciAddress(*one) for one in numbers]
    devices = "".join(hostdev(str(one)) for one in wanted)
    assert [one.address for one in parse_domain(f"<domain><devices>{devices}</devices></domain>").hostdevs] == wanted


def understood(text: str) -> None:
    try:
        found = parse_domain(text)
    except InvalidArgsError as error:
        refusal, found = error.message, Domain()
    else:
        refusal = ""
    assert len(refusal) < 200
    assert refusal.isprintable()
    assert 0 <= found.memory <= 1 << 60
    assert all(0 <= cpu <= 8191 for cpu in found.pins)


BOMBS = {
    "billion laughs": '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><domain><name>&b;</name></domain>',
    "an external entity": '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/shadow">]><domain><name>&a;</name></domain>',
    "a parameter entity": '<!DOCTYPE d [<!ENTITY % a SYSTEM "http://localhost/x"> %a;]><domain/>',
    "10 MB": "<domain>" + "<a/>" * 2_500_000 + "</domain>",
    "elements": "<domain>" + "<a/>" * 240_000 + "</domain>",
    "pins": "<domain><cputune>"
    + "".join(f"<vcpupin cpuset='{n % 9}-8191'/>" for n in range(19_000))
    + "</cputune></domain>",
    "ranges": "<domain><cputune>" + f"<vcpupin cpuset='{','.join(['0-8191'] * 580)}'/>" * 230 + "</cputune></domain>",
    "attributes": "<domain " + " ".join(f"a{n}=''" for n in range(80_000)) + "/>",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_xml_keeps_the_daemon_busy(bomb: str) -> None:
    """It is read in the loop; the pins and the ranges took 14 and 57 seconds."""
    began = time.process_time()
    with contextlib.suppress(InvalidArgsError):
        parse_domain(BOMBS[bomb])
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    "xml",
    [
        "<domain xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><name>x</name></domain>",
        "<d:domain xmlns:d='http://example.org/'><name>x</name></d:domain>",
    ],
)
def test_another_namespace_is_another_language(xml: str) -> None:
    with pytest.raises(InvalidArgsError, match="the XML of a domain"):
        parse_domain(xml)


def test_what_others_keep_in_a_domain_is_theirs() -> None:
    devices = f"<devices>{hostdev(CARD[0])}</devices>"
    metadata = f"<metadata><app xmlns='http://example.org/'>{devices}</app>{devices}</metadata>"
    qemu = "<qemu:commandline><qemu:arg value='-device'/></qemu:commandline>"
    text = f"<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{metadata}{qemu}</domain>"
    assert parse_domain(text).hostdevs == ()
