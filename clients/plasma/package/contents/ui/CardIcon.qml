import QtQuick
import org.kde.kirigami as Kirigami

// A graphics card, and in its corner where it is.
Item {
    id: icon

    /** A card's state, or "absent". */
    required property string where

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

    Kirigami.Icon {
        anchors.fill: parent
        source: Qt.resolvedUrl("../icons/card.svg")
        isMask: true
        color: Kirigami.Theme.textColor
        opacity: icon.where === "absent" ? 0.5 : 1
    }

    Rectangle {
        visible: icon.emblem !== ""
        anchors { right: parent.right; bottom: parent.bottom }
        width: Math.round(Math.max(Kirigami.Units.iconSizes.small / 2, parent.height * 0.55))
        height: width
        radius: width / 2
        color: Kirigami.Theme.backgroundColor

        Kirigami.Icon {
            anchors.fill: parent
            source: icon.emblem
        }
    }
}
