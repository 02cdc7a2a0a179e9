#!/bin/sh
# What gpuhandoff does to the functions of a card, as bare sysfs writes: the baseline of the bench.
# usage: bare.sh out|back MODULE FUNCTION...   (functions ascending, the display function first)
set -eu
direction=$1 module=$2
shift 2
pci=/sys/bus/pci

reversed=
for f in "$@"; do reversed="$f $reversed"; done

# Nothing is forked but modprobe: a hand-written hook that does not care would be slower.
bound() { [ -e "$pci/drivers/$2/$1" ]; }
remember() {
    for d in "$pci"/drivers/*; do
        [ ! -e "$d/$1" ] || echo "${d##*/}" >"/run/bare-$1"
    done
}

case $direction in
out)
    for f in "$@"; do
        remember "$f"
        echo vfio-pci >"$pci/devices/$f/driver_override"
    done
    for f in $reversed; do
        [ "$f" = "$1" ] || echo "$f" >"$pci/devices/$f/driver/unbind"
    done
    modprobe -r "$module"
    [ ! -e "$pci/devices/$1/driver" ] || echo "$1" >"$pci/devices/$1/driver/unbind"
    modprobe vfio-pci
    modprobe vfio_iommu_type1
    for f in $reversed; do
        bound "$f" vfio-pci || echo "$f" >"$pci/drivers_probe"
        bound "$f" vfio-pci
    done
    ;;
back)
    for f in $reversed; do echo "$f" >"$pci/devices/$f/driver/unbind"; done
    modprobe -r vfio_iommu_type1 vfio-pci
    for f in "$@"; do
        read -r was <"/run/bare-$f"
        echo "$was" >"$pci/devices/$f/driver_override"
    done
    modprobe "$module"
    for f in "$@"; do
        read -r was <"/run/bare-$f"
        bound "$f" "$was" || echo "$f" >"$pci/drivers_probe"
        bound "$f" "$was"
        echo >"$pci/devices/$f/driver_override"
    done
    ;;
esac
