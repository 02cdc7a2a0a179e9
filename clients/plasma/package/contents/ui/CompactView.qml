import QtQuick

// In the tray or in a panel: where the card is that matters most.
MouseArea {
    id: view

    required property string where
    required property string title
    required property bool open
    property string explanation: ""
    /** A press outside closes the popup before the click is complete: what was meant is the other of what was there then. */
    property bool wasOpen: false

    signal toggled(bool open)

    activeFocusOnTab: true
    onPressed: wasOpen = open
    onClicked: toggled(!wasOpen)
    Keys.onReturnPressed: toggled(!open)
    Keys.onEnterPressed: toggled(!open)
    Keys.onSpacePressed: toggled(!open)

    Accessible.role: Accessible.Button
    Accessible.name: title
    Accessible.description: explanation
    Accessible.onPressAction: toggled(!open)

    CardIcon {
        anchors.fill: parent
        where: view.where
    }
}
