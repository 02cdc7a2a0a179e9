"""`./run demo` plays to its end, and says so in words and in its exit status."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("scenario", ["single-nvidia", "igpu-dgpu"])
def test_the_demo_ends_with_the_machine_as_it_was(scenario: str) -> None:
    played = subprocess.run(
        [sys.executable, "-m", "gpuhandoff.simulation.demo", scenario],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "exactly as it was" in played.stdout
    assert "with a guest: qemu-system-x86" in played.stdout
    assert "Traceback" not in played.stdout + played.stderr
