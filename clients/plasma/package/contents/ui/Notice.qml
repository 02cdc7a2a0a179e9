import QtQuick
import QtQuick.Layouts
import org.kde.kirigami as Kirigami
import org.kde.plasma.components as PlasmaComponents

// Something that a person should read. Its text is plain: parts of it are names that programs gave themselves.
Rectangle {
    id: notice

    required property string title
    property string message: ""
    property string advice: ""
    property bool grave: false
    default property alias actions: buttons.data

    readonly property color tone: grave ? Kirigami.Theme.negativeTextColor : Kirigami.Theme.neutralTextColor

    implicitHeight: content.implicitHeight + 2 * Kirigami.Units.smallSpacing
    radius: Kirigami.Units.cornerRadius
    color: Qt.alpha(tone, 0.12)
    border { width: 1; color: Qt.alpha(tone, 0.5) }

    Accessible.role: Accessible.AlertMessage
    Accessible.name: title
    Accessible.description: [message, advice].filter(one => one).join(" ")

    ColumnLayout {
        id: content

        anchors { fill: parent; margins: Kirigami.Units.smallSpacing; leftMargin: Kirigami.Units.largeSpacing }
        spacing: Kirigami.Units.smallSpacing

        PlasmaComponents.Label {
            Layout.fillWidth: true
            text: notice.title
            textFormat: Text.PlainText
            font.weight: Font.Bold
            wrapMode: Text.Wrap
        }
        PlasmaComponents.Label {
            Layout.fillWidth: true
            visible: text !== ""
            text: notice.message
            textFormat: Text.PlainText
            wrapMode: Text.Wrap
        }
        PlasmaComponents.Label {
            Layout.fillWidth: true
            visible: text !== ""
            text: notice.advice
            textFormat: Text.PlainText
            font.italic: true
            wrapMode: Text.Wrap
        }
        RowLayout {
            id: buttons

            Layout.alignment: Qt.AlignRight
            visible: children.length > 0
        }
    }
}
