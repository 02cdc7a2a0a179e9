pragma ComponentBehavior: Bound

import QtQuick
import QtQuick.Controls as QQC2
import QtQuick.Layouts
import org.kde.kirigami as Kirigami
import org.kde.plasma.components as PlasmaComponents
import org.kde.plasma.extras as PlasmaExtras

// Every card, or why none can be shown.
PlasmaExtras.Representation {
    id: view

    required property Manager manager

    Layout.minimumWidth: Kirigami.Units.gridUnit * 18
    Layout.minimumHeight: Kirigami.Units.gridUnit * 12
    Layout.preferredWidth: Kirigami.Units.gridUnit * 24
    Layout.preferredHeight: Kirigami.Units.gridUnit * 24
    collapseMarginsHint: true

    Words {
        id: words
    }

    // What is no part of the content item is put into it, and would go with it.
    contentItem: Item {
        PlasmaComponents.ScrollView {
            id: scroll

            anchors.fill: parent
            visible: view.manager.present && view.manager.cards.length > 0
            contentWidth: availableWidth
            QQC2.ScrollBar.horizontal.policy: QQC2.ScrollBar.AlwaysOff

            ColumnLayout {
                width: scroll.availableWidth
                spacing: 0

                Repeater {
                    model: view.manager.cards

                    ColumnLayout {
                        id: place

                        required property Card modelData
                        required property int index

                        Layout.fillWidth: true
                        Layout.margins: Kirigami.Units.largeSpacing
                        visible: modelData.known
                        spacing: Kirigami.Units.largeSpacing

                        Kirigami.Separator {
                            Layout.fillWidth: true
                            visible: place.index > 0
                        }
                        CardView {
                            Layout.fillWidth: true
                            card: place.modelData
                        }
                    }
                }
            }
        }

        PlasmaExtras.PlaceholderMessage {
            anchors.centerIn: parent
            width: parent.width - Kirigami.Units.gridUnit * 4
            visible: !view.manager.present
            iconName: "network-disconnect"
            text: view.manager.failure ? words.problem(view.manager.failure.name, "") : i18n("gpuhandoff is not running")
            explanation: view.manager.failure ? [view.manager.failure.message, words.advice(view.manager.failure.name)].join("\n")
                                              : i18n("It is the service that lends graphics cards to virtual machines. When it runs, the cards of this computer are shown here.")
            helpfulAction: QQC2.Action {
                enabled: !view.manager.starting
                icon.name: "media-playback-start"
                text: i18nc("start the service", "Start")
                onTriggered: view.manager.start()
            }
        }

        PlasmaExtras.PlaceholderMessage {
            anchors.centerIn: parent
            width: parent.width - Kirigami.Units.gridUnit * 4
            visible: view.manager.present && view.manager.cards.length === 0
            iconName: "video-display"
            text: i18n("This computer has no graphics card that could be lent")
        }
    }
}
