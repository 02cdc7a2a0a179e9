"""What a domain means for a machine: needs, refusals, patterns, and where consent is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.errors import ProblemError
from gpuhandoff.hypervisor.consent import in_configuration
from gpuhandoff.hypervisor.meaning import gpus_of, needs, refuse_domain
from gpuhandoff.hypervisor.parse import parse_domain
from gpuhandoff.hypervisor.patterns import patterns
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.kernel import HugepagePool
from gpuhandoff.model.request import Hugepages
from gpuhandoff.model.world import Function, Gpu, World
from tests.support.domains import CARD, address, domain_xml, hostdev

MIB = 1 << 20
WHERE = 'in the section [vm."win11"] of /etc/gpuhandoff/gpuhandoff.toml and `systemctl reload gpuhandoffd`'


def card(bus: int) -> Gpu:
    functions = tuple(
        Function(PciAddress(0, bus, 0, number), 0x10DE, 0x2786, pci_class)
        for number, pci_class in ((0, 0x030000), (1, 0x040300))
    )
    return Gpu(functions[0].address, "RTX 4070", functions)


WORLD = World(
    "boot",
    "6.12",
    (card(1), card(2)),
    online_cpus=frozenset(range(8)),
    memory_total=32 << 30,
    hugepages=(HugepagePool(2048, 100, 100), HugepagePool(1 << 20, 4, 2)),
)


def needed(xml: str, world: World = WORLD) -> dict[str, object]:
    return needs(parse_domain(xml), world)


def refusal(xml: str, world: World = WORLD) -> str:
    domain = parse_domain(xml)
    with pytest.raises(ProblemError) as caught:
        refuse_domain(domain, gpus_of(domain, world), world)
    return caught.value.message


def test_the_host_keeps_the_cpus_that_the_guest_is_not_pinned_to() -> None:
    found = needed(domain_xml(pins=("2", "3", "6-7"), emulator="0"))
    assert found["cpus"] == frozenset({0, 1, 4, 5})


def test_a_guest_that_may_run_anywhere_leaves_the_host_everything() -> None:
    assert "cpus" not in needed(domain_xml())
    assert "cpus" not in needed(domain_xml(pins=("0-7", "0-7")))
    assert "cpus" not in needed(domain_xml(emulator="0-1"))


def test_memory_as_the_domain_asks() -> None:
    assert needed(domain_xml(memory=4 << 20)) == {"memory": 4 << 30}
    missing = needed(domain_xml(memory=4 << 20, pages="<hugepages/>"))
    assert missing == {"memory": (4 << 30) - 200 * MIB, "hugepages": Hugepages.STATIC}
    same = needed(domain_xml(memory=4 << 20, pages="<hugepages><page size='2048' unit='KiB'/></hugepages>"))
    assert same == missing


def test_pages_that_are_there_are_not_made_again() -> None:
    enough = replace(WORLD, hugepages=(HugepagePool(2048, 600, 512),))
    assert needed(domain_xml(memory=MIB, pages="<hugepages/>"), enough) == {"memory": 0, "hugepages": Hugepages.NONE}
    large = domain_xml(memory=2 << 20, pages="<hugepages><page size='1' unit='GiB'/></hugepages>")
    assert needed(large) == {"memory": 0, "hugepages": Hugepages.NONE}
    refuse_domain(parse_domain(large), (card(1),), WORLD)


def test_pages_without_a_size_are_of_the_hosts_default() -> None:
    """Which default_hugepagesz=1G on the kernel's command line changes: such pages are not made when they are needed."""
    gigantic = replace(WORLD, default_page_kib=1 << 20)
    assert needed(domain_xml(memory=2 << 20, pages="<hugepages/>"), gigantic) == {"memory": 0, "hugepages": Hugepages.NONE}
    assert "in huge pages of 1048576 KiB, of which 2048 MiB are free" in refusal(
        domain_xml(memory=4 << 20, pages="<hugepages/>"), gigantic
    )


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        (
            domain_xml(CARD[:1]),
            "0000:01:00.0 (RTX 4070) has 2 functions that move together; the domain lacks 0000:01:00.1. Add a hostdev for",
        ),
        (domain_xml(CARD[1:]), "the domain lacks 0000:01:00.0."),
        (
            domain_xml((*CARD, "0000:02:00.0", "0000:02:00.1")),
            "The domain has 0000:01:00.0 (RTX 4070) and 0000:02:00.0 (RTX 4070): gpuhandoff lends one GPU to a guest.",
        ),
        (
            domain_xml(pins=("6", "7-9")),
            "The domain is pinned to CPUs 8-9; this machine's online CPUs are 0-7.",
        ),
        (domain_xml(emulator="12"), "The domain is pinned to CPU 12; this machine's online CPUs are 0-7."),
        (domain_xml(memory=64 << 20), "The domain has 65536 MiB of memory; this machine has 32768 MiB."),
        (
            domain_xml(memory=4 << 20, pages="<hugepages><page size='1' unit='GiB'/></hugepages>"),
            "The domain asks for 4096 MiB in huge pages of 1048576 KiB, of which 2048 MiB are free.",
        ),
        (
            domain_xml(roms={CARD[0]: "<rom bar='on'/>", CARD[1]: "<rom bar='off'/>"}),
            "The domain shows the ROM of 0000:01:00.0 and hides that of 0000:01:00.1, which are one card, RTX 4070.",
        ),
    ],
)
def test_refusals_in_one_sentence_each(xml: str, sentence: str) -> None:
    assert sentence in refusal(xml)
    assert "\n" not in refusal(xml)


