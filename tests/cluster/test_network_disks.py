"""Telling network file systems from local ones."""

from pathlib import Path

from flowmbpo.cluster.disks import network_type

MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
lustre:/scratch /scr\040atch lustre rw 0 0
overlaid /home overlay rw 0 0
"""


def test_the_deepest_and_latest_mount_counts(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS.replace("overlaid /home overlay rw 0 0\n", ""))
    assert network_type(Path("/home/me/mlflow.db"), mounts) == "nfs4"
    assert network_type(Path("/home/local/mlflow.db"), mounts) == ""
    assert network_type(Path("/homes/mlflow.db"), mounts) == ""
    assert network_type(Path("/scr atch/x/mlflow.db"), mounts) == "lustre"
    mounts.write_text(MOUNTS)
    assert network_type(Path("/home/me/mlflow.db"), mounts) == ""
    assert network_type(Path("/home/me/mlflow.db"), tmp_path / "missing") == ""
