"""The machine at one moment: what `survey` reads and `plan` decides on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Bar, Connector, Firmware, FunctionKind, Power, ReservedRegion, UsbDevice
from gpuhandoff.model.kernel import HugepagePool, Module

VFIO_DRIVER = "vfio-pci"
GROUP_DRIVERS = frozenset({None, VFIO_DRIVER, "pci-stub", "pcieport"})
"""What may be bound in an IOMMU group that a guest owns (kernel.md 3)."""
DISPLAY_CLASS = 0x03
BRIDGE_CLASS = 0x0604
_KINDS = {
    BRIDGE_CLASS: FunctionKind.BRIDGE,
    0x0403: FunctionKind.AUDIO,
    0x0401: FunctionKind.AUDIO,
    0x0C03: FunctionKind.USB,
    0x0C80: FunctionKind.UCSI,
    0x0C05: FunctionKind.I2C,
}
"""By class and subclass. NVIDIA's and AMD's USB-C controllers are a `serial bus controller` (kernel.md 1.1)."""


class State(StrEnum):
    """Where a GPU is. Derived from the machine and the open journal, never stored."""

    HOST = "host"
    HANDING_OFF = "handing-off"
    DETACHED = "detached"
    GUEST = "guest"
    RECLAIMING = "reclaiming"
    FOREIGN = "foreign"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Function:
    """One PCI function.

    `driver` is the PCI driver's name (`bochs-drm`), `module` the module behind it (`bochs`; None when built in or
    unbound). `override` is driver_override, None when unset.
    """

    address: PciAddress
    vendor: int
    device: int
    pci_class: int
    driver: str | None = None
    module: str | None = None
    override: str | None = None
    iommu_group: int | None = None
    boot_vga: bool = False
    subsystem_vendor: int = 0
    subsystem_device: int = 0
    reset_methods: tuple[str, ...] = ()
    """What reset_method lists, in the order in which they are tried; none where the kernel found none."""
    is_virtual: bool = False
    """Whether it is a virtual function (SR-IOV), made by the driver of its physical one."""
    power: Power = field(default_factory=Power)

    @property
    def kind(self) -> FunctionKind:
        """What it is for."""
        return _KINDS.get(self.pci_class >> 8, FunctionKind.DISPLAY if self.is_display else FunctionKind.OTHER)

    @property
    def identity(self) -> str:
        """What is soldered: `10de:2786 1043:8800`, ids and those of the board's maker."""
        return f"{self.vendor:04x}:{self.device:04x} {self.subsystem_vendor:04x}:{self.subsystem_device:04x}"

    @property
    def is_display(self) -> bool:
        """Whether this is a display controller (class 03)."""
        return self.pci_class >> 16 == DISPLAY_CLASS

    @property
    def is_bridge(self) -> bool:
        """Whether this is a PCI bridge or root port, which may share an IOMMU group without breaking isolation."""
        return self.pci_class >> 8 == BRIDGE_CLASS

    @property
    def is_audio(self) -> bool:
        """Whether this is an audio device (class 0403, or the older 0401)."""
        return self.kind is FunctionKind.AUDIO


@dataclass(frozen=True, slots=True)
class Process:
    """A process, identified by pid and start time (clock ticks since boot), as a pid alone may be reused."""

    pid: int
    start_time: int
    name: str
    uid: int
    cgroup: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has one of the GPU's device nodes open."""

    process: Process
    nodes: tuple[str, ...]
    unit: str = ""
    """The systemd unit or scope the process runs in."""
    session: str = ""
    """The logind session it belongs to, if its cgroup says so."""
    app: str = ""
    """The application's id, `org.mozilla.firefox`, if its unit says so."""
    container: str = ""
    """`docker 0123456789ab`, if its cgroup says so."""
    user: str = ""
    """The name of its uid, if it is a local one."""
    ways: tuple[str, ...] = ()
    """How it holds the nodes: open, mapped, dma-buf."""
    seat_service: bool = False
    """PID 1 or logind: they hold the node on behalf of a session, let go with it, and are never signalled."""
    follows_card: bool = False
    """A sound server that closes the control node when the card goes."""


@dataclass(frozen=True, slots=True)
class Framebuffer:
    """A framebuffer the kernel has registered (/sys/class/graphics/fbN) or a firmware platform device of the GPU."""

    name: str
    """`fb0`, or the platform device's name such as `efi-framebuffer.0`."""
    driver: str
    """Name in /proc/fb for fbN, or the platform driver (`efi-framebuffer`)."""
    platform: bool


@dataclass(frozen=True, slots=True)
class Console:
    """A vtconsole: `vtcon1`, `frame buffer device`, whether it is bound."""

    name: str
    kind: str
    bound: bool


