"""Submissions in a working folder that was moved."""

from flowmbpo.cluster.submission import Submission, submissions
from flowmbpo.runs.layout import JOBS
from flowmbpo.tracking.store import resolve_store


def test_a_submission_goes_on_where_its_folder_is_now(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    for name, uri in (("own", resolve_store(None, before).uri), ("shared", elsewhere)):
        folder = before / JOBS / name
        folder.mkdir(parents=True)
        Submission(folder, "local", "x", (0,), before, uri, job_id="1").save()
    before.rename(after)
    found = {one.folder.name: one for one in submissions(after / JOBS)}
    assert {one.directory for one in found.values()} == {after}
    assert found["own"].folder == after / JOBS / "own"
    assert found["own"].tracking_uri == resolve_store(None, after).uri
    assert found["shared"].tracking_uri == elsewhere
