"""What to type, on the distribution at hand."""

from __future__ import annotations

from gpuhandoff.model.surroundings import Distribution, Family

_INITRAMFS = {
    Family.DEBIAN: "sudo update-initramfs -u",
    Family.POP: "sudo update-initramfs -u",
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
_ADDS = {
    Family.FEDORA: "sudo grubby --update-kernel=ALL --args=",
    Family.OSTREE: "sudo rpm-ostree kargs --append-if-missing=",
    Family.POP: "sudo kernelstub -a ",
}
_REMOVES = {
    Family.FEDORA: "sudo grubby --update-kernel=ALL --remove-args=",
    Family.OSTREE: "sudo rpm-ostree kargs --delete-if-present=",
    Family.POP: "sudo kernelstub -d ",
}
"""Where a command does it, to which the word is added."""


def add_parameter(distribution: Distribution, word: str) -> str:
    """Return how a word gets onto the kernel command line."""
    if distribution.family in _ADDS:
        return f"`{_ADDS[distribution.family]}{word}` and reboot."
    return f"Add {word} to {_BOOT_LOADER.get(distribution.family, _ELSEWHERE)}."


def remove_parameter(distribution: Distribution, word: str) -> str:
    """Return how a word gets off the kernel command line."""
    if distribution.family in _REMOVES:
        return f"`{_REMOVES[distribution.family]}{word}` and reboot."
    return f"Remove {word} from {_BOOT_LOADER.get(distribution.family, _ELSEWHERE)}."


def then_renew_initramfs(distribution: Distribution) -> str:
    """Return what follows a change of a file that is in the initial ram disk too: ", then …"; "" where none can be made."""
    if distribution.family is Family.OSTREE:  # a part of the image, which has nothing of /etc in it
        return ""
    command = _INITRAMFS.get(distribution.family)
    return f", then `{command}`" if command else ", then make the initial ram disk anew"
