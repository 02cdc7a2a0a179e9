import QtQml
import "bus.mjs" as Bus

// Everything that the widget says by itself. What the daemon says is shown as it is.
QtObject {
    function state(card: Card): string {
        switch (card.state) {
        case "host":
            return i18nc("where a graphics card is", "With this computer");
        case "handing-off":
            return card.vm ? i18nc("a graphics card is moving; %1 is a virtual machine", "Going to “%1”…", card.vm) : i18nc("a graphics card is moving", "Going to a virtual machine…");
        case "detached":
            return card.vm ? i18nc("%1 is a virtual machine that has not started yet", "Ready for “%1”", card.vm) : i18nc("handed over, nobody uses it yet", "Ready for a virtual machine");
        case "guest":
            if (card.vm) {
                return i18nc("where a graphics card is; %1 is a virtual machine", "With “%1”", card.vm);
            }
            return card.owner ? i18nc("%1 is a program, such as qemu-system-x86 (pid 4242)", "With a virtual machine: %1", card.owner) : i18nc("where a graphics card is", "With a virtual machine");
        case "reclaiming":
            return i18nc("a graphics card is moving", "Coming back…");
        case "foreign":
            // After a handoff its own driver is no sign that everything is in order.
            return card.driver ? i18nc("state of a graphics card", "Moved by somebody else") : i18nc("state of a graphics card", "Without its driver");
        case "stuck":
            return i18nc("state of a graphics card", "Stuck");
        default:
            return card.state;
        }
    }

    function driver(name: string, asleep: bool): string {
        if (!name) {
            return i18nc("no driver", "none");
        }
        return asleep ? i18nc("%1 is a driver, such as nvidia; its card sleeps to save energy", "%1, asleep", name) : name;
    }

    function verdict(kind: string): string {
        switch (kind) {
        case "safe":
            return i18nc("a graphics card after its use in a virtual machine", "Comes back safely");
        case "unknown":
            return i18nc("a graphics card after its use in a virtual machine", "Nobody knows yet whether it comes back");
        case "caution":
            return i18nc("a graphics card after its use in a virtual machine", "Comes back, with care");
        case "needs vendor-reset":
            return i18nc("vendor-reset is a kernel module", "Comes back with vendor-reset only");
        case "once per boot":
            return i18nc("a graphics card after its use in a virtual machine", "Comes back once per boot");
        case "broken":
            return i18nc("a graphics card after its use in a virtual machine", "Does not come back before a reboot");
        default:
            return kind;
        }
    }

    function duration(seconds: double): string {
        if (seconds < 0) {
            return i18n("It was never done on this computer, so how long it takes is not known.");
        }
        const whole = Math.max(1, Math.round(seconds));
        return whole < 90 ? i18np("Takes about a second on this computer.", "Takes about %1 seconds on this computer.", whole)
                          : i18np("Takes about a minute on this computer.", "Takes about %1 minutes on this computer.", Math.round(whole / 60));
    }

    function doing(step: string): string {
        switch (step) {
        case "inhibit-sleep":
            return i18n("Keeping the computer awake");
        case "load-vfio":
            return i18n("Loading vfio-pci");
        case "stop-display":
            return i18n("Ending the desktop");
        case "stop-gpu-services":
            return i18n("Stopping services of the graphics card");
        case "settle-holders":
            return i18n("Waiting until nobody uses the graphics card");
        case "claim-functions":
            return i18n("Reserving the graphics card");
        case "unbind-consoles":
            return i18n("Detaching text consoles");
        case "unbind-framebuffers":
            return i18n("Detaching the firmware’s framebuffer");
        case "unload-driver":
            return i18n("Unloading the driver");
        case "resize-bars":
            return i18n("Resizing the memory windows");
        case "bind-vfio":
            return i18n("Giving the graphics card to vfio-pci");
        case "confine-host":
            return i18n("Confining this computer to its processors");
        case "quiet-host":
            return i18n("Pausing what may wait");
        case "free-memory":
            return i18n("Freeing memory");
        case "back-guest-memory":
            return i18n("Preparing huge pages");
        case "release-functions":
            return i18n("Giving the graphics card to its driver");
        default:
            return step;
        }
    }

    function undoing(step: string): string {
        switch (step) {
        case "inhibit-sleep":
            return i18n("Letting the computer sleep again");
        case "load-vfio":
            return i18n("Unloading vfio-pci");
        case "stop-display":
            return i18n("Starting the desktop");
        case "stop-gpu-services":
            return i18n("Starting services of the graphics card");
        case "settle-holders":
            return i18n("Letting programs use the graphics card");
        case "claim-functions":
            return i18n("Giving up the reservation");
        case "unbind-consoles":
            return i18n("Attaching text consoles");
        case "unbind-framebuffers":
            return i18n("Attaching the firmware’s framebuffer");
        case "unload-driver":
            return i18n("Loading the driver");
        case "resize-bars":
            return i18n("Setting the memory windows back");
        case "bind-vfio":
            return i18n("Taking the graphics card from vfio-pci");
        case "confine-host":
            return i18n("Giving this computer all its processors");
        case "quiet-host":
            return i18n("Continuing what was paused");
        case "free-memory":
            return i18n("Nothing to do for memory");
        case "back-guest-memory":
            return i18n("Giving huge pages back");
        case "release-functions":
            return i18n("Taking the graphics card from its driver");
        default:
            return step;
        }
    }

    /** What happened when a move in this direction was asked for, begun or, as "cancel", to be stopped. */
    function problem(name: string, direction: string): string {
        switch (Bus.errorKind(name)) {
        case "AccessDenied":
        case "InteractiveAuthorizationRequired":
            return i18n("You are not allowed to");
        case "Cancelled":
            return i18n("Cancelled");
        case "RolledBack":
            return i18n("It failed, and everything is as it was");
        case "Stuck":
            return i18n("The graphics card is stuck");
        case "TimedOut":
            return i18n("It took too long");
        case "InUse":
            return i18n("Somebody uses the graphics card");
        case "Inhibited":
            return i18n("A program holds the graphics card");
        case "Busy":
            return i18n("The graphics card is already moving");
        case "NotIsolated":
        case "Unsupported":
            return i18n("This computer cannot do it");
        case "NeedsConsent":
            return i18n("It needs your consent");
        case "WrongState":
        case "NotFound":
            return direction === "cancel" ? i18n("It can no longer be cancelled") : i18n("The graphics card is not where it was");
        default:
            return Bus.isAbsent(name) ? i18n("gpuhandoff could not be started") : i18n("It did not work");
        }
    }

    /** What to do, where the daemon's own sentence does not end with it. */
    function advice(name: string): string {
        switch (Bus.errorKind(name)) {
        case "AccessDenied":
        case "InteractiveAuthorizationRequired":
            return i18n("Try again with an administrator’s password, or ask an administrator.");
        case "Cancelled":
            return i18n("You can hand it over again whenever you like.");
        case "RolledBack":
        case "TimedOut":
            return i18n("Try again; “gpuhandoff doctor” in a terminal shows what stands in the way.");
        case "NotIsolated":
        case "Unsupported":
            return i18n("“gpuhandoff doctor” in a terminal says what to change.");
        default:
            return Bus.isAbsent(name) ? i18n("“systemctl status gpuhandoffd” in a terminal says why.") : "";
        }
    }
}
