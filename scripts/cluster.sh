#!/usr/bin/env bash
#
# Installs the chart on a real Kubernetes: API server, etcd, controllers, scheduler, two nodes with kubelet, containerd and
# kube-proxy, all of them on this machine.
#
#   ./scripts/cluster.sh [arguments for pytest, as -k rolling]   starts a cluster, runs tests/cluster, and removes it
#   ./scripts/cluster.sh shell                                   starts a cluster, and a shell with its kubectl
#
# Not part of continuous integration: the first run compiles Kubernetes (a quarter of an hour of processor time, some 4 GB
# under target/cluster, of which `rm -rf target/cluster/build` gives back most). It needs root, Debian, Go, and a machine
# that may run containers (shown with the controllers of cgroup v1). Everything comes from public packages: Kubernetes and
# etcd from the Go module proxy, containerd, runc and the CNI plugins from Debian. The images are those of scripts/image.sh.
#
# The cluster lives in namespaces of its own (network, mounts, processes), so it reaches nothing outside of this machine and
# ends with the script. What is not the real thing: tests/cluster/dns.py for CoreDNS; no network policy is enforced.
#
#   AUTHSERVICE_BIN   use this server instead of building one: a release build, where the machine is busy

set -euo pipefail

# The last release for containerd 1, which Debian 12 has.
readonly KUBERNETES=v1.35.4 GATEWAY_API=v1.4.1 PROMETHEUS_OPERATOR=v0.85.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root work=$root/target/cluster tests=$root/tests/cluster
readonly bin=$work/bin run=$work/run api=https://localhost:6443 nodes=2
export PATH=$bin:$work/debian/usr/bin:$work/debian/usr/sbin:$PATH KUBECONFIG=$run/admin.kubeconfig

say() { printf 'cluster: %s\n' "$*" >&2; }
die() {
    say "FAILED: $*"
    exit 1
}

# --- outside: what it is made of

# Unpacked, not installed: no service is started.
unpack() {
    [[ ! -x $work/debian/usr/bin/containerd || ! -x $work/debian/usr/sbin/runc || ! -x $work/debian/usr/lib/cni/bridge ]] || return 0
    say "unpacking containerd, runc and the CNI plugins"
    rm -rf "$work/debian"
    mkdir -p "$work/debian"
    local packages=(containerd runc containernetworking-plugins) package
    (
        cd "$work/debian"
        apt-get -q download "${packages[@]}" >&2 || { apt-get -q update >&2 && apt-get -q download "${packages[@]}" >&2; }
        for package in *.deb; do dpkg -x "$package" .; done
    )
}

