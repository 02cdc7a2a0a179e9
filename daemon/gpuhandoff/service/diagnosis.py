"""The method Diagnose: what stands, or could stand, in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gpuhandoff.authority.gate import Gate
from gpuhandoff.authority.table import method_actions
from gpuhandoff.config import Configuration
from gpuhandoff.doctor import Finding, Severity, examine
from gpuhandoff.errors import UnsupportedError
from gpuhandoff.host import Host
from gpuhandoff.messages import Body, Call, RemoteError, Variant
from gpuhandoff.names import MANAGER_INTERFACE
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.survey.surroundings import surroundings


class Diagnosis:
    """Answers calls, as Manager does."""

    def __init__(
        self,
        gate: Gate,
        fleet: Fleet,
        host: Host,
        tree: ObjectTree,
        configuration: Callable[[], Configuration],
        rejected: Callable[[], str],
    ) -> None:
        self._gate = gate
        self._fleet = fleet
        self._host = host
        self._tree = tree
        self._configuration = configuration
        self._rejected = rejected
        """Tells what is wrong with the configuration that was read last, empty when it is in effect."""

    def register(self) -> None:
        """Offer the method."""
        self._tree.register(MANAGER_INTERFACE, "Diagnose", self.diagnose)

    async def diagnose(self, call: Call) -> Body:
        """Look at the machine and at what else is installed, and tell what is found, the worst first."""
        actions = method_actions(call.interface, call.member)
        await self._gate.allow(call.sender, actions, {}, interactive=call.interactive)
        try:
            world = await self._fleet.survey()
        except (OSError, RemoteError) as error:
            raise UnsupportedError(f"The machine cannot be looked at: {getattr(error, 'message', error)}.") from error
        around = await asyncio.to_thread(surroundings, self._host, world.boot_parameters)
        verdicts = {gpu.address: self._fleet.verdict(world, gpu) for gpu in world.gpus}
        states = {address: (standing.state, standing.reason) for address, standing in self._fleet.standings()}
        found = examine(world, around, verdicts, states, self._configuration().gpus)
        return ([_report(finding) for finding in (*_of_configuration(self._rejected()), *found)],)


def _of_configuration(mistake: str) -> tuple[Finding, ...]:
    if not mistake:
        return ()
    return (
        Finding(
            Severity.PROBLEM,
            "configuration",
            "The configuration has a mistake: what it was before is in effect, until gpuhandoffd has to start anew.",
            mistake,
            "Mend it, then run `systemctl reload gpuhandoffd`.",
        ),
    )


def _report(finding: Finding) -> dict[str, Variant]:
    return {
        "severity": Variant("s", str(finding.severity)),
        "check": Variant("s", finding.check),
        "gpu": Variant("s", finding.gpu),
        "what": Variant("s", finding.what),
        "evidence": Variant("s", finding.evidence),
        "remedy": Variant("s", finding.remedy),
    }
