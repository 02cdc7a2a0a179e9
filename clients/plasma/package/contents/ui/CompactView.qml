import QtQuick

// The tray's icon: where the card is that matters most.
MouseArea {
    id: view

    required property string state_
    signal triggered

    onClicked: triggered()

    CardIcon {
        anchors.fill: parent
        state: view.state_
    }
}
