"""Several at once: two callers with the same and with opposite wishes, cancel, reload, stop and guests in every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.scenarios import GPU, SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import FOREVER, OPTIONS, Product
from tests.support.tidying import unnumbered

STEPS = (
    *("inhibit-sleep", "stop-display", "stop-gpu-services", "settle-holders", "claim-functions", "unload-driver"),
    *("bind-vfio", "confine-host", "free-memory", "back-guest-memory"),
)


async def product(directory: Path, scenario: str = "single-nvidia") -> Product:
    return await Product(await SCENARIOS[scenario](), directory / "run").start()


def at(one: Product, step: str, phase: str, do: Callable[[], Any]) -> None:
    """Do something once, at this phase of this step."""
    observe = one.jobs.observe
    done: list[str] = []

    def observed(job: Any, name: str, what: str, index: int, count: int) -> None:
        observe(job, name, what, index, count)
        if (name, what) == (step, phase) and not done:
            done.append(name)
            asyncio.get_running_loop().call_soon(do)

    one.jobs.observe = observed  # type: ignore[method-assign,assignment]


async def asks(one: Product, member: str, gpu: str = GPU, *, uid: int = 1001, **options: Variant) -> str:
    """Ask as another caller; return the name of the error, or empty."""
    bus = one.broker.connect(uid=uid)
    given = {**OPTIONS, **options} if member == "Handoff" else dict(options)
    try:
        await bus.call(
            names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, member, "sa{sv}", (gpu, given), timeout=FOREVER
        )
    except RemoteError as error:
        return error.name.rpartition(".")[2]
    finally:
        bus.drop()
    return ""


async def both(*asking: Coroutine[Any, Any, str]) -> list[str]:
    return list(await asyncio.gather(*asking))


async def as_it_was(one: Product, before: dict[str, Any]) -> None:
    await asyncio.sleep(5)
    assert differences(before, one.machine.snapshot()) == []
    assert one.journals() == []
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
@pytest.mark.parametrize("step", STEPS)
def test_a_second_caller_in_every_step_of_a_handoff(member: str, step: str, tmp_path: Path) -> None:
    """The same wish joins, the opposite one is refused; neither disturbs the move."""

    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        second: list[asyncio.Task[str]] = []
        at(one, step, "apply", lambda: second.append(asyncio.ensure_future(asks(one, member))))
        await one.handoff(GPU)
        assert await second[0] == ("" if member == "Handoff" else "Busy")
        assert (await one.status(GPU))["state"] == "detached"
        await one.reclaim(GPU)
        await as_it_was(one, before)

    run(main())


@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
@pytest.mark.parametrize("step", STEPS)
def test_a_second_caller_in_every_step_of_a_reclaim(member: str, step: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        await one.handoff(GPU)
        second: list[asyncio.Task[str]] = []
        at(one, step, "undo", lambda: second.append(asyncio.ensure_future(asks(one, member))))
        await one.reclaim(GPU)
        assert await second[0] == ("" if member == "Reclaim" else "Busy")
        await as_it_was(one, before)

    run(main())


@pytest.mark.parametrize("phase", ["apply", "done"])
@pytest.mark.parametrize("step", STEPS)
def test_cancel_in_every_step(step: str, phase: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        answers: list[asyncio.Task[Any]] = []

        async def cancel() -> str:
            path = (await one.status(GPU))["job"]
            try:
                await one.client.call(names.BUS_NAME, path, names.JOB_INTERFACE, "Cancel")
            except RemoteError as error:
                return error.name.rpartition(".")[2]
            return ""

        at(one, step, phase, lambda: answers.append(asyncio.ensure_future(cancel())))
        told = await asks(one, "Handoff", uid=one.client.uid)
        if told == "":  # the last step was in effect already: too late
            assert (step, phase) == (STEPS[-1], "done")
            assert await answers[0] in {"WrongState", "UnknownMethod"}
            await one.reclaim(GPU)
        else:
            assert (told, await answers[0]) == ("Cancelled", "")
        await as_it_was(one, before)

    run(main())


@pytest.mark.parametrize("step", STEPS)
def test_what_undoes_cannot_be_cancelled(step: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        await one.handoff(GPU)
        answers: list[asyncio.Task[Any]] = []

        async def cancel() -> str:
            path = (await one.status(GPU))["job"]
            with pytest.raises(RemoteError) as caught:
                await one.client.call(names.BUS_NAME, path, names.JOB_INTERFACE, "Cancel")
            return caught.value.name.rpartition(".")[2]

        at(one, step, "undo", lambda: answers.append(asyncio.ensure_future(cancel())))
        await one.reclaim(GPU)
        assert await answers[0] == "WrongState"
        await as_it_was(one, before)

    run(main())


@pytest.mark.parametrize("direction", ["handoff", "reclaim"])
@pytest.mark.parametrize("step", STEPS)
def test_the_configuration_is_read_again_in_every_step(direction: str, step: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        if direction == "reclaim":
            await one.handoff(GPU)
        daemon = one.daemon
        assert daemon is not None

        def reload() -> None:
            one.configuration = Configuration()
            daemon.reload()

        at(one, step, "apply" if direction == "handoff" else "undo", reload)
        await (one.handoff(GPU) if direction == "handoff" else one.reclaim(GPU))
        assert daemon.configuration() is one.configuration
        if direction == "handoff":
            await one.reclaim(GPU)
        await as_it_was(one, before)

    run(main())


@pytest.mark.parametrize("direction", ["handoff", "reclaim"])
@pytest.mark.parametrize("step", STEPS)
def test_an_upgrade_in_every_step(direction: str, step: str, tmp_path: Path) -> None:
    """A daemon that is stopped first puts a handoff back and finishes a reclaim; the next one finds nothing to do."""

    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        if direction == "reclaim":
            await one.handoff(GPU)
        stopped: list[asyncio.Task[None]] = []
        phase = "apply" if direction == "handoff" else "undo"
        at(one, step, phase, lambda: stopped.append(asyncio.ensure_future(one.stop())))
        move = asyncio.ensure_future(asks(one, direction.capitalize()))
        assert await move in {"Cancelled", "NoReply", ""}
        await stopped[0]
        await asyncio.sleep(3)
        assert one.journals() == []
        await one.start_daemon()
        await as_it_was(one, before)

    run(main())


@in_virtual_time
async def test_an_upgrade_while_a_guest_runs_leaves_it_alone(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, vm=Variant("s", "win11"))
    guest = one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    away = one.machine.snapshot()
    for end in (one.stop, None):
        if end is None:
            one.kill()
        else:
            await end()
        await asyncio.sleep(1)
        assert differences(away, one.machine.snapshot()) == [], "not even the inhibitor"
        await one.start_daemon()
        await asyncio.sleep(1)
        status = await one.status(GPU)
        assert (status["state"], status["vm"], status["owner"]) == ("guest", "win11", f"qemu-system-x86 (pid {guest.pid})")
        assert differences(away, one.machine.snapshot()) == []
    assert one.machine.processes.get(guest.pid) is guest
    assert await asks(one, "Reclaim") == "InUse"
    one.machine.stop_guest(GPU)
    await one.reclaim(GPU)
    await as_it_was(one, before)


@pytest.mark.parametrize("ends", ["reclaim", "kill", "stop"])
def test_two_gpus_at_once(ends: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path, "twin")
        before = one.machine.snapshot()
        assert await both(asks(one, "Handoff", GPU), asks(one, "Handoff", SECOND_GPU)) == ["", ""]
        for gpu in (GPU, SECOND_GPU):
            assert (await one.status(gpu))["state"] == "detached"
        if ends == "kill":
            one.kill()
        elif ends == "stop":
            await one.stop()
        if ends != "reclaim":
            await one.start_daemon()
        assert await both(asks(one, "Reclaim", GPU), asks(one, "Reclaim", SECOND_GPU)) == ["", ""]
        await asyncio.sleep(5)
        assert differences(unnumbered(before), unnumbered(one.machine.snapshot())) == []
        assert one.journals() == []
        await one.stop()

    run(main())


@pytest.mark.parametrize("second", ["Handoff", "Reclaim"])
def test_one_gpu_goes_while_the_other_comes(second: str, tmp_path: Path) -> None:
    async def main() -> None:
        one = await product(tmp_path, "twin")
        before = one.machine.snapshot()
        first = "Reclaim" if second == "Handoff" else "Handoff"
        await one.handoff(SECOND_GPU if first == "Handoff" else GPU)
        assert await both(asks(one, first, GPU), asks(one, second, SECOND_GPU)) == ["", ""]
        for gpu in (GPU, SECOND_GPU):
            if (await one.status(gpu))["state"] != "host":
                await one.reclaim(gpu)
        await asyncio.sleep(5)
        assert differences(unnumbered(before), unnumbered(one.machine.snapshot())) == []
        await one.stop()

    run(main())
