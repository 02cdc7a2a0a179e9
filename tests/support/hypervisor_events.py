"""A product that hears a hypervisor's events, as the libvirt hook brings them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.domains import domain_xml
from tests.support.product import FOREVER, Product

GPU = "0000:01:00.0"


OTHER = "0000:02:00.0"


ALLOWED = Configuration(vms={"win11": {"stop_display": True}, "win10": {"stop_display": True}})


async def product(directory: Path, scenario: str = "single-nvidia", configuration: Configuration = ALLOWED) -> Product:
    return await Product(
        await SCENARIOS[scenario](), directory, configuration, hook_patterns=directory.with_name("patterns")
    ).start()


async def event(
    one: Product, operation: str, xml: str | None = None, guest: str = "win11", caller: LoopbackBus | None = None
) -> None:
    """Do what the hook does: come as root, call, leave."""
    hook = caller or one.broker.connect(uid=0)
    body = (guest, operation, "begin", "-", domain_xml(name=guest) if xml is None else xml)
    try:
        await hook.call(
            names.BUS_NAME, names.MANAGER_PATH, names.HYPERVISOR_INTERFACE, "Event", "sssss", body, timeout=FOREVER
        )
    finally:
        await hook.close()


async def refused(one: Product, operation: str = "prepare", xml: str | None = None, guest: str = "win11") -> str:
    with pytest.raises(RemoteError) as caught:
        await event(one, operation, xml, guest)
    assert "\n" not in caught.value.message
    return caught.value.message


async def state(one: Product, gpu: str = GPU) -> str:
    return str((await one.status(gpu))["state"])


async def ended(one: Product, guest: str = "win11", xml: str | None = None) -> None:
    """Do what libvirt does when a guest has ended or failed to start."""
    await event(one, "stopped", xml, guest)
    await event(one, "release", xml, guest)


def moves(one: Product) -> list[str]:
    return [signal.body[1] for signal in one.signals if signal.member == "JobRemoved"]


def unchanged(one: Product, before: dict[str, Any]) -> None:
    assert differences(before, one.machine.snapshot()) == []
    assert one.journals() == []
