"""A kernel that says what makes no sense: nothing is moved, nothing ends, and all is well once it talks sense again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.survey import survey
from tests.support.product import Product

GPU = "0000:01:00.0"
DEVICE = f"/sys/bus/pci/devices/{GPU}"
SAYS = {
    "/proc/modules": ["", "\0", "nvidia", "nvidia x y z -", "nvidia 1 -999999999999999999999999 - Live 0x0\n" * 3],
    f"{DEVICE}/vendor": ["", "0x", "ninety", "0x10de\n0x10de", "-1", "9" * 4400],
    f"{DEVICE}/class": ["", "0xg", "\x1b[2J"],
    f"{DEVICE}/resource": ["", "x", "0x0 0x0", "0x1 0x2 zz"],
    "/proc/meminfo": ["", "MemTotal: lots kB", "MemTotal:", ":::"],
    "/sys/devices/system/cpu/online": ["", "0-", "9-1", "0-99999999999"],
    "/proc/cmdline": ["\0" * 100, "=" * 5000],
}


@pytest.mark.parametrize(("path", "text"), [(path, text) for path, texts in SAYS.items() for text in texts])
def test_the_survey_understands_or_refuses(path: str, text: str) -> None:
    async def main() -> None:
        machine = await SCENARIOS["single-nvidia"]()
        await machine.serve(broker := LoopbackBroker())
        host = simulated_host(machine, broker.connect())
        read = host.kernel.read
        spoiled = path
        host.kernel.read = lambda path: text if path == spoiled else read(path)  # type: ignore[method-assign]
        try:
            world = await survey(host)
        except (OSError, RemoteError):
            return
        assert world.gpus or path.endswith(("vendor", "class"))

    run(main())


def test_the_daemon_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        product = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
        assert product.daemon is not None
        kernel = product.daemon.fleet._host.kernel
        read = kernel.read
        before = product.machine.snapshot()
        kernel.read = lambda path: "nvidia" if path == "/proc/modules" else read(path)  # type: ignore[method-assign]
        with pytest.raises(RemoteError, match=r"machine could not be looked at.*not understood"):
            await product.handoff(GPU)
        with pytest.raises(RemoteError, match=r"cannot be looked at.*not understood"):
            await product.call("Holders", "s", GPU)
        product.daemon.fleet._stale.set()
        assert (await product.status(GPU))["state"] == "host"
        assert differences(before, product.machine.snapshot()) == []
        kernel.read = read  # type: ignore[method-assign]
        await product.call("Handoff", "sa{sv}", GPU, {})
        assert (await product.status(GPU))["state"] == "detached"
        await product.reclaim(GPU)
        await product.stop()

    run(main())
