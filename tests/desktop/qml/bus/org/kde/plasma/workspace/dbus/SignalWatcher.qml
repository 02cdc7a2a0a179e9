import QtQml

QtObject {
    property bool enabled
    property int busType
    property string service
    property string path
    property string iface
}
