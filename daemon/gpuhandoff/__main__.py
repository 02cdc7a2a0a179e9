"""gpuhandoffd: arguments, log, wiring, readiness, exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

UNUSED = ("ssl", "gi")
"""What libraries load where it is there, and do without where it is not: megabytes, and the beginning of a GLib loop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    from gpuhandoff.workshop import Workshop  # noqa: PLC0415  (forked before anything else is loaded: small and clean)

    workshop = Workshop.start()
    options = _parser().parse_args(arguments)
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # documented: importing it then raises ImportError
    import asyncio  # noqa: PLC0415

    if options.simulate:
        workshop.close()
        from gpuhandoff.simulation.daemon import run_simulated  # noqa: PLC0415  (never loaded in a real daemon)

        return asyncio.run(run_simulated(options.simulate, deny=options.simulate_deny))
    from gpuhandoff.service.system import run_system  # noqa: PLC0415

    return asyncio.run(run_system(workshop, configuration=options.configuration))


def _parser() -> ArgumentParser:
    import argparse  # noqa: PLC0415  (as everything that the workshop does not need)
    from pathlib import Path  # noqa: PLC0415

    from gpuhandoff import names  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="gpuhandoffd",
        description="Lends GPUs to virtual machines and takes them back. Started by systemd; see gpuhandoffd(8).",
    )
    parser.add_argument(
        "--configuration",
        type=Path,
        default=Path(names.CONFIGURATION_FILE),
        metavar="FILE",
        help=f"read FILE instead of {names.CONFIGURATION_FILE} (and the conf.d beside it)",
    )
    parser.add_argument(
        "--simulate",
        metavar="SCENARIO",
        help="serve a simulated machine, or that of a report's file, on the bus at DBUS_SYSTEM_BUS_ADDRESS; touches nothing "
        "of this one",
    )
    parser.add_argument(
        "--simulate-deny",
        metavar="ACTION",
        action="append",
        default=[],
        help="with --simulate: polkit's stand-in refuses this action",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
