"""A policy scanner's opinion of what the chart renders, and why it is not followed where it is not."""

import json
import subprocess

from support import TOOLS, name_of, template, value_files

# By check, the kinds that it may complain of.
KNOWN = {
    # No CPU limit: a sign-in that is throttled is a sign-in that waits, and hashes are bounded by the server (docs/helm.md, Size).
    "CKV_K8S_11": {"Deployment", "Job", "CronJob", "Pod"},
    # Pinning is the operator's, by image.digest; a tag that was pulled is then not asked for again at each start.
    "CKV_K8S_43": {"Deployment", "Job", "Pod"},
    "CKV_K8S_15": {"Deployment", "Job", "Pod"},
    # The pod of `helm test` asks once and ends.
    "CKV_K8S_8": {"Pod"},
    "CKV_K8S_9": {"Pod"},
    # An object that the values bring, as an example.
    "CKV_K8S_21": {"ConfigMap"},
}


def test_checkov_finds_nothing_that_is_not_known(tmp_path):
    for path in value_files():
        (tmp_path / f"{name_of(path).replace('/', '-')}.yaml").write_text(template("helm4", "--values", path))
    command = [TOOLS / "checkov/bin/checkov", "--directory", tmp_path, "--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)

    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 2000, report["summary"]
    failed = {(check["check_id"], check["resource"].split(".")[0]): check for check in report["results"]["failed_checks"]}
    new = [f"{check['check_id']} {check['check_name']}: {check['resource']}" for (id, kind), check in failed.items() if kind not in KNOWN.get(id, ())]
    assert not new, "\n".join(new)
    # What is excused and no longer there is to be taken out of the list.
    assert {id for id, _ in failed} == set(KNOWN)
