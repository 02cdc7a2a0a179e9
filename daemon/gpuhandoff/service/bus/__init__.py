"""The system bus, by dbus-next at message level; nothing else in the daemon imports it.

dbus-next 0.2.3 has no release since 2021 and defects that an unprivileged caller could use. Each work-around has a test in
tests/bus that fails without it:

- A full socket buffer ends the connection (its issue 153): `service.socket`.
- Stray descriptors leak (162): the serving connection negotiates none, and those that come are closed (`attachments`).
- Exceptions reach callers as tracebacks: calls never get to its own dispatch (`answers`).
- Calls never return after a disconnect, nor time out: replies never get to it either (`connection`).
- It reads as long as there is something to read, and starves the loop: BATCH calls at a time, of all callers in turn
  (`library`).
- It takes 0.3 ms for a message; the bus queues a million of those that need no reply: most are dropped by their header
  (`library`).
- A message that it cannot read ends the connection, and one of many values takes it seconds: VALUES, and skipped (`reader`).
- It holds a message of 32 MB twice, and the memory stays: what is larger than LARGEST is not kept while it comes (`reader`).
- It remembers every type that a caller has ever made up: SIGNATURES (`reader`).
- A bus that hangs up during authentication is asked again for ever (`library`).
"""

from gpuhandoff.service.bus.connection import DBus, connect

__all__ = ["DBus", "connect"]
