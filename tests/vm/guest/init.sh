#!/bin/sh
# PID 1 of the nested guest: takes the card with the guest's own driver, says so on the serial port and draws on the card.
# It ends when its power button is pressed, or at once where the kernel's command line has the word `end`.
PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null # the kernel may have done so
while read -r module; do insmod "/modules/$module"; done </modules/order

say() { echo "guest: $*" >/dev/ttyS0; }

for device in /sys/bus/pci/devices/*; do
    read -r class <"$device/class"
    case $class in 0x03*) say "$(basename "$(readlink "$device/driver")") drives display ${device##*/}" ;; esac
done
if [ -e /dev/fb0 ]; then
    # White on green, which no console of the host ever is.
    printf '\033[?25l\033[97;42m\033[2J\033[12;24HThis is the guest, on the same card.\033[14;24H%s\n' \
        "$(cat /sys/class/graphics/fb0/name), Linux $(uname -r)" >/dev/tty0
    say drawn
fi
read -r line </proc/cmdline
case " $line " in *' end '*) say ends; poweroff -f ;; esac

for name in /sys/class/input/event*/device/name; do
    read -r is <"$name"
    device=${name#/sys/class/input/}
    # An event has 24 bytes; the button's first one is its press.
    case $is in 'Power Button') { dd if="/dev/input/${device%%/*}" of=/dev/null bs=24 count=1 2>/dev/null && poweroff -f; } & ;; esac
done
say up
wait
while :; do sleep 1000; done # PID 1 must not end
