pragma ComponentBehavior: Bound

import QtQuick
import org.kde.plasma.core as PlasmaCore
import org.kde.plasma.plasmoid

PlasmoidItem {
    id: root

    readonly property list<Card> cards: daemon.present ? daemon.cards.filter(card => card.known) : []

    Manager {
        id: daemon
        watched: root.expanded
    }

    Words {
        id: words
    }

    Plasmoid.title: i18n("GPU Handoff")
    Plasmoid.icon: "video-display"
    // What somebody looks at stays where it is, even if there is nothing to show any more.
    Plasmoid.status: daemon.foremost === "stuck" && daemon.present ? PlasmaCore.Types.NeedsAttentionStatus
                   : cards.length > 0 || expanded ? PlasmaCore.Types.ActiveStatus : PlasmaCore.Types.PassiveStatus

    toolTipMainText: Plasmoid.title
    toolTipTextFormat: Text.PlainText
    toolTipSubText: daemon.present ? cards.map(card => i18nc("a graphics card and where it is", "%1: %2", card.name, words.state(card))).join("\n")
                                    : i18n("gpuhandoff is not running")

    compactRepresentation: CompactView {
        where: daemon.present ? daemon.foremost : "absent"
        title: Plasmoid.title
        explanation: root.toolTipSubText
        open: root.expanded
        onToggled: open => root.expanded = open
    }

    fullRepresentation: FullView {
        manager: daemon
    }
}
