"""The methods History and Report: what happened, and what somebody who mends gpuhandoff needs to know."""

from __future__ import annotations

from gpuhandoff.authority.gate import Gate
from gpuhandoff.authority.table import method_actions
from gpuhandoff.config.quote import nearest, quote
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.messages import Body, Call
from gpuhandoff.model.address import PciAddress
from gpuhandoff.names import MANAGER_INTERFACE
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.manager import parse_address
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.reports import move_report
from gpuhandoff.service.support import Support

NAMES = "names"


class Records:
    """Answers calls, as Manager does."""

    def __init__(self, gate: Gate, fleet: Fleet, chronicle: Chronicle, support: Support, tree: ObjectTree) -> None:
        self._gate = gate
        self._fleet = fleet
        self._chronicle = chronicle
        self._support = support
        self._tree = tree

    def register(self) -> None:
        """Offer the methods."""
        self._tree.register(MANAGER_INTERFACE, "History", self.history)
        self._tree.register(MANAGER_INTERFACE, "Report", self.report)

    async def history(self, call: Call) -> Body:
        """Tell what was done: from memory, never waiting for the disk."""
        text, count = call.body
        address = self._gpu(parse_address(text))
        await self._allow(call)
        return ([move_report(move) for move in self._chronicle.moves(address, count)],)

    async def report(self, call: Call) -> Body:
        """Make a support report."""
        (options,) = call.body
        for key, variant in options.items():
            if key != NAMES:
                raise InvalidArgsError(f"{quote(key)}: there is no such option here. {nearest(key, [NAMES])}")
            if variant.signature != "b":
                raise InvalidArgsError(f"{key}: a boolean (b) is expected, not type {quote(variant.signature)}.")
        await self._allow(call)
        return (await self._support.report(names=NAMES in options and bool(options[NAMES].value)),)

    def _gpu(self, address: PciAddress | None) -> PciAddress | None:
        """Any function names its GPU; one that is no longer there may still have a history."""
        gpu = self._fleet.world.gpu(address) if address is not None else None
        return gpu.address if gpu is not None else address

    async def _allow(self, call: Call) -> None:
        actions = method_actions(call.interface, call.member)
        await self._gate.allow(call.sender, actions, {}, interactive=call.interactive)
