"""Whether a handoff ends somebody's desktop, and whose."""

from __future__ import annotations

from gpuhandoff.model.roles import shows_picture
from gpuhandoff.model.world import Gpu, Holder, Session, World


def sessions_shown(world: World, gpu: Gpu) -> tuple[Session, ...]:
    """Return the graphical sessions, greeters included, that end when this GPU goes.

    A session counts when its compositor or X server has the GPU open to show a picture: logind (or PID 1, which keeps
    logind's descriptors over a restart) holds the node on a compositor's behalf without saying whose, so then every
    graphical session on a seat counts.
    """
    showing = [holder for holder in gpu.holders if _shows(holder)]
    by_logind = any(holder.seat_service for holder in showing)
    return tuple(
        session
        for session in world.sessions
        if session.seat and ((session.is_graphical and by_logind) or any(belongs_to(holder, session) for holder in showing))
    )


def people_shown(world: World, gpu: Gpu) -> dict[int, str]:
    """Return the users whose desktops end when this GPU goes, by user id; a greeter is nobody."""
    return {session.uid: session.user for session in sessions_shown(world, gpu) if session.kind == "user"}


def others_shown(world: World, gpu: Gpu, uid: int) -> bool:
    """Tell whether anybody's desktop but this user's ends when this GPU goes."""
    return any(one != uid for one in people_shown(world, gpu))


def drives_display(world: World, gpu: Gpu) -> bool:
    """Tell whether the display manager has to stop before this GPU can go."""
    if sessions_shown(world, gpu):
        return True
    manager = world.display_manager
    if manager is None:
        return False
    if any(_shows(holder) and (holder.seat_service or holder.unit == manager.name) for holder in gpu.holders):
        return True
    # A display manager that has just been started has not opened its GPU yet: it will open the one with the console.
    nobody = not any(_shows(holder) for one in world.gpus for holder in one.holders)
    return manager.is_active and nobody and (bool(gpu.consoles) or len(world.gpus) == 1) and not gpu.on_vfio


def is_needed(world: World, gpu: Gpu) -> bool:
    """Tell whether the host has to get this GPU back: it is the only one, or shows the desktop.

    Any other may stay with its guests until the next reboot, and nobody misses it.
    """
    return len(world.gpus) == 1 or drives_display(world, gpu)


def ends_with_display(world: World, gpu: Gpu, holder: Holder) -> bool:
    """Tell whether a holder goes when the sessions that this GPU shows are ended."""
    if holder.seat_service:
        return True
    manager = world.display_manager
    if manager is not None and holder.unit == manager.name:
        return True
    return any(belongs_to(holder, session) for session in sessions_shown(world, gpu))


def _shows(holder: Holder) -> bool:
    return shows_picture(holder.process.name, holder.nodes)


def belongs_to(holder: Holder, session: Session) -> bool:
    """Tell whether a program ends with a session.

    Compositors of Plasma and GNOME run in user@UID.service, outside the session's scope (kernel.md fact 12).
    """
    return holder.session == session.id or (
        not holder.session
        and session.is_graphical
        and f"/user-{session.uid}.slice/user@{session.uid}.service/" in holder.process.cgroup + "/"
    )
