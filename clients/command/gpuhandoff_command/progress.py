"""How far a move is, a line a step."""

from __future__ import annotations

import time

from gpuhandoff_command.terminal import Terminal, clean

WORDS = {
    "inhibit-sleep": ("keep the machine awake", "let the machine sleep again"),
    "load-vfio": ("load vfio-pci", "unload vfio-pci"),
    "stop-display": ("end the desktop", "start the desktop"),
    "stop-gpu-services": ("stop GPU services", "start GPU services"),
    "settle-holders": ("wait until nobody uses the GPU", "let programs use the GPU"),
    "claim-functions": ("reserve the GPU for the guest", "give up the reservation"),
    "unbind-consoles": ("detach text consoles", "attach text consoles"),
    "unbind-framebuffers": ("detach the firmware's framebuffer", "attach the firmware's framebuffer"),
    "unload-driver": ("unload the driver", "load the driver"),
    "resize-bars": ("resize the memory windows", "set the memory windows back"),
    "bind-vfio": ("bind vfio-pci", "unbind vfio-pci"),
    "confine-host": ("confine the host to its CPUs", "give the host all its CPUs"),
    "quiet-host": ("pause what may wait", "continue what was paused"),
    "free-memory": ("free memory", "nothing to do for memory"),
    "back-guest-memory": ("prepare huge pages", "give huge pages back"),
    "release-functions": ("give the GPU to the host's driver", "take the GPU from the host's driver"),
}
SLOW = 0.5
"""Seconds from which a terminal is told how long a step took."""


class Progress:
    """Turns Progress signals into lines: on a terminal the step at work is shown and replaced when it ends."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._open: tuple[str, str, int, int] | None = None
        self._since = 0.0

    def show(self, step: str, phase: str, index: int, count: int) -> None:
        """Show one signal."""
        if phase in {"apply", "undo"}:
            self.stop()
            self._open = (step, phase, index, count)
            self._since = time.monotonic()
            self.tick()
        else:
            taken = time.monotonic() - self._since if self._open else 0.0
            self._open = None
            self._settle(step, phase, index, count, taken)

    def tick(self) -> None:
        """Show how long the step at work has taken so far."""
        if self._open is not None:
            step, phase, index, count = self._open
            seconds = int(time.monotonic() - self._since)
            after = f"  {seconds} s" if seconds else ""
            self._terminal.draft(self._line(self._terminal.sign(phase), "dim", _words(step, phase), index, count, after))

    def stop(self) -> None:
        """Close the step at work, which did not come to its end."""
        if self._open is not None:
            step, phase, index, count = self._open
            self._open = None
            self._settle(step, "failed" if phase == "apply" else "undo-failed", index, count, time.monotonic() - self._since)

    def _settle(self, step: str, phase: str, index: int, count: int, taken: float) -> None:
        sign, colour = {"done": ("done", "good"), "undone": ("undone", "warn")}.get(phase, ("failed", "bad"))
        after = f"  {taken:.1f} s" if self._terminal.live and taken >= SLOW else ""
        self._terminal.settle(self._line(self._terminal.sign(sign), colour, _words(step, phase), index, count, after))

    def _line(self, sign: str, colour: str, words: str, index: int, count: int, after: str) -> str:
        digits = len(str(count))
        text = f" {index:>{digits}}/{count} {words}{after}"
        if self._terminal.live:
            text = text[: max(self._terminal.width - len(sign) - 1, 1)]
        return self._terminal.paint(sign, colour) + text


def _words(step: str, phase: str) -> str:
    does, undoes = WORDS.get(step, (clean(step), f"undo {clean(step)}"))
    return undoes if phase.startswith("und") else does
