"""A release for each test, and nothing of it afterwards."""

import re
import secrets
import sys

sys.dont_write_bytecode = True

import pytest

from release import Release, kubectl


@pytest.fixture
def release(request):
    """With Helm 4, or the version that the test is asked for by parameter."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:50].strip("-")
    # A new name each time: a namespace takes its time to go.
    name = f"{words}-{secrets.token_hex(2)}"
    release = Release(getattr(request, "param", "helm4"), name)
    yield release
    release.helm("uninstall", "authservice", "--ignore-not-found", check=False)
    kubectl("delete", "namespace", name, "--wait=false")
    kubectl("delete", "pod,service,secret", name, "--namespace", "database", "--ignore-not-found", "--wait=false")
    kubectl("delete", "persistentvolume", name, "--ignore-not-found", "--wait=false")
