"""What to type, on the distribution at hand."""

from __future__ import annotations

from gpuhandoff.model.surroundings import Distribution, Family

_INITRAMFS = {
    Family.DEBIAN: "sudo update-initramfs -u",
    Family.FEDORA: "sudo dracut --force",
    Family.SUSE: "sudo dracut --force",
    Family.ARCH: "sudo mkinitcpio -P",
}
_BOOT_LOADER = {
    Family.DEBIAN: "GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then `sudo update-grub` and reboot",
    Family.SUSE: (
        "GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then `sudo grub2-mkconfig -o /boot/grub2/grub.cfg` and reboot"
    ),
    Family.ARCH: (
        "GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then `sudo grub-mkconfig -o /boot/grub/grub.cfg` (or the options "
        "of your boot loader's entry) and reboot"
    ),
}
_ELSEWHERE = "the kernel command line of your boot loader, and reboot"


def add_parameter(distribution: Distribution, word: str) -> str:
    """Return how a word gets onto the kernel command line."""
    if distribution.family is Family.FEDORA:
        return f"`sudo grubby --update-kernel=ALL --args={word}` and reboot."
    return f"Add {word} to {_BOOT_LOADER.get(distribution.family, _ELSEWHERE)}."


def remove_parameter(distribution: Distribution, word: str) -> str:
    """Return how a word gets off the kernel command line."""
    if distribution.family is Family.FEDORA:
        return f"`sudo grubby --update-kernel=ALL --remove-args={word}` and reboot."
    return f"Remove {word} from {_BOOT_LOADER.get(distribution.family, _ELSEWHERE)}."


def renew_initramfs(distribution: Distribution) -> str:
    """Return the command that makes the initial ram disk anew."""
    return f"`{_INITRAMFS[distribution.family]}`" if distribution.family in _INITRAMFS else "make the initial ram disk anew"
