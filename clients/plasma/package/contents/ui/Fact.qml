import QtQuick
import QtQuick.Layouts
import org.kde.kirigami as Kirigami
import org.kde.plasma.components as PlasmaComponents

// One line about a card.
PlasmaComponents.Label {
    Layout.fillWidth: true
    textFormat: Text.PlainText
    wrapMode: Text.Wrap
    elide: Text.ElideRight
    maximumLineCount: 3
    font: Kirigami.Theme.smallFont
}
