import QtQuick

// In the tray or in a panel: where the card is that matters most.
MouseArea {
    id: view

    required property string where
    required property string title
    property string explanation: ""

    signal triggered

    activeFocusOnTab: true
    onClicked: triggered()
    Keys.onReturnPressed: triggered()
    Keys.onEnterPressed: triggered()
    Keys.onSpacePressed: triggered()

    Accessible.role: Accessible.Button
    Accessible.name: title
    Accessible.description: explanation
    Accessible.onPressAction: triggered()

    CardIcon {
        anchors.fill: parent
        where: view.where
    }
}
