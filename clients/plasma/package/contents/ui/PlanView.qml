pragma ComponentBehavior: Bound

import QtQuick
import QtQuick.Layouts
import org.kde.kirigami as Kirigami
import org.kde.plasma.components as PlasmaComponents
import org.kde.plasma.extras as PlasmaExtras
import "plan.mjs" as Plan

// What a move would do, before it is done: what is lost first, then how long, then every step.
ColumnLayout {
    id: view

    required property Card card
    required property var plan
    readonly property bool away: plan.direction === "handoff"
    readonly property bool endsDesktop: away && plan.sessions.length > 0
    readonly property bool stepsShown: unfold.checked

    signal dismissed

    readonly property list<string> losses: {
        const found = [];
        if (plan.evicts) {
            found.push(i18n("The virtual machine that still runs on it is ended."));
        }
        if (away && plan.desktop) {
            found.push(i18nc("whether it ends, and why", "Desktop: %1", plan.desktop));
        }
        if (plan.programs.length > 0) {
            const names = plan.programs.join(i18nc("between names in a list", ", "));
            found.push(plan.more > 0 ? i18np("Ends: %2 and %1 more", "Ends: %2 and %1 more", plan.more, names) : i18n("Ends: %1", names));
        }
        found.push(...plan.ended.map(one => i18nc("a program that has the graphics card open", "Will be ended: %1", one)));
        found.push(...plan.lost.map(one => i18n("Lost: %1", one)));
        if (away) {
            found.push(...Plan.costs(plan).map(one => i18n("Meanwhile: %1", one)));
        }
        return found;
    }

    spacing: Kirigami.Units.smallSpacing

    function focusFirst(): void {
        dismiss.forceActiveFocus(Qt.TabFocusReason);
    }

    Accessible.role: Accessible.Grouping
    Accessible.name: heading.text
    Keys.onEscapePressed: dismissed()

    Words {
        id: words
    }

    PlasmaExtras.Heading {
        id: heading

        Layout.fillWidth: true
        level: 4
        wrapMode: Text.Wrap
        text: view.away ? i18n("Before you hand it over") : i18n("Before you take it back")
    }

    Repeater {
        model: view.losses

        RowLayout {
            id: loss

            required property string modelData

            Layout.fillWidth: true

            PlasmaComponents.Label {
                Layout.alignment: Qt.AlignTop
                text: "•"
                Accessible.ignored: true
            }
            PlasmaComponents.Label {
                Layout.fillWidth: true
                text: loss.modelData
                textFormat: Text.PlainText
                wrapMode: Text.Wrap
            }
        }
    }

    PlasmaComponents.Label {
        Layout.fillWidth: true
        visible: view.losses.length === 0
        text: view.away ? i18n("You lose nothing.") : view.plan.undoes ? i18n("Everything that the handover changed is undone.") : i18n("It goes back to its driver on this computer.")
        wrapMode: Text.Wrap
    }

    PlasmaComponents.Label {
        Layout.fillWidth: true
        text: words.duration(view.plan.seconds)
        wrapMode: Text.Wrap
    }

    Notice {
        Layout.fillWidth: true
        visible: view.away && view.plan.risk
        title: words.verdict(view.plan.verdict)
        message: view.plan.verdictReason
        advice: i18n("If you hand it over all the same, be ready to reboot.")
    }

    PlasmaComponents.ToolButton {
        id: unfold

        text: i18np("%1 step", "%1 steps", view.plan.steps.length)
        icon.name: view.stepsShown ? "arrow-down" : "arrow-right"
        checkable: true
        Accessible.description: i18n("Shows every step")
    }

    Repeater {
        model: view.stepsShown ? view.plan.steps : []

        PlasmaComponents.Label {
            required property var modelData
            required property int index

            Layout.fillWidth: true
            Layout.leftMargin: Kirigami.Units.largeSpacing
            text: i18nc("a step: its number, what it does", "%1. %2", index + 1, view.plan.undoes ? words.undoing(modelData.step) : view.away ? modelData.does : words.doing(modelData.step))
            textFormat: Text.PlainText
            wrapMode: Text.Wrap
            font: Kirigami.Theme.smallFont
        }
    }

    RowLayout {
        Layout.alignment: Qt.AlignRight

        PlasmaComponents.Button {
            id: dismiss

            text: i18nc("do not hand over", "Not now")
            icon.name: "dialog-cancel"
            onClicked: view.dismissed()
        }
        PlasmaComponents.Button {
            text: view.plan.evicts ? i18n("End the virtual machine and take back")
                : !view.away ? i18n("Take back")
                : view.endsDesktop ? i18n("End the desktop and hand over")
                : view.plan.ended.length > 0 ? i18n("End programs and hand over") : i18n("Hand over")
            icon.name: view.away ? "go-next" : "go-previous"
            onClicked: view.card.begin()
        }
    }
}
