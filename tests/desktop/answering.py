"""The half of the conversation inside: runs on the enclosed Debian's own Python, and imports nothing of ours."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer(verbs: Mapping[str, Callable[..., Any]]) -> None:
    """Answer what is asked on standard input until it is closed; each verb is a function of the arguments asked with."""
    for line in sys.stdin:
        asked = json.loads(line)
        verb = asked.pop("ask")
        try:
            reply = {"answer": verbs[verb](**asked)}
        except Exception:  # noqa: BLE001  (whatever it is, whoever asked shall see it)
            reply = {"error": traceback.format_exc()}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
