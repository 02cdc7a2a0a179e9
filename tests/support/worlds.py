"""Generated worlds: every shape of machine that the plan has to cope with."""

from __future__ import annotations

from hypothesis import strategies as st

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.kernel import Module
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options
from gpuhandoff.model.world import (
    Console,
    Framebuffer,
    Function,
    Gpu,
    Holder,
    Process,
    Session,
    Unit,
    World,
)
from gpuhandoff.plan.stacks import STACKS

DISPLAY_CLASS = 0x030000
AUDIO_CLASS = 0x040300
XHCI_CLASS = 0x0C0330
NETWORK_CLASS = 0x020000

ALICE = Session("3", 1000, "alice", "seat0", "user", "wayland", "active", "session-3.scope", 900)
COMPOSITOR = Holder(
    Process(
        950,
        5000,
        "kwin_wayland",
        1000,
        "/user.slice/user-1000.slice/user@1000.service/session.slice/plasma-kwin.service",
    ),
    ("/dev/dri/card0", "/dev/dri/renderD128"),
    unit="plasma-kwin.service",
)
LOGIND = Holder(Process(500, 300, "systemd-logind", 0), ("/dev/dri/card0",), "systemd-logind.service", seat_service=True)
CUDA = Holder(Process(4242, 9000, "ollama", 998, "/system.slice/ollama.service"), ("/dev/dri/renderD128",), "ollama.service")


def function(address: PciAddress, pci_class: int, driver: str | None, *, group: int | None = 7) -> Function:
    """Return a function with a module named like its driver."""
    return Function(address, 0x10DE, 0x2786, pci_class, driver=driver, module=driver, iommu_group=group)


@st.composite
def gpus(draw: st.DrawFn, bus: int = 1) -> Gpu:
    """Return a GPU at bus:00.0 in some condition."""
    address = PciAddress(0, bus, 0, 0)
    driver = draw(st.sampled_from([*STACKS, "exotic", "vfio-pci", None]))
    siblings = draw(st.integers(0, 3))
    functions = [function(address, DISPLAY_CLASS, driver)]
    for number in range(1, siblings + 1):
        native = "snd_hda_intel" if number == 1 else "xhci_hcd"
        sibling = draw(st.sampled_from([native, "vfio-pci", None]))
        functions.append(function(PciAddress(0, bus, 0, number), AUDIO_CLASS if number == 1 else XHCI_CLASS, sibling))
    return Gpu(
        address,
        "a card",
        tuple(functions),
        upstream_port=draw(st.sampled_from([None, PciAddress(0, 0, bus, 0)])),
        cards=("/dev/dri/card0", "/dev/dri/renderD128"),
        framebuffers=tuple(
            draw(st.lists(st.sampled_from([Framebuffer("efi-framebuffer.0", "efi-framebuffer", platform=True)]), max_size=1))
        ),
        consoles=tuple(draw(st.lists(st.sampled_from([Console("vtcon1", "frame buffer device", bound=True)]), max_size=1))),
        holders=tuple(draw(st.lists(st.sampled_from([COMPOSITOR, LOGIND, CUDA]), unique=True))),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a world with one or two GPUs that can, on the whole, be handed off."""
    cards = [draw(gpus())]
    if draw(st.booleans()):
        cards.append(draw(gpus(bus=2)))
    modules = {name for card in cards for name in STACKS.get(card.display.driver or "", ())}
    return World(
        boot_id="b",
        kernel_release="6.12",
        gpus=tuple(cards),
        modules=tuple(Module(name, 0) for name in sorted(modules)),
        available_modules=frozenset({"vfio_pci", "vfio_iommu_type1"} | modules),
        sessions=draw(st.sampled_from([(), (ALICE,)])),
        display_manager=draw(st.sampled_from([None, Unit("sddm.service", "active"), Unit("sddm.service", "inactive")])),
        services=tuple(draw(st.lists(st.sampled_from([Unit("nvidia-persistenced.service", "active")]), max_size=1))),
        online_cpus=frozenset(range(8)),
        memory_total=32 << 30,
        memory_available=draw(st.integers(0, 32 << 30)),
        processes=(Process(7000, 10, "baloo_file", 1000),),
    )


def options() -> st.SearchStrategy[Options]:
    """Return options that are possible on these worlds, with all consent given."""
    return st.builds(
        Options,
        stop_display=st.just(value=True),
        holders=st.sampled_from(list(HolderPolicy)),
        cpus=st.sampled_from([frozenset[int](), frozenset({0, 1}), frozenset(range(8))]),
        memory=st.sampled_from([8 << 30, 16 << 30]),
        hugepages=st.sampled_from(list(Hugepages)),
        quiet=st.booleans(),
    )
