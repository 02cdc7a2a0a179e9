#!/bin/sh
# Runs a program as the user UID in the Debian at ROOT, with mounts, processes and a network (none) of its own.
# What it leaves behind ends with this shell, which is the first process of its kind: so it stays, and waits.
# usage: enclosure.sh ROOT UID BIND... -- PROGRAM...   where BIND is [rw:]/path/here:/path/there
set -eu
root=$1
uid=$2
shift 2
mount --make-rprivate /
# The root itself stays as it is: whatever is written goes to memory.
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir -m 755 "$root/dev/pts"
mkdir -m 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for directory in tmp run; do mount -t tmpfs -o mode=1777 tmpfs "$root/$directory"; done
mkdir -m 1777 "$root/tmp/.X11-unix"
mkdir -m 700 "$root/run/user"
chown "$uid:$uid" "$root/run/user"
mount -t tmpfs -o mode=755 tmpfs "$root/home"
mkdir "$root/home/tester"
chown "$uid:$uid" "$root/home/tester"
while [ "$1" != -- ]; do
    mode=ro
    bind=$1
    case $bind in rw:*)
        mode=rw
        bind=${bind#rw:}
        ;;
    esac
    there=$root${bind#*:}
    mkdir -p "$there"
    mount --bind "${bind%%:*}" "$there"
    mount -o "remount,bind,$mode" "$there"
    shift
done
shift
chroot --userspec="$uid:$uid" "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/tester LANG=C.UTF-8 \
    XDG_RUNTIME_DIR=/run/user "$@"
