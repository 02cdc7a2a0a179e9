import QtQml

QtObject {
    property int busType
    property string service
    property string path
    property string iface
    readonly property var properties: service && SystemBus.running ? SystemBus.objects[path] ?? {} : {}
}
