"""The bill of materials of the server as CycloneDX 1.6: run by sbom.sh, which explains it.

`cargo tree` says what is built (`cargo metadata` would add what other members of the workspace ask for), `cargo metadata` gives
licences and places, Cargo.lock the checksums.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

ROOT = "authservice"
TREE = ["cargo", "tree", "--locked", "--package", ROOT, "--edges"]
LINKED = "normal,no-proc-macro"
LINE = re.compile(r"^(\d+) (\S+) v(\S+)( \(proc-macro\))?")


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"sbom: failed: {' '.join(command)}")
    return done.stdout


def tree(target, edges):
    """The crates of the server as (name, version), each with the crates that it needs."""
    needs, path = {}, []
    for line in run(*TREE, edges, "--target", target, "--prefix", "depth", "--format", " {p}").splitlines():
        depth, name, version, _ = LINE.match(line).groups()
        del path[int(depth):]
        needs.setdefault((name, version), set())
        if path:
            needs[path[-1]].add((name, version))
        path.append((name, version))
    return needs


def purl(key):
    name, version = key
    return f"pkg:cargo/{name}@{quote(version)}"


def crate(package, checksums, scope):
    name, version = package["name"], package["version"]
    ref = purl((name, version))
    component = {"type": "library", "bom-ref": ref, "name": name, "version": version, "scope": scope}
    checksum = checksums.get((name, version))
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    # Older crates write "MIT/Apache-2.0".
    component["licenses"] = [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}]
    component["purl"] = ref
    if (package["repository"] or "").startswith("http"):
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def inside(packages, shipped):
    """What crates bring along, each with the crate that holds it. Who looks for known vulnerabilities must see it."""

    def version(name, file, pattern):
        text = (Path(packages[name]["manifest_path"]).parent / file).read_text(encoding="utf-8", errors="replace")
        found = set(re.findall(pattern, text))
        if len(found) != 1:
            sys.exit(f"sbom: the version of what {name} holds cannot be told: {file} has {sorted(found)}")
        return found.pop()

    def component(name, version, license, purl, cpe=None):
        made = {"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required"}
        made["licenses"] = [{"license": {"id": license}}]
        if cpe:
            made["cpe"] = f"cpe:2.3:a:{cpe}:{version}:*:*:*:*:*:*:*"
        return made | {"purl": purl}

    found = []
    if "openssl-src" in packages:
        # "300.6.1+3.6.3": the crate's version, then OpenSSL's.
        of = packages["openssl-src"]["version"].split("+")[1]
        made = component("openssl", of, "Apache-2.0", f"pkg:generic/openssl@{of}", "openssl:openssl")
        found.append(("openssl-sys", made))
    if "libsqlite3-sys" in shipped:
        of = version("libsqlite3-sys", "sqlite3/sqlite3.h", r'#define SQLITE_VERSION +"([^"]+)"')
        made = component("sqlite", of, "blessing", f"pkg:generic/sqlite@{of}", "sqlite:sqlite")
        found.append(("libsqlite3-sys", made))
    if "poem-openapi" in shipped:
        ui = "src/ui"
        of = version("poem-openapi", f"{ui}/swagger_ui/swagger-ui-bundle.js", r'PACKAGE_VERSION:"([^"]+)"')
        found.append(("poem-openapi", component("swagger-ui-dist", of, "Apache-2.0", f"pkg:npm/swagger-ui-dist@{of}")))
        of = version("poem-openapi", f"{ui}/redoc/redoc.standalone.js", r' ReDoc Version: ","([^"]+)"')
        found.append(("poem-openapi", component("redoc", of, "MIT", f"pkg:npm/redoc@{of}")))
    return found


def bill(target):
    shipped, built = tree(target, LINKED), tree(target, "normal,build")
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    lock = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "(.+)"', Path("Cargo.lock").read_text())
    checksums = {(name, version): checksum for name, version, checksum in lock}
    components = [
        crate(packages[key], checksums, "required" if key in shipped else "excluded") for key in sorted(built)
    ]
    [root] = [component for component in components if component["name"] == ROOT]
    components.remove(root)
    root["type"] = "application"
    del root["scope"]
    depends = {purl(key): {purl(need) for need in needs} for key, needs in built.items()}
    by_name = {name: packages[name, version] for name, version in built}
    for holder, component in inside(by_name, {name for name, _ in shipped}):
        depends[purl((holder, by_name[holder]["version"]))].add(component["bom-ref"])
        depends[component["bom-ref"]] = set()
        components.append(component)
    cargo = {"type": "application", "name": "cargo", "version": run("cargo", "--version").split()[1]}
    content = {
        "metadata": time()
        | {
            "tools": {"components": [cargo]},
            "component": root,
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(depends.items())],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1} | content


def time():
    """Of the sources; nothing when that is not known, as outside of a clone."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch and Path(".git").exists():
        epoch = run("git", "log", "-1", "--format=%ct")
    if not epoch:
        return {}
    return {"timestamp": datetime.fromtimestamp(int(epoch), timezone.utc).isoformat().replace("+00:00", "Z")}


def check(bill, target):
    """Faults of a bill, told against another way of asking what is linked."""
    lines = run(*TREE, LINKED, "--target", target, "--prefix", "none", "--format", "{p}").splitlines()
    linked = {tuple(line.split()[:2]) for line in lines if line}
    all_of_it = bill["components"] + [bill["metadata"]["component"]]
    listed = {(component["name"], "v" + component["version"]): component for component in all_of_it}
    faults = [f"{name} {version} is linked and not listed" for name, version in sorted(linked - listed.keys())]
    for key in linked & listed.keys():
        if listed[key].get("scope", "required") != "required":
            faults.append(f"{key[0]} is linked and listed as {listed[key]['scope']}")
    own = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))
    members = {package["name"] for package in own["packages"]}
    for component in bill["components"]:
        name = component["name"]
        if component["purl"].startswith("pkg:cargo/") and name not in members and "hashes" not in component:
            faults.append(f"{name} has no checksum")
        if "NOASSERTION" in json.dumps(component["licenses"]):
            faults.append(f"{name} has no licence")
    purls = "\n".join(component["purl"] for component in bill["components"])
    for part in ["generic/openssl", "generic/sqlite", "npm/swagger-ui-dist", "npm/redoc"]:
        if f"pkg:{part}@" not in purls:
            faults.append(f"{part} is missing")
    return faults


def main():
    target, file = sys.argv[1], Path(sys.argv[2])
    made = bill(target)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made, indent=2) + "\n")
    scopes = [component["scope"] for component in made["components"]]
    print(f"sbom: {file}: {scopes.count('required')} components shipped, {scopes.count('excluded')} of the build only")
    if sys.argv[3:] == ["check"]:
        faults = check(made, target)
        if faults:
            sys.exit("\n".join(f"sbom: {fault}" for fault in faults))


main()
