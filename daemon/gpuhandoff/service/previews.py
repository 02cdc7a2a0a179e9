"""The method Preview: a plan as a person needs it, before saying yes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from gpuhandoff.authority.gate import Gate
from gpuhandoff.authority.table import method_actions, request_actions
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.history.pace import pace
from gpuhandoff.messages import Body, Call, Variant
from gpuhandoff.model.plan import Json, Plan
from gpuhandoff.model.request import Operation, Request
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.names import MANAGER_INTERFACE
from gpuhandoff.plan.display import others_shown
from gpuhandoff.plan.layout import why_desktop_stays
from gpuhandoff.plan.people import describe
from gpuhandoff.plan.preview import UNDO, preview, spare
from gpuhandoff.plan.target import choose
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.manager import Manager
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.objects import ObjectTree

UNKNOWN = -1.0
"""Seconds of a step that has not been taken here yet."""


class Previews:
    """Answers calls, as Manager does."""

    def __init__(
        self,
        gate: Gate,
        fleet: Fleet,
        moves: Moves,
        manager: Manager,
        chronicle: Chronicle,
        tree: ObjectTree,
    ) -> None:
        self._gate = gate
        self._fleet = fleet
        self._moves = moves
        self._manager = manager
        self._chronicle = chronicle
        self._tree = tree

    def register(self) -> None:
        """Offer the method."""
        self._tree.register(MANAGER_INTERFACE, "Preview", self.preview)

    async def preview(self, call: Call) -> Body:
        """Tell what a move would do, cost, ask for and take."""
        gpu_text, direction, given = call.body
        if direction not in set(Operation):
            raise InvalidArgsError("direction: handoff or reclaim is expected.")
        _, request = self._manager.request(call, Operation(direction), gpu_text, given)
        actions = method_actions(call.interface, call.member)
        await self._gate.allow(call.sender, actions, {}, interactive=call.interactive)
        asker = await self._gate.uid(call.sender)
        world = await self._manager.look(with_processes=True)
        gpu = choose(world, request.operation, request.gpu, self._fleet.away())
        plan = self._moves.plan(world, gpu, request.operation, request.options)
        if plan is None:
            return (self._answer(world, gpu, asker, request, None, self._moves.undo_steps(gpu.address), {}),)
        steps = [(step.name, step.does, step.costs, step.arguments) for step in plan.steps]
        if request.operation is Operation.RECLAIM:
            return (self._answer(world, gpu, asker, request, plan, steps, {}),)
        seen = preview(world, gpu, plan)
        lost = {
            "sessions": Variant("as", [f"{one.user} on {one.seat}" for one in seen.sessions]),
            "programs": Variant("as", list(seen.programs)),
            "more-programs": Variant("u", seen.more),
            "lost": Variant("as", list(seen.lost)),
            "ended": Variant("as", [describe(world, holder, asker) for holder in seen.ended]),
        }
        return (self._answer(world, gpu, asker, request, plan, steps, lost),)

    def _answer(
        self,
        world: World,
        gpu: Gpu,
        asker: int,
        request: Request,
        plan: Plan | None,
        steps: list[tuple[str, str, str, Json]],
        lost: Mapping[str, Variant],
    ) -> dict[str, Variant]:
        undoing = plan is None
        verdict = self._fleet.verdict(world, gpu)
        unneeded = spare(gpu, plan, request.options, refuses=verdict.refuses)
        needed = replace(request, options=replace(request.options, **unneeded))  # type: ignore[arg-type]
        usual = pace(self._chronicle.moves(gpu.address, 0), gpu.address, "undone" if undoing else "done")
        taken = [usual.get(name, UNKNOWN) for name, *_ in steps]
        rows = [
            {
                "step": Variant("s", name),
                "does": Variant("s", does),
                "costs": Variant("s", costs),
                "undo": Variant("s", "" if undoing else UNDO.get(name, "")),
                "seconds": Variant("d", seconds),
                "arguments": Variant("s", json.dumps(arguments)),
            }
            for (name, does, costs, arguments), seconds in zip(steps, taken, strict=True)
        ]
        return {
            "gpu": Variant("s", str(gpu.address)),
            "name": Variant("s", gpu.name),
            "direction": Variant("s", str(request.operation)),
            "steps": Variant("aa{sv}", rows),
            "seconds": Variant("d", sum(one for one in taken if one > 0) if any(one >= 0 for one in taken) else UNKNOWN),
            "asks": Variant("as", list(request_actions(needed, others=others_shown(world, gpu, asker)))),
            "unneeded": Variant("as", [name.replace("_", "-") for name in unneeded]),
            "desktop": Variant("s", why_desktop_stays(world, gpu)),
            "reset-verdict": Variant("s", str(verdict.kind)),
            "reset-reason": Variant("s", verdict.reason),
            "reset-source": Variant("s", verdict.source),
            "reset-risk": Variant("b", verdict.refuses),
            "needed": Variant("b", verdict.needed),
            **lost,
        }
