"""A directory that a network is behind is recognised by the mount it really is on."""

from pathlib import Path

import pytest

from routstr.ledger.filesystem import network_kind

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/export /srv nfs4 rw 0 0
/dev/vdb /srv/local xfs rw 0 0
//host/share /mnt/two\\040words cifs rw 0 0
me@host: /home/me/far fuse.sshfs rw 0 0
tmpfs /over tmpfs rw 0 0
server:/x /over nfs rw 0 0

odd
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/routstr", None),
        ("/srv", "nfs4"),
        ("/srv/node/data", "nfs4"),
        ("/srv/local/data", None),
        ("/srvx", None),
        ("/mnt/two words/data", "cifs"),
        ("/home/me/far/data", "fuse.sshfs"),
        ("/home/me", None),
        ("/over/data", "nfs"),
    ],
)
def test_the_nearest_mount_counts(directory: str, kind: str | None) -> None:
    assert network_kind(Path(directory), MOUNTS) == kind


def test_nothing_known_is_local() -> None:
    assert network_kind(Path("/data"), "") is None
