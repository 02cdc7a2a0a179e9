"""Each step made to fail once where the real kernel can be provoked: a clear error, and the host is what it was."""

from __future__ import annotations

from tests.vm.agent import Done
from tests.vm.bench_host import BenchHost, difference


def assert_refused(done: Done, *words: str) -> None:
    """The call failed with a sentence that says so."""
    assert done.status == 1
    for word in words:
        assert word in done.errors
    assert "Traceback" not in done.errors


def test_a_held_drm_node_is_refused_by_name(dual: BenchHost) -> None:
    dual.machine.agent.start("exec sleep 600 3</dev/dri/renderD128 >/dev/null 2>&1")
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "is in use by sleep (pid", "holders=terminate")
    assert difference(before, dual.snapshot()) == []


def test_a_held_drm_node_is_let_go_with_consent(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.machine.agent.start("exec sleep 600 3</dev/dri/renderD128 >/dev/null 2>&1")
    dual.handoff("holders", "s", "terminate")
    assert set(dual.drivers()) == {"vfio-pci"}
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_module_that_somebody_pins(dual: BenchHost) -> None:
    """A descriptor passed over a socket and held by nobody's table: found by no scan, seen in the reference count."""
    dual.run("python3 - <<'END'\n" + PIN + "\nEND")
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "virtio_gpu cannot be unloaded", "reference count", "put back as it was")
    assert difference(before, dual.snapshot()) == []


PIN = """
import os, socket, sys, time
first, second = socket.socketpair()
node = os.open("/dev/dri/renderD128", os.O_RDWR)
socket.send_fds(first, [b"x"], [node])
os.close(node)
if os.fork() == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    time.sleep(600)
"""


def test_no_vfio_module(dual: BenchHost) -> None:
    dual.run("echo 'install vfio-pci /bin/false' > /etc/modprobe.d/none.conf")
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "vfio_pci cannot be loaded", "put back as it was")
    assert difference(before, dual.snapshot()) == []


def test_modules_of_another_kernel(dual: BenchHost) -> None:
    dual.run("mv /lib/modules/$(uname -r) /lib/modules/gone")
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "has no vfio-pci module", "reboot")
    assert difference(before, dual.snapshot()) == []


def test_too_few_huge_pages(dual: BenchHost) -> None:
    before = dual.snapshot()
    memory = str(3300 << 20)
    done = dual.handoff("memory", "t", memory, "hugepages", "s", "static", check=False)
    assert_refused(done, "huge pages", "put back as it was")
    assert difference(before, dual.snapshot()) == []


def test_more_memory_than_the_machine_has(dual: BenchHost) -> None:
    before = dual.snapshot()
    done = dual.handoff("memory", "t", str(64 << 30), "hugepages", "s", "static", check=False)
    assert_refused(done, "this machine has")
    assert difference(before, dual.snapshot()) == []


def test_the_desktop_does_not_end_without_consent(single: BenchHost) -> None:
    before = single.snapshot()
    weston = single.process("weston")
    assert_refused(single.handoff("stop-display", "b", "false", check=False), "stop-display")
    assert difference(before, single.snapshot()) == []
    assert single.process("weston") == weston


def test_a_display_manager_that_refuses_to_stop(single: BenchHost) -> None:
    single.run("mkdir -p /run/systemd/system/greetd.service.d")
    single.run("printf '[Unit]\\nRefuseManualStop=yes\\n' > /run/systemd/system/greetd.service.d/refuse.conf")
    single.run("systemctl daemon-reload")
    before = single.snapshot()
    assert_refused(single.handoff(check=False), "greetd.service", "put back as it was")
    assert difference(before, single.snapshot()) == []


def test_a_stop_of_the_display_manager_that_still_waits_is_called_off(single: BenchHost) -> None:
    """Another unit is ordered after it and stops first, slowly: meanwhile systemd shows the display manager as active."""
    unit = "[Unit]\\nRequires=greetd.service\\nAfter=greetd.service\\n"
    service = "[Service]\\nExecStart=sleep infinity\\nExecStop=sleep 60\\n"
    single.run(
        f"printf '{unit}{service}' > /run/systemd/system/sharing.service; systemctl daemon-reload; systemctl start sharing"
    )
    weston = single.process("weston")
    single.handoff("wait", "b", "false")
    single.wait_for("systemctl list-jobs --no-legend | grep -q 'greetd.service *stop *waiting'")
    assert single.run("systemctl is-active greetd").output.strip() == "active"
    single.run("gpuhandoff cancel")
    single.run("systemctl stop sharing")
    assert single.run("systemctl is-active greetd").output.strip() == "active"
    assert single.process("weston") == weston
    assert single.state() == "host"


def test_a_device_of_the_group_that_stays_with_the_host(shared: BenchHost) -> None:
    gpu = shared.run("basename $(dirname $(grep -l 0x038000 /sys/bus/pci/devices/*/class))").output.strip()
    before = shared.snapshot()
    done = shared.handoff("stop-display", "b", "true", gpu=gpu, check=False)
    assert_refused(done, "shares its IOMMU group", "driver e1000")
    assert difference(before, shared.snapshot()) == []


def test_bad_input(dual: BenchHost) -> None:
    before = dual.snapshot()
    for arguments, words in (
        (("0000:09:00.0", "0"), ("There is no GPU at 0000:09:00.0",)),
        (("../../etc", "0"), ("is not a PCI address",)),
        (("02:00.0", "1", "speed", "s", "fast"), ("speed", "no such option")),
        (("02:00.0", "1", "cpus", "u", "1"), ("cpus", "string")),
        (("02:00.0", "1", "cpus", "s", "7-9"), ("CPU 7",)),
        (("02:00.0", "1", "hugepages", "s", "many"), ("hugepages", "transparent")),
    ):
        assert_refused(dual.call("Handoff", *arguments, signature="sa{sv}", check=False), *words)
    assert difference(before, dual.snapshot()) == []
