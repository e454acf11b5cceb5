"""Which file system a directory is on: SQLite's locks lie on those that a network is behind."""

from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")

# What other machines can write to at the same time, by the names Linux gives them.
NETWORK_KINDS: Final = frozenset(
    {
        "9p", "afs", "ceph", "cifs", "coda", "fuse.cephfs", "fuse.glusterfs", "fuse.s3fs",
        "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3",
        "smbfs",
    }
)  # fmt: skip


def network_kind(directory: Path, mounts: str) -> str | None:
    """The network file system that `directory` (absolute) is on, or None for a local one.

    `mounts` is the text of /proc/self/mounts (fstab(5)): the longest mount point above it counts,
    of equal ones the last, which hides the others.
    """
    found = (0, "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        is_above = directory.is_relative_to(point)
        if is_above and len(point.parts) >= found[0]:
            found = (len(point.parts), fields[2])
    return found[1] if found[1] in NETWORK_KINDS else None
