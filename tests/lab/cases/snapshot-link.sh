# Runs on the lab host as root: bench snapshot-link, with its chunks in an S3 bucket, and on another worker, beyond a link of 1 Gbit/s and
# 2 ms there and back. Programs are in /bench, runtime, kernel and scratch disk in /guests. $1, $2: MiB of the guest, files of 16 MiB of
# its application's data.
set -u
tc=/usr/sbin/tc # busybox has one that shapes nothing
unshare -n sleep 100000 &
world=$!
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
ip link add near type veth
ip link set veth0 netns $world
inside() { nsenter -t $world -n "$@"; }
ip addr add 10.77.0.1/24 dev near && ip link set near up
inside ip addr add 10.77.0.2/24 dev veth0 && inside ip link set veth0 up
$tc qdisc add dev near root netem delay 1ms rate 1gbit limit 20000 || exit 1
inside $tc qdisc add dev veth0 root netem delay 1ms rate 1gbit limit 20000 || exit 1
ping -c 3 10.77.0.2 || exit 1
mkdir -p /run/s3/warren
inside /bench/s3s-fs --host 10.77.0.2 --port 9000 --access-key bench --secret-key bench-secret /run/s3 &
until grep -q ':2328 .* 0A ' /proc/$world/net/tcp; do sleep 0.1; done # it listens on 9000
/bench/warren-bench --host lab --runs 1 --bin /bench --guests /guests --beyond /proc/$world/ns/net \
    --guest-mib "$1" --data-files "$2" snapshot-link
