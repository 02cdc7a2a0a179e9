"""What the moves of a card tell about its way back from guests."""

from __future__ import annotations

from dataclasses import replace

from gpuhandoff.history.experience import experience
from gpuhandoff.history.line import read, write
from gpuhandoff.history.move import Move
from gpuhandoff.history.past import tell
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.verdict import Experience

CARD = "10de:2786 1043:8800"
NOW, BEFORE = "this boot", "the boot before"
KERNEL = "6.12.107"


def move(began: int, operation: str, outcome: str = "done", *, boot: str = NOW, guests: int = 0, lost: bool = False) -> Move:
    """Return a move of the card."""
    one = Move(boot, 1, began, PciAddress(0, 1, 0, 0), "a card", operation, "asked", "", 1000, outcome)
    return replace(one, card=CARD, kernel=KERNEL, guests=guests, lost=lost, message="It is stuck at unload-driver: no.")


def learned(*moves: Move, card: str = CARD) -> Experience:
    """Return what is learned from moves of this boot and earlier ones."""
    return experience(reversed(tell(moves, NOW, ())), card, NOW)


def test_nothing_is_learned_from_a_card_that_no_guest_used() -> None:
    assert learned(move(1, "handoff"), move(2, "reclaim")) == Experience()


def test_guests_are_counted_by_boot() -> None:
    moves = (
        move(1, "handoff", boot=BEFORE, guests=5),
        move(2, "reclaim", boot=BEFORE),
        move(3, "handoff", guests=1),
        move(4, "reclaim"),
        move(5, "handoff", guests=2),
    )
    assert learned(*moves).runs == 3


def test_a_return_after_the_second_guest_of_one_boot_is_another_thing_than_the_first() -> None:
    first = (move(1, "handoff", guests=1), move(2, "reclaim"))
    assert (learned(*first).returns, learned(*first).repeats) == (1, 0)
    found = learned(*first, move(3, "handoff", guests=1), move(4, "reclaim"))
    assert (found.returns, found.repeats) == (2, 1)
    assert found.repeat_kernels == {KERNEL}
    earlier = (move(1, "handoff", guests=1, boot=BEFORE), move(2, "reclaim", boot=BEFORE))
    rebooted = learned(*earlier, move(3, "handoff", guests=1), move(4, "reclaim"))
    assert (rebooted.returns, rebooted.repeats) == (2, 0)


def test_a_card_that_did_not_come_back_before_the_reboot() -> None:
    found = learned(move(1, "handoff", boot=BEFORE, guests=1), move(2, "reclaim", "stuck", boot=BEFORE, lost=True))
    assert found.loss is not None
    assert (found.loss.run, found.loss.kernel, found.returns, found.runs) == (1, KERNEL, 0, 0)


def test_a_card_that_was_only_held_is_not_lost() -> None:
    moves = (move(1, "handoff", boot=BEFORE, guests=1), move(2, "reclaim", "stuck", boot=BEFORE))
    assert learned(*moves).loss is None


def test_a_card_that_came_back_in_the_end_was_not_lost() -> None:
    well = (move(1, "handoff", guests=1), move(2, "reclaim"))
    found = learned(*well, move(3, "handoff", guests=1), move(4, "reclaim", "stuck", lost=True), move(5, "reclaim"))
    assert (found.loss, found.returns, found.repeats) == (None, 2, 1)


def test_a_machine_that_went_down_while_the_card_was_taken_back() -> None:
    found = learned(move(1, "handoff", boot=BEFORE, guests=2), move(2, "reclaim", "", boot=BEFORE))
    assert found.loss is not None
    assert (found.loss.run, found.loss.message) == (2, "The machine went down while the card was taken back.")


def test_a_later_return_takes_a_loss_back_only_after_as_many_guests() -> None:
    lost = (move(1, "handoff", boot=BEFORE, guests=2), move(2, "reclaim", "stuck", boot=BEFORE, lost=True))
    once = (*lost, move(3, "handoff", guests=1), move(4, "reclaim"))
    assert learned(*once).loss is not None
    again = learned(*once, move(5, "handoff", guests=1), move(6, "reclaim"))
    assert (again.loss, again.returns, again.repeats) == (None, 2, 1)


def test_a_loss_outweighs_what_went_well_before() -> None:
    moves = (
        move(1, "handoff", guests=1),
        move(2, "reclaim"),
        move(3, "handoff", guests=1),
        move(4, "reclaim", "stuck", lost=True),
    )
    assert learned(*moves).returns == 0


def test_another_card_in_the_same_place_has_nothing_to_do_with_it() -> None:
    moves = (move(1, "handoff", guests=1), move(2, "reclaim", "stuck", lost=True))
    assert learned(*moves, card="10de:2786 1458:4116") == Experience()
    unnamed = tuple(replace(one, card="") for one in moves)
    assert learned(*unnamed, card="") == Experience()


def test_a_line_keeps_what_is_learned_from() -> None:
    one = move(1, "reclaim", "stuck", guests=3, lost=True)
    assert read(write(one)) == one
    old = write(one).replace(b'"card":"10de:2786 1043:8800","kernel":"6.12.107","guests":3,"lost":true,', b"")
    found = read(old)
    assert found is not None
    assert (found.card, found.kernel, found.guests, found.lost) == ("", "", 0, False)
