#!/bin/sh
# Runs inside the test host's root while its image is made: packs the nested guest's initrd from the host's own packages.
# usage: pack.sh INIT   Writes /var/lib/guest: initrd and vmlinuz.
set -eu
target=/var/lib/guest
version=$(basename /lib/modules/*)
root=$(mktemp -d)
mkdir -p "$target" "$root/modules" "$root/bin" "$root/proc" "$root/sys" "$root/dev"
cp "$1" "$root/init"
chmod 755 "$root/init"
cp /bin/busybox "$root/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
for wanted in bochs button evdev; do
    modprobe --set-version "$version" --show-depends "$wanted" | while read -r what path _; do
        [ "$what" = insmod ] || continue
        name=$(basename "$path" .xz)
        [ ! -e "$root/modules/$name" ] || continue
        case $path in *.xz) busybox unxz -c "$path" ;; *) cat "$path" ;; esac >"$root/modules/$name"
        echo "$name" >>"$root/modules/order"
    done
done
# Not compressed: unpacking costs more than reading under emulation.
(cd "$root" && find . | cpio --quiet -o -H newc >"$target/initrd")
cp "/boot/vmlinuz-$version" "$target/vmlinuz"
chmod -R a+rX "$target"
rm -rf "$root"
