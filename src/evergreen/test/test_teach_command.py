"""The command `evergreen teach`."""

from evergreen.commands import teach
from vla_core import taught


def test_the_default_squeeze_is_the_library_s() -> None:
    """It is written down twice, so that `evergreen --help` loads no numpy."""
    assert teach.SQUEEZE_RAD == taught.SQUEEZE_RAD
