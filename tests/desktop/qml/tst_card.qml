import QtQuick
import QtTest
import org.kde.plasma.workspace.dbus as DBus
import "file:/widget/contents/ui" as Widget

// The widget's parts with a test in the daemon's place: what comes at the wrong time, and what real daemons say seldom.
Item {
    id: root

    readonly property string address: "0000:01:00.0"
    readonly property string errors: "org.gpuhandoff.Error."

    width: 500
    height: 700

    // What Plasma gives every widget.
    function i18n(text, ...values) {
        return values.reduce((sofar, value, index) => sofar.replace("%" + (index + 1), value), text);
    }
    function i18nc(context, text, ...values) {
        return i18n(text, ...values);
    }
    function i18np(one, many, count, ...values) {
        return i18n(count === 1 ? one : many, count, ...values);
    }

    Widget.Manager {
        id: daemon
    }

    Widget.FullView {
        id: view
        anchors.fill: parent
        manager: daemon
    }

    TestCase {
        name: "card"
        when: windowShown

        function init() {
            DBus.SystemBus.calls = [];
            daemon.watched = true;
            be({});
            DBus.SystemBus.running = true;
            tryVerify(() => daemon.cards.length === 1 && daemon.cards[0].state === "host");
        }

        function cleanup() {
            DBus.SystemBus.running = false;
        }

        function card() {
            return daemon.cards[0];
        }

        /** Have the daemon show its card so. */
        function be(values) {
            const shown = { Name: "NVIDIA AD104 [GeForce RTX 4070]", State: "host", Driver: "nvidia", DrivesDisplay: false };
            DBus.SystemBus.objects = {
                "/org/gpuhandoff/Manager": { Gpus: [root.address] },
                "/org/gpuhandoff/gpus/pci_0000_01_00_0": Object.assign(shown, values),
            };
        }

        function preview(values) {
            return Object.assign({ direction: "handoff", steps: [{ step: "load-vfio", does: "load vfio-pci" }] }, values);
        }

        function found(item, text) {
            if (!item.visible) {
                return null;
            }
            const children = [...item.children, ...(item.contentItem ? [item.contentItem] : [])];
            return item.text === text ? item : children.reduce((sofar, child) => sofar ?? found(child, text), null);
        }

        function shows(text) {
            return found(view, text) !== null;
        }

        function test_a_plan_is_for_the_card_as_it_was_data() {
            return [
                { tag: "state", change: () => be({ State: "foreign" }) },
                { tag: "moving", change: () => be({ State: "handing-off" }) },
                { tag: "driver", change: () => be({ Driver: "nouveau" }) },
                { tag: "display", change: () => be({ DrivesDisplay: true }) },
                { tag: "popup", change: () => { daemon.watched = false; } },
            ];
        }

        function test_a_plan_is_for_the_card_as_it_was(data) {
            card().plan("handoff", false);
            DBus.SystemBus.answer("Preview", preview({}));
            verify(shows("Before you hand it over"));
            data.change();
            tryCompare(card(), "planned", null);
            tryVerify(() => !shows("Before you hand it over"));
        }

        function test_an_answer_that_comes_too_late_is_no_plan_data() {
            return test_a_plan_is_for_the_card_as_it_was_data();
        }

        function test_an_answer_that_comes_too_late_is_no_plan(data) {
            card().plan("handoff", false);
            data.change();
            DBus.SystemBus.answer("Preview", preview({}));
            compare([card().planned, card().asking], [null, false]);
        }

        function test_a_button_says_what_it_ends_data() {
            return [
                { tag: "nothing", values: {}, button: "Hand over" },
                { tag: "programs", values: { ended: ["Blender, in your session"] }, button: "End programs and hand over" },
                { tag: "desktop", values: { sessions: ["alice on seat0"], ended: ["Blender"] }, button: "End the desktop and hand over" },
            ];
        }

        function test_a_button_says_what_it_ends(data) {
            card().plan("handoff", false);
            DBus.SystemBus.answer("Preview", preview(data.values));
            tryVerify(() => shows(data.button));
        }

        function test_of_a_card_that_is_stuck_every_attempt_is_told() {
            be({ State: "stuck", Reason: "It hangs." });
            tryVerify(() => shows("It hangs."));
            card().plan("reclaim", false);
            DBus.SystemBus.refuse("Preview", root.errors + "InUse", "It is in use. Allow it to be ended with the option holders=terminate.");
            tryVerify(() => shows("It is in use. Allow it to be ended."));
            verify(shows("End the virtual machine…"));
            card().plan("reclaim", false);
            DBus.SystemBus.refuse("Preview", root.errors + "Busy", "gpuhandoffd is being stopped.");
            tryVerify(() => shows("gpuhandoffd is being stopped."));
            card().plan("reclaim", false);
            DBus.SystemBus.refuse("Preview", root.errors + "Stuck", "It hangs still.");
            tryVerify(() => !shows("gpuhandoffd is being stopped."));
            verify(!shows("It hangs still."));
        }

        function test_only_what_may_be_ended_is_offered_to_be() {
            card().plan("handoff", false);
            DBus.SystemBus.refuse("Preview", root.errors + "InUse", "It is in use by systemd (pid 1), which is never ended.");
            tryVerify(() => shows("Somebody uses the graphics card"));
            verify(!shows("End these programs…"));
            card().plan("handoff", false);
            DBus.SystemBus.refuse("Preview", root.errors + "InUse", "It is in use by blender (pid 7). Close that first, or allow it to be ended with the option holders=terminate.");
            tryVerify(() => shows("End these programs…"));
        }

        function test_a_cancel_that_comes_too_late_is_called_so() {
            card().cancel();
            DBus.SystemBus.refuse("Cancel", root.errors + "WrongState", "Job 1 has ended already: done.");
            tryVerify(() => shows("It can no longer be cancelled"));
            card().plan("handoff", false);
            DBus.SystemBus.refuse("Preview", root.errors + "WrongState", "It is not there.");
            tryVerify(() => shows("The graphics card is not where it was"));
        }

        function test_a_card_with_a_driver_is_not_without_one() {
            be({ State: "foreign" });
            tryVerify(() => shows("Moved by somebody else"));
            be({ State: "foreign", Driver: "" });
            tryVerify(() => shows("Without its driver"));
        }

        function test_a_daemon_that_has_no_card_any_more() {
            const none = "This computer has no graphics card that could be lent";
            verify(!shows(none));
            const before = card();
            DBus.SystemBus.running = false;
            DBus.SystemBus.objects = {};
            DBus.SystemBus.running = true;
            compare(card(), before); // nothing was told yet
            DBus.SystemBus.objects = { "/org/gpuhandoff/Manager": { Gpus: [] } };
            tryVerify(() => shows(none));
        }
    }
}