go_here() {
    env -C "$work/build" CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false' GOCACHE="$work/build/cache" GOMODCACHE="$work/build/modules" go "$@"
}
module() { go_here mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

# Kubernetes as a module of ours: its own requirements, with the parts that its repository has beside it taken as published.
build() {
    [[ "$(cat "$bin/version" 2>/dev/null)" != "$KUBERNETES $(sha256sum <"$tests/kube.go")" ]] || return 0
    local source flags="-s -w" package program
    say "building Kubernetes $KUBERNETES: a quarter of an hour of processor time"
    mkdir -p "$work/build" "$bin"
    cp "$tests/kube.go" "$work/build/main.go"
    printf 'module cluster\n' >"$work/build/go.mod"
    source=$(module "k8s.io/kubernetes@$KUBERNETES")
    sed -e 's|^module .*|module cluster|' -e '/^godebug/d' -e "s#\./staging/src/\(k8s.io/[a-z-]*\)#\1 v0.${KUBERNETES#v1.}#" \
        "$source/go.mod" >"$work/build/go.mod"
    echo "require k8s.io/kubernetes $KUBERNETES" >>"$work/build/go.mod"
    install -m 644 "$source/go.sum" "$work/build/go.sum"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$KUBERNETES -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES")"
    done
    go_here build -trimpath -ldflags "$flags" -o "$bin/kube" .
    for program in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -sf kube "$bin/$program"
    done
    cc -Os -static -o "$bin/pause" "$source/build/pause/linux/pause.c"
    mkdir -p "$work/crds"
    source=$(module "sigs.k8s.io/gateway-api@$GATEWAY_API")
    install -m 644 "$source/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml" "$work/crds"
    source=$(module "github.com/prometheus-operator/prometheus-operator@$PROMETHEUS_OPERATOR")
    install -m 644 "$source"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml "$work/crds"
    echo "$KUBERNETES $(sha256sum <"$tests/kube.go")" >"$bin/version"
}

images() {
    IMAGE=required "$root/scripts/image.sh" build
    pause
}

# An image of one file, as `docker save` writes it.
pause() {
    local folder=$work/pause
    rm -rf "$folder"
    mkdir "$folder"
    tar --create --file "$folder/layer.tar" --directory "$bin" pause
    cat >"$folder/config.json" <<JSON
{"architecture": "$(go env GOARCH)", "os": "linux", "config": {"Entrypoint": ["/pause"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum "$folder/layer.tar" | cut -d ' ' -f 1)"]}}
JSON
    echo '[{"Config": "config.json", "RepoTags": ["registry.k8s.io/pause:3.10"], "Layers": ["layer.tar"]}]' >"$folder/manifest.json"
    tar --create --file "$work/pause.tar" --directory "$folder" manifest.json config.json layer.tar
}

# --- inside: the cluster

# start NAME COMMAND..: in the background, with a log.
start() {
    local name=$1
    shift
    "$@" >"$run/$name.log" 2>&1 &
}

# until_true SECONDS SENTENCE COMMAND..
until_true() {
    local end=$((SECONDS + $1)) sentence=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $end ]] || die "$sentence"
        sleep 0.5
    done
}

kubeconfig() {
    cat >"$run/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "$api", certificate-authority: $run/tls/apiserver.crt}}]
users: [{name: here, user: {token: $1}}]
contexts: [{name: here, context: {cluster: here, user: here}}]
YAML
}

control_plane() {
    mkdir -p "$run/tls"
    openssl genrsa -out "$run/accounts.key" 2048 2>/dev/null
    # The name is the token: nobody but this script can reach the API server.
    cat >"$run/tokens.csv" <<CSV
admin,admin,admin,system:masters
manager,system:kube-controller-manager,manager
scheduler,system:kube-scheduler,scheduler
proxy,system:kube-proxy,proxy
node1,system:node:node1,node1,system:nodes
node2,system:node:node2,node2,system:nodes
CSV
    local user
    for user in admin manager scheduler proxy node1 node2; do kubeconfig "$user"; done
    start etcd etcd --data-dir "$run/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --unsafe-no-fsync
    start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --cert-dir "$run/tls" --advertise-address 10.244.0.1 \
        --service-cluster-ip-range 10.96.0.0/16 --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --kubelet-preferred-address-types InternalIP --allow-privileged --token-auth-file "$run/tokens.csv" --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$run/accounts.key" --service-account-signing-key-file "$run/accounts.key"
    until_true 120 "the API server is not ready: $run/apiserver.log" kubectl get --raw /readyz
    start manager kube-controller-manager --kubeconfig "$run/manager.kubeconfig" --use-service-account-credentials --leader-elect=false \
        --service-account-private-key-file "$run/accounts.key" --root-ca-file "$run/tls/apiserver.crt"
    start scheduler kube-scheduler --kubeconfig "$run/scheduler.kubeconfig" --leader-elect=false
    start proxy kube-proxy --kubeconfig "$run/proxy.kubeconfig" --hostname-override node1 --cluster-cidr 10.244.0.0/16 \
        --proxy-mode iptables --conntrack-max-per-core 0
}

# A node has its own mounts, so that several can be where a kubelet always is.
node() {
    local number=$1 name=node$1 folder=$run/node$1 controller
    mkdir -p "$folder"/{etc,kubelet,containerd,log}
    # A bridge without an address of its own takes that of a port, and another when the port goes: pods then speak to nobody for a while.
    ip link add "kube$number" address "02:00:00:00:00:0$number" type bridge
    ip address add "10.244.$number.1/24" dev "kube$number"
    ip link set "kube$number" up
    cat >"$folder/etc/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "kube$number", "isDefaultGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$number.0/24"}]], "dataDir": "$folder/addresses"}}]}
JSON
    cat >"$folder/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  # Without CAP_SYS_RESOURCE nobody may make a process dearer to the kernel.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$work/debian/usr/lib/cni"
    conf_dir = "$folder/etc"
TOML
    cat >"$folder/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
port: $((10250 + number * 10))
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/$name
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [10.244.$number.1]
# The disk of a developer is fuller than that of a node.
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
YAML
    for controller in $(controllers); do mkdir -p "$controller/$cgroup/$name"; done
    [[ ! -e $plane/cpu.shares ]] || cat "$plane/cpu.shares" >"${plane%/plane}/$name/cpu.shares"
    # shellcheck disable=SC2016 # expanded by the inner shell
    start "$name" unshare --mount bash -euo pipefail -c '
        name=$1 folder=$2 work=$3 run=$4
        mkdir -p /var/lib/kubelet /var/lib/containerd
        mount --bind "$folder/kubelet" /var/lib/kubelet
        mount --bind "$folder/containerd" /var/lib/containerd
        mount --bind "$folder/log" /var/log
        mount -t tmpfs tmpfs /run
        containerd --config "$folder/containerd.toml" >"$run/$name-containerd.log" 2>&1 &
        until ctr version >/dev/null 2>&1; do sleep 0.2; done
        for archive in "$work/pause.tar" "$work/../image/images.tar"; do ctr --namespace k8s.io images import "$archive" >/dev/null; done
        # The second name is what an upgrade goes to.
        for tag in 0.1.0 next; do
            ctr --namespace k8s.io images tag docker.io/library/authservice:local "docker.io/library/authservice:$tag" >/dev/null
        done
        exec kubelet --config "$folder/kubelet.yaml" --kubeconfig "$run/$name.kubeconfig" --hostname-override "$name" \
            --node-ip "10.244.${name#node}.1" --root-dir /var/lib/kubelet --node-labels "topology.kubernetes.io/zone=$name"' \
        _ "$name" "$folder" "$work" "$run"
}

controllers() {
    local folder
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
        return
    fi
    for folder in /sys/fs/cgroup/*/; do
        [[ ! -e $folder/cgroup.procs || $folder == */unified/ ]] || echo "${folder%/}"
    done
}