def test_what_is_fine() -> None:
    for xml in (
        domain_xml(),
        domain_xml(managed="yes"),
        domain_xml((*CARD, "0000:04:00.0")),
        domain_xml(roms={CARD[0]: "<rom bar='on' file='/x'/>"}),
        domain_xml(roms={CARD[0]: "<rom bar='off'/>", CARD[1]: "<rom bar='off'/>"}),
        domain_xml(pins=("0-7",)),
    ):
        domain = parse_domain(xml)
        gpus = gpus_of(domain, WORLD)
        assert [str(gpu.address) for gpu in gpus] == ["0000:01:00.0"]
        refuse_domain(domain, gpus, WORLD)
    assert gpus_of(parse_domain(domain_xml(("0000:03:00.0",))), WORLD) == ()


def test_patterns_find_what_libvirt_writes_and_not_the_guests_own_addresses() -> None:
    lines = patterns(WORLD).splitlines()
    assert len(lines) == 8
    assert all(line for line in lines)  # an empty line would find every guest
    for gpu in WORLD.gpus:
        for function in gpu.functions:
            assert any(line in address(str(function.address)) for line in lines)
    assert not [line for line in lines if line in domain_xml(("0000:03:00.0",))]  # its disk is at guest address 01:00.0
    assert [line for line in lines if line in hostdev(CARD[1])]
    assert [line for line in lines if line in hostdev(CARD[1]).replace("'", '"')]
    assert not [line for line in lines if line in hostdev("0000:11:00.0")]
    assert patterns(replace(WORLD, gpus=())) == ""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Save your work, then allow it with the option stop-display.",
            f"Save your work, then allow it with stop-display = true {WHERE}.",
        ),
        (
            "allow it to be ended with the option holders=terminate.",
            f'allow it to be ended with holders = "terminate" {WHERE}.',
        ),
        (
            "hugepages: static needs the option memory to say how much.",
            "hugepages: static needs the option memory to say how much.",
        ),
        ("It is in use.", "It is in use."),
    ],
)
def test_consent_is_told_as_it_is_written(said: str, told: str) -> None:
    assert in_configuration(said, "win11") == told


def test_a_name_with_quotes_is_written_as_toml_wants_it() -> None:
    assert '[vm."a\\"b\\\\"]' in in_configuration("with the option stop-display.", 'a"b\\')
