"""The libvirt hook as libvirt runs it, under the shells that /bin/sh may be, with a busctl that notes what it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.domains import domain_xml
from tests.support.hook import ABSENT, CALLS, HOOK, OPERATIONS, SHELLS, SIZES, VETOES, WITHOUT_GPU, Ended, Hook, known

LATE = "Failed to activate service 'org.gpuhandoff.Manager': timed out (service_start_timeout=25000ms)"
"""What the bus says, much later, of a daemon whose start failed at once."""
NOT_STARTED = "gpuhandoffd, which has to make the GPU ready for win11, is not running and cannot be started"


@pytest.fixture(params=SHELLS)
def hook(request: pytest.FixtureRequest, tmp_path: Path) -> Hook:
    one = Hook(request.param, tmp_path)
    one.patterns.write_text(known())
    one.fake(tmp_path)
    return one


@pytest.mark.parametrize("operation", CALLS)
def test_what_libvirt_tells_is_passed_on(hook: Hook, operation: str) -> None:
    xml = domain_xml(name="Jürgens VM").rstrip("\n")
    assert hook(operation, xml, guest="Jürgens VM", extra="shutdown") == Ended(0, "", "")
    end = "end" if operation == "release" else "begin"
    assert hook.calls() == [["Event", "sssss", "Jürgens VM", operation, end, "shutdown", xml]]


@pytest.mark.parametrize("operation", sorted({*OPERATIONS, "", "something-new"} - {*CALLS}))
def test_other_operations_need_nothing(hook: Hook, operation: str) -> None:
    assert hook(operation, domain_xml()) == Ended(0, "", "")  # printing nothing leaves a migrated guest's XML alone
    assert hook.calls() == []


@pytest.mark.parametrize("size", SIZES)
def test_xml_of_any_size_arrives_to_the_letter(hook: Hook, size: int) -> None:
    xml = domain_xml(padding=size).rstrip("\n")
    assert hook("prepare", xml) == Ended(0, "", "")
    (call,) = hook.calls()
    if call[0] == "Event":
        assert call[1:] == ["sssss", "win11", "prepare", "begin", "-", xml]
    else:
        assert call[:6] == ["EventInParts", "ssssas", "win11", "prepare", "begin", "-"]
        assert int(call[6]) == len(call[7:])
        assert "".join(call[7:]).rstrip("\n") == xml
        assert max(len(part.encode()) for part in call[7:]) < 131072
    assert (call[0] == "Event") == (size == SIZES[0])


@pytest.mark.parametrize("xml", [WITHOUT_GPU, domain_xml(()), "", "nonsense", domain_xml((), padding=500_000)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_guests_without_our_gpu_make_no_call(hook: Hook, operation: str, xml: str) -> None:
    hook.fake(hook.notes.parent, status=1, says="must not be called")
    assert hook(operation, xml) == Ended(0, "", "")
    assert hook.calls() == []


def test_for_a_guest_without_hostdevs_the_patterns_are_not_even_read(hook: Hook) -> None:
    """The shell reads them byte by byte: on a slow machine the dearest thing that the hook does."""
    hook.patterns.write_text("<name>win11</name>\n")
    assert hook("prepare", domain_xml(())) == Ended(0, "", "")
    assert hook.calls() == []
    assert hook("prepare", WITHOUT_GPU) == Ended(0, "", "")
    assert len(hook.calls()) == 1


@pytest.mark.parametrize("text", [None, "", "\n\n"])
def test_without_gpus_there_is_nothing_to_do(hook: Hook, text: str | None) -> None:
    """The daemon was never started, or knows no GPU."""
    hook.patterns.unlink()
    if text is not None:
        hook.patterns.write_text(text)
    assert hook("prepare", domain_xml()) == Ended(0, "", "")
    assert hook.calls() == []


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Call failed: 0000:01:00.0 is lent to win10.", "0000:01:00.0 is lent to win10."),
        (
            f"Call failed: {ABSENT}",
            f"{NOT_STARTED}: {ABSENT}. See systemctl status gpuhandoffd.",
        ),
        (
            f"Call failed: {LATE}",
            f"{NOT_STARTED}: {LATE}. See systemctl status gpuhandoffd.",
        ),
        (
            "Call failed: Connection timed out",
            "gpuhandoffd has not answered; what it did for win11 is being undone. See gpuhandoff status.",
        ),
        (
            "Call failed: Message recipient disconnected from message bus without replying",
            "gpuhandoffd went away before the GPU was ready for win11. Try again.",
        ),
        (
            "Failed to connect to bus: No such file or directory",
            "the system bus cannot be reached for win11: Failed to connect to bus: No such file or directory",
        ),
    ],
)
@pytest.mark.parametrize("size", [0, 200_000])
def test_a_refusal_is_one_clear_sentence_and_vetoes_only_what_has_not_begun(
    hook: Hook, says: str, told: str, size: int
) -> None:
    hook.fake(hook.notes.parent, status=1, says=says)
    for operation in OPERATIONS:
        ended = hook(operation, domain_xml(padding=size))
        assert ended.status == (operation in VETOES)
        assert ended.out == ""
        assert ended.err == (f"gpuhandoff: {told}\n" if operation in CALLS else "")


def test_a_line_that_no_argument_holds_is_refused_in_words(hook: Hook) -> None:
    xml = domain_xml().replace("<devices>", f"<devices><!-- {'x' * 140_000} -->")
    assert hook("prepare", xml) == Ended(
        1, "", "gpuhandoff: a line of the XML of win11 is too long to be passed on: 128 KiB are the most.\n"
    )
    assert hook("reconnect", xml).status == 0


def test_it_gives_up_waiting_one_day(hook: Hook) -> None:
    hook.environment["GPUHANDOFF_HOOK_TIMEOUT"] = "7"
    hook("prepare", domain_xml())
    assert "--timeout=7" in hook.notes.read_text().split("\0")


def test_the_hook_can_be_run() -> None:
    assert os.access(HOOK, os.X_OK)
