import QtQuick
import org.kde.kirigami as Kirigami

// A graphics card, and in its corner where it is. Drawn, since the icon themes have no such card that follows their colours.
Item {
    id: icon

    /** A card's state, or "absent". */
    required property string where

    readonly property color tone: Kirigami.Theme.textColor
    readonly property string emblem: ({
        "handing-off": "go-next",
        "detached": "emblem-checked",
        "guest": "computer",
        "reclaiming": "go-previous",
        "foreign": "emblem-question",
        "stuck": "emblem-error",
        "absent": "emblem-unavailable"
    })[where] ?? ""

    implicitWidth: Kirigami.Units.iconSizes.medium
    implicitHeight: Kirigami.Units.iconSizes.medium

    Item {
        anchors.centerIn: parent
        width: 22
        height: 22
        scale: Math.min(icon.width, icon.height) / 22
        opacity: icon.where === "absent" ? 0.5 : 1

        Rectangle { x: 1; y: 3; width: 1; height: 16; color: icon.tone } // the bracket
        Rectangle { x: 1; y: 5; width: 20; height: 11; color: "transparent"; border { width: 1; color: icon.tone } }
        Rectangle { x: 12; y: 7; width: 7; height: 7; radius: 3.5; color: "transparent"; border { width: 1; color: icon.tone } } // the fan
        Rectangle { x: 5; y: 8; width: 4; height: 1; color: icon.tone }
        Rectangle { x: 5; y: 10; width: 4; height: 1; color: icon.tone }
        Rectangle { x: 5; y: 12; width: 4; height: 1; color: icon.tone }
        Rectangle { x: 5; y: 16; width: 3; height: 2; color: icon.tone } // the contacts
        Rectangle { x: 9; y: 16; width: 8; height: 2; color: icon.tone }
    }

    Rectangle {
        visible: icon.emblem !== ""
        anchors { right: parent.right; bottom: parent.bottom }
        width: Math.round(Math.max(Kirigami.Units.iconSizes.small / 2, parent.height * 0.6))
        height: width
        radius: width / 2
        color: Kirigami.Theme.backgroundColor

        Kirigami.Icon {
            anchors.fill: parent
            source: icon.emblem
        }
    }
}
