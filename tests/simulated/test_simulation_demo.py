"""`./run demo` plays to its end, and says so in words and in its exit status."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def play(scenario: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpuhandoff.simulation.demo", scenario],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_demo_ends_with_the_machine_as_it_was() -> None:
    played = play("igpu-dgpu")
    assert (played.returncode, played.stderr) == (0, "")
    assert "exactly as it was" in played.stdout
    assert "with a guest: qemu-system-x86" in played.stdout


def test_the_readme_shows_what_the_demo_prints() -> None:
    played = play("single-nvidia")
    assert (played.returncode, played.stderr) == (0, "")
    shown = re.search(r"<!-- demo:begin -->.*?```text\n(.*?)```\n<!-- demo:end -->", README.read_text(), re.DOTALL)
    assert shown is not None
    assert played.stdout == shown[1]
