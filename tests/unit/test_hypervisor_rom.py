"""ROM files: whether they are one, and whose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuhandoff.host import roms
from gpuhandoff.host.roms import is_hidden, read_file
from gpuhandoff.hypervisor.rom import problem_of
from tests.support.roms import image

CARD = (0x10DE, 0x2786)


@pytest.mark.parametrize(
    "data",
    [
        image(*CARD),
        image(*CARD) + b"\xff" * 4096,
        image(0x10DE, 0x1111, last=False) + image(*CARD, code=3),
        image(0x10DE, 0x1111, 0x2222, 0x2786),
    ],
)
def test_a_rom_of_this_card(data: bytes) -> None:
    assert problem_of(data, *CARD) == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with 55 aa"),
        (b"<html>", "does not begin with 55 aa"),
        (b"\x55\xaa" + bytes(510), "no image that says"),
        (b"\x55\xaa", "no image that says"),
        (image(0x1002, 0x2786), "another card: 1002:2786, not 10de:2786"),
        (image(0x1002, 0x73BF), "another card: 1002:73bf, not 10de:2786"),
        (image(0x10DE, 0x1111, last=False) + image(0x10DE, 0x1111), "another card: 10de:1111, not"),
        (b"NVGI" + bytes(508) + b"\x55\xaa" + bytes(100) + image(*CARD), "tail -c +615"),
        (image(*CARD)[: 0x40 + 10], "no image that says"),
    ],
)
def test_what_is_none(data: bytes, words: str) -> None:
    assert words in problem_of(data, *CARD)


def test_an_image_that_says_it_goes_on_for_ever_is_read_for_a_while() -> None:
    assert problem_of(image(0x10DE, 0x1111, last=False) * 200, *CARD) != ""
    assert problem_of(image(0x10DE, 0x1111, last=False, blocks=0), *CARD) != ""


def test_only_a_regular_file_is_read_and_no_more_than_wanted(tmp_path: Path) -> None:
    file = tmp_path / "card.rom"
    file.write_bytes(b"\x55\xaa" + bytes(98))
    assert len(read_file(str(file), 10)) == 10
    assert len(read_file(str(file), 1000)) == 100
    for path in ("/dev/zero", str(tmp_path)):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(path, 10)


def test_what_is_no_regular_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "open", lambda *given: pytest.fail(f"opened {given}"))
    with pytest.raises(OSError, match="not a regular file"):
        read_file(str(tmp_path / "pipe"), 10)


def test_where_the_unit_hides_files_from_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hidden("/home/somebody/card.rom")
    assert is_hidden("/var/home/somebody/card.rom")
    assert not is_hidden("/homestead/card.rom")
    monkeypatch.setattr(roms, "HIDDEN", (str(tmp_path / "home"),))
    (tmp_path / "link").symlink_to(tmp_path / "home" / "card.rom")
    assert is_hidden(str(tmp_path / "link"))
    assert not is_hidden(str(tmp_path / "card.rom"))
