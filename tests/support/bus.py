"""A private system bus: a real dbus-daemon with the system bus's rules, and the policy file that we ship."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "dbus" / "org.gpuhandoff.Manager.conf"
POLKIT_POLICY = Path("/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf")
TEST_NAME = "org.example.Service"
"""A name that tests may own and everybody may call."""
NOBODY = 65534
PATIENCE = 60.0

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <allow send_destination="{test_name}"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <include>{policy}</include>
  <include ignore_missing="yes">{polkit_policy}</include>
  <policy user="{user}">
    <allow own_prefix="org.example"/>
    <allow own_prefix="org.gpuhandoff"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow own="org.freedesktop.login1"/>
    <allow own="org.freedesktop.systemd1"/>
    <allow send_destination="*"/>
  </policy>
</busconfig>
"""


_SESSION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow eavesdrop="false"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """One dbus-daemon, in a directory that every user can enter; a user's own bus where it is said so."""

    def __init__(self, *, session: bool = False) -> None:
        self._template = _SESSION if session else _CONFIGURATION
        self._directory = Path(tempfile.mkdtemp(prefix="gpuhandoff-bus-"))
        self._directory.chmod(0o755)
        self.address = f"unix:path={self._directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        configuration = self._directory / "bus.conf"
        configuration.write_text(
            self._template.format(
                socket=self._directory / "socket",
                test_name=TEST_NAME,
                policy=POLICY,
                polkit_policy=POLKIT_POLICY,
                user=pwd.getpwuid(os.geteuid()).pw_name,
            )
        )
        ready, told = os.pipe()
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", f"--print-address={told}"],
            pass_fds=[told],
        )
        os.close(told)
        readable, _, _ = select.select([ready], [], [], PATIENCE)
        answered = bool(readable) and bool(os.read(ready, 1))
        os.close(ready)
        if not answered:
            self.stop()
            raise RuntimeError("dbus-daemon does not start")

    def kill(self) -> None:
        """Let the bus go away as in a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def stop(self) -> None:
        """End the daemon and leave nothing behind."""
        stop(self._process)
        shutil.rmtree(self._directory, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return an environment in which programs take this for the system bus."""
        return {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address}


@contextmanager
def private_bus(*, session: bool = False) -> Iterator[PrivateBus]:
    """Have a private system bus, or a user's own."""
    bus = PrivateBus(session=session)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


def stop(process: subprocess.Popen[bytes] | None) -> None:
    """End a process that we started."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
