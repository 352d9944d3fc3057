"""What we write is there whole, or the place is as it was; and one line says why."""

import os
from pathlib import Path

import pytest

from irene_build.errors import OutputError
from irene_build.files import check_writable, write_bytes_atomic, write_folder_atomic, write_text_atomic


def test_a_file_is_replaced_whole_with_its_mode_and_through_links(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "a.txt"
    write_text_atomic(file, "é \ud800")
    assert file.read_bytes() == "é \\ud800".encode()
    file.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(file)
    write_bytes_atomic(link, b"two")
    assert link.is_symlink() and file.read_bytes() == b"two" and file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in file.parent.iterdir()] == ["a.txt"]


def test_a_device_is_written_to_and_a_full_one_is_a_failure() -> None:
    write_text_atomic("/dev/null", "gone")
    with pytest.raises(OutputError, match=r"cannot write /dev/full: No space left .*; make room") as full:
        write_text_atomic("/dev/full", "x" * 100_000)
    assert full.value.exit_code == 1


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y", "/dev/null/x", ".", "/sys/x"])
def test_places_that_take_no_file(place: str) -> None:
    with pytest.raises(OutputError, match=r"^cannot write .+; name (another place|a file)$") as wrong:
        write_text_atomic(place, "x")
    assert wrong.value.exit_code == 2 and "\n" not in str(wrong.value)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with write_folder_atomic(out) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), write_folder_atomic(out) as folder:
        (folder / "b").write_text("2")
        _ = 1 / 0
    assert {p.name for p in out.iterdir()} == {"a"}
    with write_folder_atomic(out) as folder:
        (folder / "b").write_text("2")
    assert {p.name for p in out.iterdir()} == {"b"}
    assert list(tmp_path.iterdir()) == [out]


def test_errors_inside_a_folder_name_the_folder_and_others_pass(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write .*out: "),
        write_folder_atomic(tmp_path / "out") as new,
    ):
        (new / "a" / "b").write_text("there is no folder a")
    with pytest.raises(FileNotFoundError), write_folder_atomic(tmp_path / "out"):
        (tmp_path / "elsewhere").read_text()
    with pytest.raises(OutputError, match="/proc takes no new files"), write_folder_atomic("/proc/x"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_can_be_asked_for_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b.json")
    check_writable("/dev/null")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot write /proc/a/b"):
        check_writable("/proc/a/b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="takes no new files"):
        write_text_atomic(tmp_path / "x", "")
