#!/bin/sh
# Turns a fresh root into the test host. Run by mmdebstrap with the root's path.
set -eu
root=$1

echo testhost >"$root/etc/hostname"
echo "LABEL=root / ext4 defaults 0 1" >"$root/etc/fstab"
chroot "$root" passwd -d root
chroot "$root" useradd -m -s /bin/sh player
chroot "$root" useradd -m -s /bin/sh other

# A small initrd: decompressing a full one takes long under emulation.
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all

# The desktop: a session of its own at boot, and the same as greeter after every later start.
cat >"$root/etc/greetd/config.toml" <<'END'
[terminal]
vt = 7

[default_session]
command = "weston --renderer=pixman"
user = "_greetd"

[initial_session]
command = "weston --renderer=pixman"
user = "player"
END
# Not before all cards are there: a compositor that starts between two drivers shows its desktop on the first it finds.
mkdir -p "$root/etc/systemd/system/greetd.service.d"
printf '[Unit]\nWants=systemd-udev-settle.service\nAfter=systemd-udev-settle.service\n' \
    >"$root/etc/systemd/system/greetd.service.d/settle.conf"
ln -sf /usr/lib/systemd/system/greetd.service "$root/etc/systemd/system/display-manager.service"
mkdir -p "$root/etc/systemd/system/graphical.target.wants"
ln -sf /usr/lib/systemd/system/greetd.service "$root/etc/systemd/system/graphical.target.wants/greetd.service"
chroot "$root" systemctl set-default graphical.target

# libvirt, started by the tests that need it: nobody else's boot waits for it, and what it loads is in no other snapshot.
chroot "$root" systemctl disable libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests.service \
    virtlogd.service machines.target
rm -f "$root/etc/libvirt/qemu/networks/autostart/default.xml"

# What libvirt's guests boot: the host's own kernel, and an initrd that drives the card and draws on it.
here=$(dirname "$0")
cp "$here/guest/init.sh" "$here/guest/pack.sh" "$root/tmp/"
chroot "$root" sh /tmp/pack.sh /tmp/init.sh
rm "$root/tmp/init.sh" "$root/tmp/pack.sh"

# Nothing that wakes up by itself in the middle of a test.
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    man-db.timer systemd-tmpfiles-clean.timer systemd-networkd-wait-online.service logrotate.timer
rm -rf "$root/var/cache/apt/archives" "$root/var/lib/apt/lists" "$root/usr/share/doc" "$root/usr/share/locale"
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