inside() {
    local number plane=/sys/fs/cgroup/cpu/$cgroup/plane
    # As much processor time for what a real cluster has machines for, or pods are gone before anybody has heard of it.
    if [[ -e /sys/fs/cgroup/cpu/cgroup.procs ]]; then
        mkdir -p "$plane"
        echo 20480 | tee "${plane%/plane}/cpu.shares" >"$plane/cpu.shares"
        echo $$ >"$plane/cgroup.procs"
    fi
    ip link set lo up
    # Service addresses have a way, which kube-proxy then changes.
    ip link add cluster0 type bridge
    ip address add 10.244.0.1/32 dev cluster0
    ip link set cluster0 up
    ip route add 10.96.0.0/16 dev cluster0
    echo 1 >/proc/sys/net/ipv4/ip_forward
    control_plane
    for ((number = 1; number <= nodes; number++)); do node "$number"; done
    start dns python3 "$tests/dns.py" 10.244.1.1 10.244.2.1
    until_true 120 "no node: $run/node1.log" kubectl get node node1 node2
    until_true 120 "a node is not ready: $run/node1.log" kubectl wait --for condition=Ready node --all --timeout 1s
    say "Kubernetes $(kubectl version -o json | sed -n 's/.*"gitVersion": "\(.*\)",/\1/p' | tail -n 1) with $nodes nodes is ready"
    kubectl apply --server-side --filename "$work/crds" >/dev/null
    if [[ ${1:-} == shell ]]; then
        bash
        return
    fi
    CLUSTER_RUN=$run PYTHONPATH=$root/tests/chart PYTHONDONTWRITEBYTECODE=1 "$root/target/chart/venv/bin/python" -m pytest -v -p no:cacheprovider "$tests" "$@"
}

# What outlives the namespaces: groups of processes, and two switches of the kernel that a kubelet turns.
clean() {
    local controller
    for controller in $(controllers); do
        [[ ! -d $controller/$cgroup ]] || find "$controller/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    # The logs stay until the next run.
    rm -rf "$run"/{etcd,node*,volumes}/
    sysctl --quiet --load="$work/sysctl" >/dev/null || true
}

readonly cgroup=authservice-cluster
if [[ ${CLUSTER_INSIDE:-} ]]; then
    inside "$@"
    exit
fi
[[ $EUID -eq 0 ]] || die "a cluster needs root"
command -v go >/dev/null || die "go is not on the PATH: install Go 1.25 or newer"
mkdir -p "$work"
exec 7>"$work/.lock"
flock 7 # one cluster at a time in this checkout
"$root/scripts/setup.sh" # PyJWT, for the quick start
"$root/scripts/setup.sh" cluster
"$root/scripts/chart.sh" tools
unpack
build
images
sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops >"$work/sysctl"
rm -rf "$run"
mkdir -p "$run"
trap clean EXIT
CLUSTER_INSIDE=1 setpriv --pdeathsig KILL unshare --mount --net --pid --fork --mount-proc --kill-child "${BASH_SOURCE[0]}" "$@" 7>&-
