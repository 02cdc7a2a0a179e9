import QtQuick
import QtTest
import "file:/widget/contents/ui" as Widget

// The widget's parts against the real daemon over a simulated machine (igpu-dgpu), without a shell around them.
Item {
    id: root

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
        watched: true
    }

    Widget.FullView {
        id: view
        anchors.fill: parent
        manager: daemon
    }

    SignalSpy {
        id: planned
        signalName: "plannedChanged"
    }

    TestCase {
        name: "manager"
        when: windowShown

        function card() {
            tryVerify(() => daemon.cards.length === 2 && daemon.cards.every(card => card.known), 10000);
            return daemon.cards[0];
        }

        function test_1_cards_are_known() {
            verify(daemon.present);
            compare(card().address, "0000:01:00.0");
            compare([card().state, card().driver, card().drivesDisplay], ["host", "nvidia", false]);
            compare(daemon.cards[1].drivesDisplay, true);
            verify(card().name.includes("RTX 4070"));
            compare(daemon.foremost, "host");
        }

        function test_2_a_plan_and_second_thoughts() {
            card().plan("handoff", false);
            verify(card().asking);
            tryVerify(() => card().planned !== null, 10000);
            verify(!card().asking);
            verify(card().planned.steps.length > 3);
            compare(card().planned.steps[0].step, "inhibit-sleep");
            card().planned = null;
            compare(card().state, "host");
        }

        function test_3_there_and_back() {
            card().plan("handoff", false);
            tryVerify(() => card().planned !== null, 10000);
            card().begin();
            tryCompare(card(), "state", "detached", 20000);
            compare([card().index, card().planned, card().failure], [0, null, null]);
            tryCompare(card(), "driver", "vfio-pci", 10000);
            compare(daemon.foremost, "detached");
            card().plan("reclaim", false);
            tryVerify(() => card().planned !== null, 10000);
            compare(card().planned.direction, "reclaim");
            card().begin();
            tryCompare(card(), "state", "host", 20000);
            tryCompare(card(), "driver", "nvidia", 10000);
        }

        function test_4_a_refusal_is_a_failure_with_its_name() {
            card().plan("reclaim", false);
            tryVerify(() => card().failure !== null, 10000);
            compare(card().failure.name, "org.gpuhandoff.Error.WrongState");
            verify(card().failure.message.length > 10);
            compare(card().planned, null);
            card().plan("handoff", false);
            compare(card().failure, null);
            tryVerify(() => card().planned !== null, 10000);
            card().planned = null;
        }

        function test_5_who_uses_the_desktops_card() {
            tryVerify(() => daemon.cards[1].holders.length > 0, 10000);
            verify(daemon.cards[1].holders.every(one => one.who !== ""));
        }
    }
}
