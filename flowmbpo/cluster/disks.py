"""Which file systems are on a network: there, many writers lock each other out of a sqlite file or damage it."""

from __future__ import annotations

from pathlib import Path

# Types as the kernel names them; a FUSE file system may be anything, these are the ones met on clusters.
NETWORK_TYPES = {
    "nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "pvfs2", "orangefs",
    "panfs", "wekafs", "afs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.beegfs", "fuse.juicefs",
    "fuse.s3fs", "fuse.gcsfuse",
}  # fmt: skip


def network_type(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Type of the network file system that `path` is on; empty for a local disk or where nothing is known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    path = path.absolute()
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].encode().decode("unicode_escape"))  # blanks are written \040
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind if kind in NETWORK_TYPES else ""


def warning(sqlite: Path | None, tasks: int) -> str:
    """What to say before so many tasks write to this file; empty where nothing need be said."""
    kind = network_type(sqlite) if sqlite else ""
    if not kind:
        return ""
    return (
        f"{sqlite} is a sqlite file on a network disk ({kind}) and {tasks} task(s) write to it: file locks there are "
        "slow at best and lose data at worst. Start an MLflow server and set MLFLOW_TRACKING_URI=http://HOST:PORT (see "
        "docs/cluster.md); metrics are kept on disk while it is away."
    )
