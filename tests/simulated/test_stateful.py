"""Random lives of a machine with two GPUs: two callers, guests, kills, upgrades, foreign hands, hangs, reboots."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.fault_matrix import ALL
from tests.support.life_of_a_machine import GPUS, World, options
from tests.support.tidying import FUNCTIONS

CALLERS = st.sampled_from([0, 1])
ONE_GPU = st.sampled_from(GPUS)
KINDS = st.sampled_from(["write", "read", "load-module", "remove-module"])


class Lives(RuleBasedStateMachine):
    """Whatever happens, states are documented ones and Status answers; in the end everything is as it was."""

    @initialize()
    def boot(self) -> None:
        logging.getLogger("gpuhandoff").setLevel(logging.CRITICAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        self.world = World()

    @rule(caller=CALLERS, gpu=ONE_GPU, lease=st.booleans(), wait=st.booleans(), full=st.booleans())
    def handoff(self, caller: int, gpu: str, lease: bool, wait: bool, full: bool) -> None:
        self.world.do(self.world.ask(caller, "Handoff", gpu, options(lease=lease, wait=wait, full=full), wait=wait))

    @rule(caller=CALLERS, gpu=ONE_GPU, wait=st.booleans())
    def reclaim(self, caller: int, gpu: str, wait: bool) -> None:
        self.world.do(self.world.ask(caller, "Reclaim", gpu, {}, wait=wait))

    @rule(caller=CALLERS, gpu=ONE_GPU)
    def cancel(self, caller: int, gpu: str) -> None:
        self.world.do(self.world.cancel(caller, gpu))

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.3, 3.0, 40.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.do(asyncio.sleep(seconds))

    @rule(caller=CALLERS, mode=st.sampled_from(["delay", "block"]))
    def inhibit(self, caller: int, mode: str) -> None:
        self.world.do(self.world.inhibit(caller, mode))

    @precondition(lambda self: self.world.cookies)
    @rule()
    def uninhibit(self) -> None:
        self.world.do(self.world.uninhibit())

    @rule(caller=CALLERS)
    def leave(self, caller: int) -> None:
        self.world.do(self.world.leave(caller))

    @rule(operation=st.integers(1, 90))
    def kill_at(self, operation: int) -> None:
        self.world.kill_at(operation)

    @precondition(lambda self: self.world.product.daemon is None)
    @rule()
    def start_daemon(self) -> None:
        self.world.do(self.world.start_daemon())

    @rule()
    def upgrade(self) -> None:
        self.world.do(self.world.replace_daemon())

    @rule(gpu=ONE_GPU)
    def start_guest(self, gpu: str) -> None:
        self.world.do(self.world.start_guest(gpu))

    @rule(gpu=ONE_GPU)
    def stop_guest(self, gpu: str) -> None:
        self.world.do(self.world.stop_guest(gpu))

    @rule(what=st.sampled_from(["override", "clear", "unbind", "probe", "load"]), function=st.sampled_from(FUNCTIONS))
    def others_move(self, what: str, function: str) -> None:
        async def moved() -> None:
            self.world.move(what, function)
            await asyncio.sleep(0.1)

        self.world.do(moved())

    @rule(kind=KINDS)
    def hang(self, kind: str) -> None:
        self.world.hang(kind)

    @precondition(lambda self: self.world.hangs)
    @rule()
    def resolve(self) -> None:
        self.world.do(self.world.resolve())

    @rule(kind=KINDS, number=st.sampled_from([errno.EIO, errno.EBUSY, errno.ENODEV]))
    def refuse(self, kind: str, number: int) -> None:
        self.world.refuse(kind, number)

    @rule()
    def reboot(self) -> None:
        self.world.do(self.world.reboot())

    @invariant()
    def status_answers(self) -> None:
        if hasattr(self, "world"):
            self.world.do(self.world.check())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.do(self.world.end())
            finally:
                self.world.close()
                for name in ("gpuhandoff", "asyncio"):  # other tests look at what is logged
                    logging.getLogger(name).setLevel(logging.NOTSET)


many = bool(os.environ.get(ALL))
TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=1000 if many else 40,
    stateful_step_count=40 if many else 25,
    deadline=None,
    derandomize=not many,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
