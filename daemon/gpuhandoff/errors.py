"""What can go wrong, as one family of values: each has its D-Bus error name and a sentence for a person.

A sentence says what happened, to what, why, and what to do. It is written where the cause is known; nobody
further out rewords it.
"""

from __future__ import annotations

from gpuhandoff.names import ERROR_PREFIX


class ProblemError(Exception):
    """A refusal or failure that the caller is told about, word for word.

    Subclasses differ only in `name`, the D-Bus error name, so that clients can tell causes apart without
    reading text.
    """

    name = ERROR_PREFIX + "Failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFoundError(ProblemError):
    """No such GPU, job or cookie."""

    name = ERROR_PREFIX + "NotFound"


class AmbiguousError(ProblemError):
    """No GPU was named and more than one qualifies."""

    name = ERROR_PREFIX + "Ambiguous"


class BusyError(ProblemError):
    """Another job works on the same GPU."""

    name = ERROR_PREFIX + "Busy"


class InUseError(ProblemError):
    """Somebody has the GPU open: a process of the host, or the guest."""

    name = ERROR_PREFIX + "InUse"


class InhibitedError(ProblemError):
    """A client holds a block inhibitor."""

    name = ERROR_PREFIX + "Inhibited"


class NotIsolatedError(ProblemError):
    """The IOMMU is off, or the GPU shares its IOMMU group with a device that stays with the host."""

    name = ERROR_PREFIX + "NotIsolated"


class NeedsConsentError(ProblemError):
    """The plan ends sessions or takes a risk, and the caller did not say that this is wanted."""

    name = ERROR_PREFIX + "NeedsConsent"


class UnsupportedError(ProblemError):
    """This machine or kernel cannot do it."""

    name = ERROR_PREFIX + "Unsupported"


class WrongStateError(ProblemError):
    """The GPU is not where the request supposes it to be."""

    name = ERROR_PREFIX + "WrongState"


class TimedOutError(ProblemError):
    """A step or the whole job took longer than it was allowed to."""

    name = ERROR_PREFIX + "TimedOut"


class CancelledJobError(ProblemError):
    """Somebody cancelled the job."""

    name = ERROR_PREFIX + "Cancelled"


class RolledBackError(ProblemError):
    """A step failed; the host is exactly as it was before."""

    name = ERROR_PREFIX + "RolledBack"


class StuckError(ProblemError):
    """A step failed and could not be undone either; the sentence names the step, the cause and the remedy.

    `lost`: it was the card that did not come back, and nobody held it.
    """

    name = ERROR_PREFIX + "Stuck"

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class AccessDeniedError(ProblemError):
    """polkit said no, or could not be asked."""

    name = "org.freedesktop.DBus.Error.AccessDenied"


class AuthorizationRequiredError(ProblemError):
    """polkit would say yes after a password, and the call did not allow asking for one."""

    name = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"


class InvalidArgsError(ProblemError):
    """An argument has the wrong form; the sentence names it."""

    name = "org.freedesktop.DBus.Error.InvalidArgs"


class LimitsExceededError(ProblemError):
    """The caller asked for more than one caller may hold."""

    name = "org.freedesktop.DBus.Error.LimitsExceeded"


class UnknownMethodError(ProblemError):
    """No such object, interface or method."""

    name = "org.freedesktop.DBus.Error.UnknownMethod"


class UnknownPropertyError(ProblemError):
    """No such property."""

    name = "org.freedesktop.DBus.Error.UnknownProperty"


class PropertyReadOnlyError(ProblemError):
    """Every property of gpuhandoff is read-only."""

    name = "org.freedesktop.DBus.Error.PropertyReadOnly"
