"""Which device nodes belong to a card, and who has them open."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gpuhandoff.host import Host, OpenNode
from gpuhandoff.model.roles import follows_its_card, is_seat_service
from gpuhandoff.model.world import Gpu, Holder, Process
from gpuhandoff.survey.belonging import belonging

_NVIDIA_CARD = re.compile(r"nvidia\d+")
_NVIDIA_COMMON = re.compile(r"nvidiactl|nvidia-modeset|nvidia-uvm|nvidia-uvm-tools")
"""Nodes of the driver, not of a card: with several cards they say nothing about one of them."""
DRM = "/sys/class/drm"
DMA_BUF = "dmabuf:"
"""Begins the name of a kind of dma-bufs, by who exports them (`gpuhandoff.host.scan`)."""
_CHANNEL = re.compile(r"i2c-\d+|drm_dp_aux\d+")
NVIDIA_CAPABILITIES = "/dev/nvidia-caps"
_UID = 2
"""The field of /etc/passwd."""
_FIRST_PERSON, _NOBODY = 1000, 65534
NVIDIA_CARDS = "/proc/driver/nvidia/gpus"


def of_card(host: Host, gpu: Gpu) -> tuple[str, ...]:
    """Return every node through which a process can have the card open."""
    found = [*gpu.cards, *_framebuffers(gpu), *_sound(host, gpu), *_i2c(host, gpu), *_vendor(host, gpu)]
    return tuple(dict.fromkeys(found))


def buffers(gpu: Gpu, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the kinds of dma-bufs that are this card's: they pin its driver without a descriptor of the card (kernel.md 8).

    Most drivers have the DRM core export for them, which does not say for whom: that counts where only one card has DRM
    nodes, and nowhere else.
    """
    found = [f"{DMA_BUF}{gpu.display.module}"] if gpu.display.module and gpu.cards else []
    alone = [one for one in gpus if one.cards] == [gpu]
    return (*found, f"{DMA_BUF}drm") if alone else tuple(found)


def group_nodes(host: Host, gpu: Gpu) -> tuple[str, ...]:
    """Return the nodes through which a VMM has the card, whose functions may be in several groups."""
    found = [f"/dev/vfio/{group}" for group in gpu.groups]
    for function in gpu.functions:
        found += [f"/dev/vfio/devices/{name}" for name in host.kernel.entries(f"{function.address.sysfs}/vfio-dev")]
    return tuple(found)


async def with_holders(host: Host, gpus: Sequence[Gpu], *, mappings: bool = True) -> list[Gpu]:
    """Return the GPUs with their holders and guests, from one look at all processes."""
    cards = [{*of_card(host, gpu), *buffers(gpu, gpus)} for gpu in gpus]
    groups = [set(group_nodes(host, gpu)) for gpu in gpus]
    users = _users(host)
    holding = await host.processes.holding(sorted(set().union(*cards, *groups)), mappings=mappings)
    return [
        replace(
            gpu,
            nodes=tuple(sorted(card | group)),
            holders=tuple(_holders(host, holding, card, users)),
            guest=_guest(holding, group),
        )
        for gpu, card, group in zip(gpus, cards, groups, strict=True)
    ]


def _holders(host: Host, holding: Sequence[OpenNode], nodes: set[str], users: Mapping[int, str]) -> Iterator[Holder]:
    for one in holding:
        mine = tuple(node for node in one.nodes if node in nodes)
        if mine:
            follows = follows_its_card(one.process, mine) and not host.stands_still(one.process)
            yield replace(_holder(one, mine, users), follows_card=follows)


def _holder(one: OpenNode, nodes: tuple[str, ...], users: Mapping[int, str]) -> Holder:
    process, where = one.process, belonging(one.process.cgroup)
    return Holder(
        process,
        nodes,
        unit=where.unit,
        session=where.session,
        app=where.app,
        container=where.container,
        user=users.get(process.uid, ""),
        ways=one.ways,
        seat_service=is_seat_service(process),
    )


def _users(host: Host) -> dict[int, str]:
    """Return the names of local people. Others are looked up by nobody here: that may take as long as a network does."""
    try:
        lines = host.kernel.read("/etc/passwd").splitlines()
    except OSError:
        return {}
    fields = (line.split(":") for line in lines)
    return {
        int(one[_UID]): one[0]
        for one in fields
        if len(one) > _UID and one[_UID].isdecimal() and _FIRST_PERSON <= int(one[_UID]) < _NOBODY
    }


def applications(host: Host, processes: Sequence[Process]) -> tuple[Holder, ...]:
    """Return what runs in sessions of people, as holders of nothing."""
    users = _users(host) if processes else {}
    mine = (one for one in processes if "/user.slice/" in one.cgroup)
    return tuple(_holder(OpenNode(one, ()), (), users) for one in mine)


def _guest(holding: Sequence[OpenNode], nodes: set[str]) -> Process | None:
    return next((one.process for one in holding if nodes.intersection(one.nodes)), None)


def _framebuffers(gpu: Gpu) -> list[str]:
    return [f"/dev/{one.name}" for one in gpu.framebuffers if not one.platform]


def _sound(host: Host, gpu: Gpu) -> Iterator[str]:
    """The card's own audio function only: an open descriptor there blocks the unbind for ever (kernel.md 1.4)."""
    for function in gpu.functions:
        for card in host.kernel.entries(f"{function.address.sysfs}/sound"):
            for name in host.kernel.entries(f"{function.address.sysfs}/sound/{card}"):
                if name.startswith(("controlC", "pcmC", "hwC", "midiC")):
                    yield f"/dev/snd/{name}"


def _i2c(host: Host, gpu: Gpu) -> Iterator[str]:
    """DDC and DisplayPort channels: an open one blocks the unbind as well. They sit below a function or its connectors."""
    for function in gpu.functions:
        yield from _channels(host, function.address.sysfs)
    for node in gpu.cards:
        card = node.rpartition("/")[2]
        for name in host.kernel.entries(f"{DRM}/{card}"):
            if name.startswith(f"{card}-"):
                yield from _channels(host, f"{DRM}/{card}/{name}")


def _channels(host: Host, directory: str) -> Iterator[str]:
    for name in host.kernel.entries(directory):
        if _CHANNEL.fullmatch(name):
            yield f"/dev/{name}"


def _vendor(host: Host, gpu: Gpu) -> Iterator[str]:
    if gpu.display.driver == "nvidia":
        own = _nvidia_minor(host, gpu)
        alone = len(host.kernel.entries(NVIDIA_CARDS)) <= 1
        for name in host.kernel.entries("/dev"):
            if _NVIDIA_CARD.fullmatch(name):
                if own in {None, name.removeprefix("nvidia")}:
                    yield f"/dev/{name}"
            elif _NVIDIA_COMMON.fullmatch(name) and alone:
                yield f"/dev/{name}"
        if alone:
            yield from (f"{NVIDIA_CAPABILITIES}/{name}" for name in host.kernel.entries(NVIDIA_CAPABILITIES))
    elif gpu.display.driver == "amdgpu":
        yield "/dev/kfd"


def _nvidia_minor(host: Host, gpu: Gpu) -> str | None:
    """Return N of the card's own /dev/nvidiaN, None when the driver does not say (kernel.md 8)."""
    try:
        text = host.kernel.read(f"{NVIDIA_CARDS}/{gpu.address}/information")
    except OSError:
        return None
    found = re.search(r"^Device Minor:\s+(\d+)", text, re.MULTILINE)
    return found[1] if found else None