@dataclass(frozen=True, slots=True)
class Session:
    """A logind session."""

    id: str
    uid: int
    user: str
    seat: str
    kind: str
    """logind's Class: user, greeter, manager, ..."""
    type: str
    """wayland, x11, mir, tty, unspecified."""
    state: str
    scope: str
    leader: int

    @property
    def is_graphical(self) -> bool:
        """Whether a compositor or X server runs in it."""
        return self.type in {"wayland", "x11", "mir"}


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit that is loaded."""

    name: str
    active_state: str
    sub_state: str = ""
    job: str = ""
    """The type of systemd's job that waits or runs for it: start, stop, restart, ...; "" where there is none."""

    @property
    def is_active(self) -> bool:
        """Whether it runs or is about to: while its start waits for other units it is inactive."""
        return self.active_state in {"active", "activating", "reloading"} or self.job in {"start", "restart"}

    @property
    def is_stopping(self) -> bool:
        """Whether it is about to stop: while its stop waits for other units' it is active."""
        return self.job == "stop"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A display controller with everything that moves with it.

    `functions` are all functions of the card (display first, ascending); `group` is every other device of their IOMMU
    groups that is not a bridge.
    """

    address: PciAddress
    name: str
    functions: tuple[Function, ...]
    group: tuple[Function, ...] = ()
    ports: tuple[Function, ...] = ()
    """Bridges in these groups, which may stay with the host (kernel.md 3)."""
    virtual_functions: tuple[PciAddress, ...] = ()
    """What it is shared out as (SR-IOV): each is a device of its own, which guests have without the card."""
    upstream_port: PciAddress | None = None
    audio: tuple[Function, ...] = ()
    """Intel graphics only: sound devices that are no function of the card, and play through its outputs (kernel.md 1.3)."""
    cards: tuple[str, ...] = ()
    """DRM nodes, /dev/dri/card0, /dev/dri/renderD128."""
    connectors: tuple[Connector, ...] = ()
    boot_display: bool = False
    """Whether the kernel says that the firmware showed its picture here (7.2 and later)."""
    bars: tuple[Bar, ...] = ()
    reserved: tuple[ReservedRegion, ...] = ()
    """Of these groups."""
    attached: tuple[UsbDevice, ...] = ()
    """What is plugged into its own USB port."""
    framebuffers: tuple[Framebuffer, ...] = ()
    consoles: tuple[Console, ...] = ()
    nodes: tuple[str, ...] = ()
    """Every device node through which a process or a VMM can have the card."""
    holders: tuple[Holder, ...] = ()
    guest: Process | None = None
    """Who has /dev/vfio/GROUP open."""

    @property
    def display(self) -> Function:
        """The display function itself."""
        return next(function for function in self.functions if function.address == self.address)

    @property
    def groups(self) -> tuple[int, ...]:
        """The IOMMU groups of its functions, ascending: one for all of them, or one each."""
        return tuple(sorted({one.iommu_group for one in self.functions if one.iommu_group is not None}))

    @property
    def connected(self) -> tuple[str, ...]:
        """Connectors with a screen attached, `HDMI-A-1`."""
        return tuple(one.name for one in self.connectors if one.connected)

    @property
    def breakers(self) -> tuple[Function, ...]:
        """Devices that keep the group from a guest as long as a driver of the host has them (kernel.md 3)."""
        return tuple(one for one in self.group if one.driver not in GROUP_DRIVERS)

    @property
    def on_vfio(self) -> bool:
        """Whether every function is bound to vfio-pci."""
        return all(function.driver == VFIO_DRIVER for function in self.functions)


@dataclass(frozen=True, slots=True)
class World:
    """Everything a plan may depend on, read at one moment under the GPU's lock."""

    boot_id: str
    kernel_release: str
    gpus: tuple[Gpu, ...]
    kernel_version: str = ""
    """The upstream version, `6.1.192`, which a distribution's release, `6.1.0-56-amd64`, may hide."""
    modules: tuple[Module, ...] = ()
    available_modules: frozenset[str] = frozenset()
    """Of the modules the plan may want to load: those that are loaded, built in, or found for the running kernel."""
    builtin_modules: frozenset[str] = frozenset()
    """Of these, those that are a part of the kernel itself."""
    nvidia_version: str = ""
    """Of the loaded NVIDIA driver."""
    nvidia_open: bool = False
    """Whether these are NVIDIA's open kernel modules."""
    nvidia_modeset: bool = False
    """Whether nvidia-drm keeps the cards in use itself (its parameter modeset)."""
    iommu: bool = True
    """Whether the kernel has IOMMU groups at all."""
    iommu_firmware: Firmware = Firmware.NONE
    """Whether the firmware describes an IOMMU."""
    boot_parameters: tuple[str, ...] = ()
    """Those of the kernel's command line that concern GPUs, the IOMMU or modules, in their order."""
    may_resize: bool = True
    """Whether this daemon has what newer kernels ask of who resizes a memory window (CAP_SYS_ADMIN)."""
    sessions: tuple[Session, ...] = ()
    display_manager: Unit | None = None
    services: tuple[Unit, ...] = ()
    """The GPU services (nvidia-persistenced and those of the configuration) that are loaded."""
    online_cpus: frozenset[int] = frozenset()
    memory_total: int = 0
    memory_available: int = 0
    """Bytes, both."""
    hugepages: tuple[HugepagePool, ...] = ()
    default_page_kib: int = 2048
    """The size of huge pages where none is named; the kernel's command line may change it (default_hugepagesz)."""
    processes: tuple[Process, ...] = field(default=(), repr=False)
    """Only when a plan may quiet the host."""
    applications: tuple[Holder, ...] = field(default=(), repr=False)
    """Those of them that belong to somebody's session, with what their cgroup says; they need not hold anything."""

    def gpu(self, address: PciAddress) -> Gpu | None:
        """Return the GPU at `address`, which may also name one of its other functions."""
        named = [gpu for gpu in self.gpus if any(function.address == address for function in gpu.functions)]
        return min(named, key=lambda gpu: gpu.address != address, default=None)
