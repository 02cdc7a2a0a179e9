"""A test host that falls silent is interrupted from outside: that reaches its processors, and changes nothing."""

from __future__ import annotations

from tests.vm.bench_host import BenchHost, difference

INTERRUPTS = "awk '/i8042/ { for (i = 2; i <= 3; i++) n += $i } END { print n }' /proc/interrupts"


def test_a_host_is_roused(dual: BenchHost) -> None:
    before, counted = dual.snapshot(), int(dual.run(INTERRUPTS).output)
    dual.machine.rouse()
    dual.wait_for(f"test $({INTERRUPTS}) -gt {counted}")
    assert difference(before, dual.snapshot()) == []
