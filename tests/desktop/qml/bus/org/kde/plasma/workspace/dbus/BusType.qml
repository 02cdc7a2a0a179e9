import QtQml

QtObject {
    enum Kind { Session, System }
}
