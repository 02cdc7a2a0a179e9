import QtQml

QtObject {
    property int busType
    property string watchedService
    readonly property bool registered: SystemBus.running
}
