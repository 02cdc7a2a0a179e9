"""The methods of org.gpuhandoff.Manager and org.gpuhandoff.Job: parse, authorise, act, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from gpuhandoff.authority.gate import Gate
from gpuhandoff.authority.table import may_cancel, may_object, method_actions, request_actions
from gpuhandoff.config import Configuration
from gpuhandoff.config.options import RECLAIM_OPTIONS, parse_options
from gpuhandoff.errors import AccessDeniedError, InvalidArgsError, ProblemError, UnsupportedError, WrongStateError
from gpuhandoff.messages import Body, Call, RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Options, Request
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.names import JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.plan.display import others_shown, people_shown
from gpuhandoff.plan.target import choose
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.inhibitors import Inhibitors, check_text
from gpuhandoff.service.jobs import Job, Jobs
from gpuhandoff.service.leases import Leases
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.reports import holder_report, plan_report, status_report


class Manager:
    """Answers calls. Every handler authorises before it looks at the machine."""

    def __init__(
        self,
        gate: Gate,
        fleet: Fleet,
        jobs: Jobs,
        moves: Moves,
        inhibitors: Inhibitors,
        leases: Leases,
        tree: ObjectTree,
        configuration: Callable[[], Configuration],
    ) -> None:
        self._gate = gate
        self._fleet = fleet
        self._jobs = jobs
        self._moves = moves
        self._inhibitors = inhibitors
        self._leases = leases
        self._tree = tree
        self._configuration = configuration

    def register(self) -> None:
        """Offer every method of the two interfaces."""
        for member, handler in (
            ("Handoff", self.handoff),
            ("Reclaim", self.reclaim),
            ("Status", self.status),
            ("Plan", self.plan),
            ("Holders", self.holders),
            ("Inhibit", self.inhibit),
            ("Uninhibit", self.uninhibit),
        ):
            self._tree.register(MANAGER_INTERFACE, member, handler)
        self._tree.register(JOB_INTERFACE, "Cancel", self.cancel)
        self._tree.register(JOB_INTERFACE, "Object", self.object)

    async def handoff(self, call: Call) -> Body:
        """Lend a GPU."""
        return await self._move(call, Operation.HANDOFF)

    async def reclaim(self, call: Call) -> Body:
        """Take a GPU back."""
        return await self._move(call, Operation.RECLAIM)

    async def status(self, call: Call) -> Body:
        """Tell where every GPU is, from what events have told: never waits for the machine."""
        await self._allow(call)
        return (status_report(self._fleet, self._jobs),)

    async def plan(self, call: Call) -> Body:
        """Tell what a move would do."""
        gpu_text, direction, given = call.body
        if direction not in set(Operation):
            raise InvalidArgsError("direction: handoff or reclaim is expected.")
        _, request = self.request(call, Operation(direction), gpu_text, given)
        await self._allow(call)
        world = await self.look(with_processes=request.options.quiet)
        gpu = choose(world, request.operation, request.gpu, self._fleet.away())
        plan = self._moves.plan(world, gpu, request.operation, request.options)
        if plan is None:
            return (plan_report(self._moves.undo_steps(gpu.address)),)
        return (plan_report([(step.name, step.does, step.costs, step.arguments) for step in plan.steps]),)

    async def holders(self, call: Call) -> Body:
        """Tell who has a GPU open."""
        address = parse_address(call.body[0])
        await self._allow(call)
        world = await self.look()
        gpu = choose(world, Operation.HANDOFF, address, self._fleet.away())
        asker = await self._gate.uid(call.sender)
        return ([holder_report(world, gpu, holder, asker) for holder in gpu.holders],)

    async def inhibit(self, call: Call) -> Body:
        """Hold handoffs off until Uninhibit, or until the caller leaves."""
        who, why, mode = call.body
        uid = await self._gate.uid(call.sender)
        self._inhibitors.check(call.sender, uid, who, why, mode)
        await self._allow(call)
        departed = asyncio.Event()

        def left() -> None:
            departed.set()
            self._uninhibit_all(call.sender)

        unwatch = await self._leases.on_departure(call.sender, left)
        try:
            if departed.is_set():  # nobody would ever give it back
                raise AccessDeniedError("The caller has left the bus.")
            self._inhibitors.check(call.sender, uid, who, why, mode)
        except ProblemError:
            unwatch()
            raise
        cookie = self._inhibitors.add(call.sender, uid, who, why, mode, unwatch)
        self._publish_inhibited()
        return (cookie,)

    async def uninhibit(self, call: Call) -> Body:
        """Give an inhibitor back."""
        self._inhibitors.remove(call.sender, call.body[0])
        self._publish_inhibited()
        return ()

    async def cancel(self, call: Call) -> Body:
        """Stop a handoff: for whose it is, and root. Everybody else may watch it."""
        job = self._jobs.find(call.path)
        if not may_cancel(job.uid, await self._gate.uid(call.sender)):
            raise AccessDeniedError(f"Job {job.number} was started by somebody else; only they and root can cancel it.")
        self._jobs.cancel(job)
        return ()

    async def object(self, call: Call) -> Body:
        """Stop a handoff that waits for the caller, whose desktop it would end, before it has touched anything."""
        job = self._jobs.find(call.path)
        uid = await self._gate.uid(call.sender)
        asked = self._inhibitors.holds(call.sender, "session")
        if not may_object(uid, job.desktops, asked=asked):
            raise AccessDeniedError(
                f"Only whose desktop job {job.number} ends can object to it, and only through the program that answers for "
                "it, the one that holds an inhibitor of the mode session."
            )
        check_text("why", call.body[0])
        if call.sender not in job.asked:
            raise WrongStateError(f"Job {job.number} does not wait for you, or no longer. Its user and root can cancel it.")
        self._jobs.object(job, job.desktops[uid], call.body[0])
        return ()

    async def _move(self, call: Call, operation: Operation) -> Body:
        gpu, request = self.request(call, operation, *call.body)
        uid = await self._gate.uid(call.sender)
        request = await self._allow_request(request, gpu, uid)
        await self._jobs.recovered(gpu.address)
        job = self._moves.start(request, gpu.address, uid)
        if request.options.lease:
            await self._leases.hold(call.sender, job.gpu)
        if request.options.wait:
            await self._ended(job)
        return (job.path,)

    async def look(self, *, with_processes: bool = False) -> World:
        """Survey for a caller, who must not take another service's refusal for ours."""
        try:
            return await self._fleet.survey(with_processes=with_processes)
        except (OSError, RemoteError) as error:
            raise UnsupportedError(f"The machine cannot be looked at: {getattr(error, 'message', error)}.") from error

    async def _ended(self, job: Job) -> None:
        await job.finished.wait()
        if job.problem is not None:
            raise type(job.problem)(job.problem.message)

    def request(self, call: Call, operation: Operation, name: str, given: Mapping[str, Variant]) -> tuple[Gpu, Request]:
        """Return which GPU is meant and what is wanted, with the configuration's defaults for that GPU and virtual machine.

        Decided before anybody is asked whether it is allowed, and not again.
        """
        gpu = choose(self._fleet.world, operation, parse_address(name), self._fleet.away())
        if operation is Operation.RECLAIM:
            options = parse_options(given, Options(), allowed=RECLAIM_OPTIONS)
        else:
            named = parse_options(given, Options())
            options = parse_options(given, self._configuration().options_for(gpu.address, named.vm))
        return gpu, Request(operation, gpu.address, options, call.sender, call.interactive or options.interactive)

    async def _allow_request(self, request: Request, gpu: Gpu, uid: int) -> Request:
        """Return the request once all that it may do is allowed, with whose desktop may end.

        Whose that is, is what was last seen. The job looks again, and goes no further than what was allowed.
        """
        people = people_shown(self._fleet.world, gpu)
        others = others_shown(self._fleet.world, gpu, uid)
        actions = request_actions(request, others=others)
        details = {
            "gpu": f"{gpu.address} ({gpu.name})",
            "vm": request.options.vm or "a virtual machine",
            "sessions": ", ".join(sorted(people.values())) or "nobody",
            "guest": gpu.guest.name if gpu.guest is not None else "the virtual machine",
        }
        await self._gate.allow(request.sender, actions, details, interactive=request.interactive)
        unlimited = others or uid == 0  # polkit allows root everything
        return replace(request, only_user=None if unlimited else uid)

    async def _allow(self, call: Call) -> None:
        actions = method_actions(call.interface, call.member)
        await self._gate.allow(call.sender, actions, {}, interactive=call.interactive)

    def _uninhibit_all(self, sender: str) -> None:
        self._inhibitors.forget(sender)
        self._publish_inhibited()

    def _publish_inhibited(self) -> None:
        self._tree.update(MANAGER_PATH, MANAGER_INTERFACE, {"Inhibited": bool(self._inhibitors.blocking)})


def parse_address(text: str) -> PciAddress | None:
    """Return the GPU that a call names, or None for ""; raises InvalidArgsError."""
    if not text:
        return None
    try:
        return PciAddress.parse(text)
    except ValueError as error:
        raise InvalidArgsError(f"gpu: {error}.") from error
