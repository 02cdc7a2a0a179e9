"""The verdict on one card: what the tables say, what this machine can do, and what it has shown, which outranks both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpuhandoff.model.verdict import NO_SOURCE, Experience, Kind, Loss, Verdict
from gpuhandoff.model.world import GROUP_DRIVERS, Gpu, World
from gpuhandoff.verdict.reset import has_own_reset, has_slot_reset, vendor_reset_in_effect, vendor_reset_loaded
from gpuhandoff.verdict.rules import CardRule, KernelRule, cards, kernels, version_of

THIS_MACHINE = "this machine"
_NO_RULE = "No report about this model was found."
_FIRMWARE_ONLY = (
    "No driver of the host has it: its picture is what the firmware has set up, which ends for good when vfio-pci takes the "
    "card, and its screen would stay dark. That is different once its driver is loaded; nomodeset, a blacklist, or a module "
    "that was not built for this kernel keeps it away."
)


@dataclass(frozen=True, slots=True)
class _Opinion:
    """A verdict in the making."""

    kind: Kind
    reason: str
    source: str
    leaving: bool = False
    by_kernel: bool = False


def judge(world: World, gpu: Gpu, experience: Experience, *, needed: bool) -> Verdict:
    """Return what to expect. `needed`: whether the host has to get the card back, as for the desktop that it shows."""
    dark = _Opinion(Kind.BROKEN, _FIRMWARE_ONLY, THIS_MACHINE) if needed and _firmware_only(gpu) else None
    opinion = dark or _with_kernel(_shown(world, experience) or _read(world, gpu, experience), world, gpu, experience)
    return Verdict(opinion.kind, opinion.reason, opinion.source, experience.runs, needed, opinion.leaving, opinion.by_kernel)


def flavour(world: World, gpu: Gpu) -> str:
    """Return the driver that the card is with, the two of NVIDIA told apart; empty on vfio-pci and without any."""
    driver = gpu.display.driver
    if driver == "nvidia":
        return "nvidia-open" if world.nvidia_open else "nvidia-proprietary"
    return "" if driver is None or gpu.on_vfio else driver


def _firmware_only(gpu: Gpu) -> bool:
    """Tell whether only the firmware shows a picture with a card: vfio-pci ends that until the next boot (fact 9)."""
    return gpu.display.driver in GROUP_DRIVERS and any(one.platform for one in gpu.framebuffers)


def _shown(world: World, experience: Experience) -> _Opinion | None:
    """Return what this machine has shown itself, if anything: a card that was lost."""
    loss = experience.loss
    if loss is None:
        return None
    kind = Kind.BROKEN if loss.run == 1 else Kind.ONCE_PER_BOOT
    why = loss.message.partition(". ")[0].rstrip(".")
    return _Opinion(kind, f"{_lost(loss)} {why}.{_other_kernel(world, loss)}", THIS_MACHINE)


def _lost(loss: Loss) -> str:
    if loss.run == 1:
        return "On this machine the card did not come back after a guest."
    return f"On this machine the card did not come back after guest {loss.run} of one boot."


def _other_kernel(world: World, loss: Loss) -> str:
    if not loss.kernel or loss.kernel == world.kernel_release:
        return ""
    return f" That was on kernel {loss.kernel}; this is {world.kernel_release}, of which nothing is known yet."


def _read(world: World, gpu: Gpu, experience: Experience) -> _Opinion:
    """Return what the table of cards says, unless this machine has shown better."""
    opinion = _of_card(world, gpu)
    if _disproved(opinion, experience):
        times = f"{experience.returns} time{'s' * (experience.returns != 1)}"
        again = f", {experience.repeats} of them after an earlier guest of the same boot" * bool(experience.repeats)
        reason = f"On this machine the card came back after a guest {times}{again}."
        opinion = _Opinion(Kind.SAFE, reason, THIS_MACHINE)
    return opinion


def _with_kernel(opinion: _Opinion, world: World, gpu: Gpu, experience: Experience) -> _Opinion:
    """Return the worse of what is said of the card and of its kernel, with what is said of the other."""
    worst = max((_of_kernel(rule) for rule in _rules(world, gpu, experience)), key=_severity, default=None)
    if worst is None:
        return opinion
    if worst.kind.severity <= opinion.kind.severity:
        return replace(
            opinion,
            reason=f"{opinion.reason} {worst.reason}",
            source=_sources(opinion.source, worst.source),
            leaving=worst.leaving,
            by_kernel=worst.leaving,
        )
    if opinion.kind.severity < Kind.CAUTION.severity:
        return worst
    return replace(worst, reason=f"{worst.reason} {opinion.reason}", source=_sources(worst.source, opinion.source))


def _sources(*told: str) -> str:
    """Return each source once."""
    return "; ".join(dict.fromkeys(one for sources in told for one in sources.split("; ")))


def _severity(opinion: _Opinion) -> int:
    return opinion.kind.severity


def _disproved(opinion: _Opinion, experience: Experience) -> bool:
    """Tell whether what the machine has shown is as much as the opinion doubts."""
    if opinion.kind is Kind.SAFE:
        return False
    once = opinion.kind in {Kind.ONCE_PER_BOOT, Kind.NEEDS_VENDOR_RESET}
    return bool(experience.repeats if once else experience.returns)


def _rules(world: World, gpu: Gpu, experience: Experience) -> list[KernelRule]:
    """Return the rows about kernels that count here; what went well on this very kernel disproves them."""
    version = version_of(world.kernel_version or world.kernel_release)
    driver = flavour(world, gpu)
    return [
        rule
        for rule in kernels()
        if rule.fits(version, driver)
        and not (rule.when == "no-own-reset" and has_own_reset(gpu))
        and world.kernel_release not in (experience.repeat_kernels if _once(rule) else experience.kernels)
    ]


def _once(rule: KernelRule) -> bool:
    return rule.kind is Kind.ONCE_PER_BOOT


def _of_kernel(rule: KernelRule) -> _Opinion:
    return _Opinion(rule.kind, rule.reason, rule.source, leaving=rule.when == "leaves", by_kernel=True)


def _of_card(world: World, gpu: Gpu) -> _Opinion:
    display = gpu.display
    driver = flavour(world, gpu)
    rule = next((one for one in cards() if one.fits(display.vendor, display.device, driver)), None)
    if rule is None:
        return _unknown(gpu)
    if rule.kind is Kind.NEEDS_VENDOR_RESET:
        return _with_vendor_reset(world, gpu, rule)
    if rule.kind is Kind.SAFE and display.reset_methods and not has_own_reset(gpu) and not has_slot_reset(gpu):
        return _Opinion(
            Kind.CAUTION,
            f"{rule.family}: it would come back if its whole slot could be reset, but here another device shares that.",
            rule.source,
        )
    return _Opinion(rule.kind, f"{rule.family}: {rule.reason}", rule.source)


def _unknown(gpu: Gpu) -> _Opinion:
    if has_own_reset(gpu):
        better = "It has a reset of its own, which is a good sign."
    elif has_slot_reset(gpu):
        better = "It has no reset of its own; that of its whole slot has to do."
    else:
        better = "Neither it nor its slot has a reset."
    return _Opinion(Kind.UNKNOWN, f"{_NO_RULE} {better}", NO_SOURCE)


def _with_vendor_reset(world: World, gpu: Gpu, rule: CardRule) -> _Opinion:
    if vendor_reset_in_effect(world, gpu):
        return _Opinion(Kind.SAFE, f"{rule.family}: the module vendor-reset is loaded and in effect.", rule.source)
    if vendor_reset_loaded(world):
        methods = " ".join(gpu.display.reset_methods) or "nothing"
        why = (
            f"The module vendor-reset is loaded but not in effect: reset_method of {gpu.address} says {methods}, and has "
            "to begin with device_specific."
        )
    else:
        why = "The module vendor-reset is not loaded."
    return _Opinion(rule.kind, f"{rule.family}: {rule.reason} {why}", rule.source)
