import QtQuick
import org.kde.kirigami as Kirigami

// A graphics card, and in its corner where it is. Drawn, since the icon themes have no such card that follows their colours.
Item {
    id: icon

    /** A card's state, or "absent". */
    required property string where

    readonly property color tone: Kirigami.Theme.textColor
    readonly property int line: Math.max(1, Math.round(unit))
    readonly property real unit: Math.min(width, height) / 22
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

    component Part: Rectangle {
        required property real across
        required property real down
        required property real wide
        required property real high

        x: Math.round((icon.width - 22 * icon.unit) / 2 + across * icon.unit)
        y: Math.round((icon.height - 22 * icon.unit) / 2 + down * icon.unit)
        width: Math.max(icon.line, Math.round(wide * icon.unit))
        height: Math.max(icon.line, Math.round(high * icon.unit))
        color: icon.tone
    }

    component Outline: Part {
        color: "transparent"
        border { width: icon.line; color: icon.tone }
    }

    Item {
        anchors.fill: parent
        opacity: icon.where === "absent" ? 0.5 : 1

        Part { across: 1; down: 3; wide: 1; high: 16 } // the bracket
        Outline { across: 1; down: 5; wide: 20; high: 11 }
        Outline { across: 12; down: 7; wide: 7; high: 7; radius: width / 2 } // the fan
        Part { across: 5; down: 8; wide: 4; high: 1 }
        Part { across: 5; down: 10; wide: 4; high: 1 }
        Part { across: 5; down: 12; wide: 4; high: 1 }
        Part { across: 5; down: 16; wide: 3; high: 2 } // the contacts
        Part { across: 9; down: 16; wide: 8; high: 2 }
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
