from pathlib import Path

from subfour.durable import write_atomically


def test_write_atomically_respects_the_umask(tmp_path: Path):
    """Colleagues can read a run where the umask lets them."""
    write_atomically(tmp_path / "file", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
