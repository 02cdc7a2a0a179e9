pragma ComponentBehavior: Bound

import QtQuick
import QtQuick.Layouts
import org.kde.kirigami as Kirigami
import org.kde.plasma.components as PlasmaComponents
import org.kde.plasma.extras as PlasmaExtras
import "bus.mjs" as Bus
import "plan.mjs" as Plan

// One graphics card: where it is, what it does there, and what can be done with it.
ColumnLayout {
    id: view

    required property Card card
    readonly property bool moving: Plan.isMoving(card.state)
    readonly property string stateText: words.state(card)
    readonly property string stepText: card.phase.startsWith("undo") ? words.undoing(card.step) : words.doing(card.step)

    spacing: Kirigami.Units.smallSpacing

    Accessible.role: Accessible.Grouping
    Accessible.name: i18nc("a graphics card and where it is", "%1: %2", card.name, stateText)

    Words {
        id: words
    }

    RowLayout {
        Layout.fillWidth: true
        spacing: Kirigami.Units.largeSpacing

        CardIcon {
            where: view.card.state
        }
        ColumnLayout {
            Layout.fillWidth: true
            spacing: 0

            PlasmaExtras.Heading {
                Layout.fillWidth: true
                level: 4
                text: view.card.name
                textFormat: Text.PlainText
                elide: Text.ElideRight
                maximumLineCount: 2
                wrapMode: Text.Wrap
            }
            PlasmaComponents.Label {
                Layout.fillWidth: true
                text: view.stateText
                textFormat: Text.PlainText
                color: view.card.state === "stuck" ? Kirigami.Theme.negativeTextColor : Kirigami.Theme.textColor
                wrapMode: Text.Wrap
            }
        }
        PlasmaComponents.Button {
            id: handOver

            visible: Plan.canHandOver(view.card.state) && view.card.planned === null
            enabled: !view.card.asking
            text: i18n("Hand over…")
            icon.name: "go-next"
            Accessible.description: i18n("Shows first what happens to %1 and what you lose", view.card.name)
            onClicked: view.card.plan("handoff", false)
        }
        PlasmaComponents.Button {
            id: takeBack

            visible: Plan.canTakeBack(view.card.state) && view.card.planned === null
            enabled: !view.card.asking
            text: i18n("Take back…")
            icon.name: "go-previous"
            Accessible.description: i18n("Shows first what happens to %1", view.card.name)
            onClicked: view.card.plan("reclaim", false)
        }
        PlasmaComponents.Button {
            visible: view.moving && view.card.cancelable
            text: i18nc("stop handing over, and undo it", "Cancel")
            icon.name: "dialog-cancel"
            Accessible.description: i18n("Stops, and undoes what was done")
            onClicked: view.card.cancel()
        }
    }

    ColumnLayout {
        Layout.fillWidth: true
        visible: view.moving
        spacing: 0

        PlasmaComponents.ProgressBar {
            Layout.fillWidth: true
            indeterminate: view.card.index === 0
            value: Plan.share(view.card.phase, view.card.index, view.card.count)
            Accessible.name: view.stateText
        }
        PlasmaComponents.Label {
            Layout.fillWidth: true
            visible: view.card.index > 0
            text: i18nc("%1 of %2 steps, and what the step does", "Step %1 of %2: %3", view.card.index, view.card.count, view.stepText)
            textFormat: Text.PlainText
            wrapMode: Text.Wrap
        }
    }

    Notice {
        Layout.fillWidth: true
        visible: view.card.reason !== "" && (view.card.state === "stuck" || view.card.state === "foreign")
        grave: view.card.state === "stuck"
        title: view.stateText
        message: Plan.sentence(view.card.reason)
    }

    Notice {
        id: problem

        readonly property string kind: Bus.errorKind(view.card.failure?.name ?? "")

        Layout.fillWidth: true
        // That it is stuck, and why, stands above.
        visible: view.card.failure !== null && kind !== "Stuck"
        grave: kind !== "Cancelled"
        title: words.problem(view.card.failure?.name ?? "", view.card.failure?.direction ?? "")
        message: Plan.sentence(view.card.failure?.message ?? "")
        // Whether somebody may cancel is no matter of passwords: the message says whose it is.
        advice: view.card.failure?.direction === "cancel" ? "" : words.advice(view.card.failure?.name ?? "")

        PlasmaComponents.Button {
            visible: Plan.offersEnd(view.card.failure?.message ?? "")
            text: view.card.failure?.direction === "reclaim" ? i18n("End the virtual machine…") : i18n("End these programs…")
            icon.name: "process-stop"
            Accessible.description: i18n("Shows first what would be ended")
            onClicked: view.card.plan(view.card.failure.direction, true)
        }
        PlasmaComponents.Button {
            text: i18nc("close a message", "Close")
            icon.name: "dialog-close"
            onClicked: view.card.failure = null
        }
    }

    Loader {
        id: planning

        Layout.fillWidth: true
        active: view.card.planned !== null
        visible: active
        sourceComponent: PlanView {
            card: view.card
            plan: view.card.planned
            onDismissed: {
                view.card.planned = null;
                (handOver.visible ? handOver : takeBack).forceActiveFocus(Qt.OtherFocusReason);
            }
            Component.onCompleted: focusFirst()
        }
    }

    ColumnLayout {
        id: facts

        Layout.fillWidth: true
        visible: view.card.planned === null && !view.moving
        spacing: 0

        Fact {
            text: i18n("Driver: %1", words.driver(view.card.driver, view.card.asleep))
        }
        Fact {
            visible: view.card.vm !== "" && view.card.owner !== ""
            text: i18nc("%1 is such as: qemu-system-x86 (pid 4242)", "Virtual machine: %1", view.card.owner)
        }
        Fact {
            visible: view.card.verdict !== ""
            text: view.card.verdictReason ? i18nc("a verdict on a graphics card and its reason", "%1. %2", words.verdict(view.card.verdict), view.card.verdictReason) : words.verdict(view.card.verdict)
        }
        Flow {
            Layout.fillWidth: true
            visible: view.card.holders.length > 0
            spacing: Kirigami.Units.largeSpacing

            Fact {
                text: i18nc("a list of programs follows", "Used by:")
            }
            Repeater {
                model: view.card.holders

                RowLayout {
                    id: user

                    required property var modelData

                    spacing: Kirigami.Units.smallSpacing

                    Kirigami.Icon {
                        implicitWidth: Kirigami.Units.iconSizes.small
                        implicitHeight: Kirigami.Units.iconSizes.small
                        source: user.modelData.icon
                        fallback: "system-run"
                    }
                    Fact {
                        Layout.maximumWidth: facts.width - Kirigami.Units.iconSizes.small - user.spacing
                        text: user.modelData.who
                    }
                }
            }
        }
    }
}
