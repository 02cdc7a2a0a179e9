"""Whether a card is lent that may not come back: what that costs, and when it takes a consent."""

from __future__ import annotations

from gpuhandoff.errors import NeedsConsentError
from gpuhandoff.model.request import Options
from gpuhandoff.model.verdict import Kind, Verdict
from gpuhandoff.model.world import Gpu

_COSTS = {
    Kind.UNKNOWN: "the card may not come back before a reboot: nothing is known about it",
    Kind.CAUTION: "the card may not come back before a reboot: some did not",
    Kind.NEEDS_VENDOR_RESET: "the card may not come back before a reboot, or serve one guest only",
    Kind.ONCE_PER_BOOT: "the card may not come back before a reboot, or serve one guest only",
    Kind.BROKEN: "the card is not expected to come back before a reboot",
}


def risk_of(verdict: Verdict | None) -> str:
    """Return what may be lost with the card, for the plan; empty for one that is expected back, or that nobody needs."""
    if verdict is None or not (verdict.needed or verdict.leaving or verdict.refuses):
        return ""
    return _COSTS.get(verdict.kind, "")


def refuse_risk(gpu: Gpu, options: Options, verdict: Verdict | None) -> None:
    """Raise NeedsConsentError for a card that is expected to be lost, unless its owner accepts that."""
    if verdict is None or not verdict.refuses or options.accept_risk:
        return
    what = f"{gpu.address} ({gpu.name})"
    if verdict.leaving:
        risk = f"{what} may hang the machine on its way to the guest."
    elif verdict.runs:
        guests = "a guest" if verdict.runs == 1 else f"{verdict.runs} guests"
        risk = f"{what} has been with {guests} since the machine was booted, and may serve no further one before a reboot."
    else:
        risk = f"{what} is not expected to come back before a reboot."
    remedy = "Reboot first, or accept it" if verdict.runs and not verdict.leaving else "Accept it"
    raise NeedsConsentError(f"{risk} {verdict.reason} ({verdict.source}) {remedy} with the option accept-risk.")
