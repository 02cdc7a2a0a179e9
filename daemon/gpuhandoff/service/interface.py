"""The API as the XML states it: methods, signals, properties, and introspection from the same file."""

from __future__ import annotations

import copy
import functools
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("org.gpuhandoff.Manager.xml")

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"

_STANDARD = """
<node>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get"><arg name="interface" type="s" direction="in"/><arg name="name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/></method>
    <method name="GetAll"><arg name="interface" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/></method>
    <method name="Set"><arg name="interface" type="s" direction="in"/><arg name="name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/></method>
    <signal name="PropertiesChanged"><arg name="interface" type="s"/><arg name="changed" type="a{sv}"/>
      <arg name="invalidated" type="as"/></signal>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId"><arg name="id" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects"><arg name="objects" type="a{oa{sa{sv}}}" direction="out"/></method>
    <signal name="InterfacesAdded"><arg name="path" type="o"/><arg name="interfaces" type="a{sa{sv}}"/></signal>
    <signal name="InterfacesRemoved"><arg name="path" type="o"/><arg name="interfaces" type="as"/></signal>
  </interface>
</node>
"""
_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '  "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)


@dataclass(frozen=True, slots=True)
class Method:
    """A method's signatures."""

    takes: str
    returns: str


@dataclass(frozen=True, slots=True)
class Property:
    """A property's type, and whether PropertiesChanged carries its value."""

    signature: str
    emits: str = "true"


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface."""

    name: str
    methods: Mapping[str, Method]
    signals: Mapping[str, str]
    properties: Mapping[str, Property]


@functools.cache
def interfaces() -> Mapping[str, Interface]:
    """Return our interfaces by name."""
    return {element.get("name", ""): _interface(element) for element in _ours()}


@functools.cache
def standard_interfaces() -> Mapping[str, Interface]:
    """Return the interfaces of the D-Bus specification that every object has."""
    return {element.get("name", ""): _interface(element) for element in _elements(ET.fromstring(_STANDARD))}  # noqa: S314


def introspect(names: Iterable[str], children: Iterable[str], *, manager: bool) -> str:
    """Return the introspection document of an object with these interfaces of ours and these child nodes.

    `manager`: the object is the ObjectManager.
    """
    root = ET.Element("node")
    standard = _elements(ET.fromstring(_STANDARD))  # noqa: S314  (our own text)
    root.extend(element for element in standard if manager or element.get("name") != OBJECT_MANAGER)
    wanted = set(names)
    root.extend(copy.deepcopy(element) for element in _ours() if element.get("name") in wanted)
    for child in sorted(children):
        ET.SubElement(root, "node", name=child)
    ET.indent(root)
    return _DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"


@functools.cache
def _ours() -> tuple[ET.Element, ...]:
    return tuple(_elements(ET.parse(FILE).getroot()))  # noqa: S314  (our own file)


def _elements(root: ET.Element) -> list[ET.Element]:
    return root.findall("interface")


def _interface(element: ET.Element) -> Interface:
    return Interface(
        element.get("name", ""),
        {
            method.get("name", ""): Method(_types(method, "in"), _types(method, "out"))
            for method in element.findall("method")
        },
        {signal.get("name", ""): _types(signal, None) for signal in element.findall("signal")},
        {one.get("name", ""): Property(one.get("type", ""), _emits(one)) for one in element.findall("property")},
    )


def _types(element: ET.Element, direction: str | None) -> str:
    arguments = element.findall("arg")
    return "".join(one.get("type", "") for one in arguments if direction is None or one.get("direction") == direction)


def _emits(element: ET.Element) -> str:
    for annotation in element.findall("annotation"):
        if annotation.get("name") == _EMITS:
            return annotation.get("value", "true")
    return "true"
