# Runs on the lab host as root: what Linux functions reach, and what they do not. Runtimes and kernel are in /guests, the
# functions in /functions.
set -u
warren=/opt/warren/bin/warren
say() { echo "== $* ($(cut -d' ' -f1 /proc/uptime) s)"; }
fail() { echo "FAILED: $*"; tail -n 30 /var/lib/warren/log/agent.log /var/lib/warren/log/jailer.log; exit 1; }
expect() {
    wanted=$1; words=$2; shift 2
    said=$("$@" 2>&1); code=$?
    [ "$code" = "$wanted" ] || fail "$* ended with $code, not $wanted: $said"
    echo "$said" | grep -q -- "$words" || fail "$* did not say '$words': $said"
}
fetch() { $warren invoke "$1" --payload "{\"url\":\"$2\"}"; }
network() { /opt/warren/bin/warren-jailer network --state /var/lib/warren/jailer; }
# Of sandboxes: zygotes come and go.
pids() { $warren --json ps | tr -d '\n ' | sed 's/},{/\n/g' | grep -v '"state":"zygote"' | sed -n 's/.*"pid":\([0-9]*\).*/\1/p' | sort; }
# What takes a sandbox as long as its host's limits say, by its own clock, which may be a tenth apart from the host's: 3 MB at 375 KB/s
# behind 256 KiB at once, and 600 blocks written and read again, one by one, at 100 a second behind as many at once. And they are the
# right bytes. Disks have the least that can be said, under which guests boot.
blocks=600
held() {
    took=$($warren invoke "$1" --payload '{"do":"time","url":"http://203.0.113.1/large"}')
    [ "${took#* }" = "${sum%% *}" ] || fail "$1: other bytes came: $took, not $sum"
    [ "${took%% *}" -ge 650 ] || fail "$1 fetched 3 MB in ${took%% *} hundredths of a second"
    say "fetched in ${took%% *} hundredths of a second"
    took=$($warren invoke "$1" --payload "{\"do\":\"disk\",\"blocks\":$blocks}")
    [ "${took#* }" = "$(yes warren | head -c $((blocks * 4096)) | md5sum | cut -d' ' -f1)" ] || fail "$1: other bytes were read: $took"
    [ "${took%% *}" -ge 990 ] || fail "$1 wrote and read $blocks blocks in ${took%% *} hundredths of a second"
    say "written and read in ${took%% *} hundredths of a second"
}
# What a function is told at once, by the router or by the host.
closed='Connection refused\|No route to host\|Could not connect\|Couldn.t connect\|Failed to connect'

say "a world beyond the host, with addresses that functions must and must not reach"
ip link add near type veth
unshare -n sleep 100000 &
world=$!
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set veth0 netns $world
inside() { nsenter -t $world -n "$@"; }
mkdir -p /www/world /www/host
echo 'the world' > /www/world/index.html
echo 'the host' > /www/host/index.html
head -c 3000000 /opt/warren/bin/warren > /www/world/large
ip addr add 203.0.113.2/24 dev near
ip link set near up
inside ip link set lo up
inside ip link set veth0 up
for address in 203.0.113.1 169.254.169.254 10.9.9.9; do
    inside ip addr add $address/24 dev veth0
    ip route add $address/32 dev near 2> /dev/null
done
inside httpd -h /www/world
httpd -h /www/host -p 8080
wget -q -O - http://203.0.113.1/ | grep -q 'the world' || fail "the world is not there"

say "Warren starts"
# In the full form with so few slots that each is used many times, and none kept by machines that wait.
$warren up --data /var/lib/warren --guests /guests --listen 127.0.0.1:0 --network-open 10.9.0.0/16 --network-mbit 3 --disk-mib 8 --disk-iops 100 ${WARREN_SOAK:+--slots=6 --zygotes-mib=0} > /tmp/up 2>&1 &
up=$!
until grep -q '^ready' /tmp/up; do kill -0 $up 2> /dev/null || fail "$(cat /tmp/up)"; sleep 0.2; done
expect 0 '"no_network_because": ""' $warren --json hosts
expect 0 '"network_mbit": 3' $warren --json hosts
expect 0 '"disk_mib": 8' $warren --json hosts
expect 0 '"disk_iops": 100' $warren --json hosts
for name in one two; do
    $warren fn create $name --kind linux --runtime debian-base --code /functions/fetch --timeout-ms 60000 --network outbound \
        || fail "create $name"
done
$warren fn create apart --kind linux --runtime debian-base --code /functions/fetch --timeout-ms 60000 --network none \
    || fail "create apart"

say "out: an address, a large answer, a network that was opened"
expect 0 'the world' fetch one http://203.0.113.1/
say "answered"
rules=$(network | grep '"rules"')
expect 0 'the world' fetch one http://10.9.9.9/
sum=$(md5sum < /www/world/large)
[ "$(fetch one http://203.0.113.1/large | md5sum)" = "$sum" ] || fail "other bytes came"

say "no faster than this host lets it be, where it booted"
$warren ps --function one | grep -q booted || fail "one did not boot: $($warren ps)"
held one

say "and nowhere else: the host, metadata, private networks, another sandbox, without a network anywhere"
expect 0 "$closed" fetch one http://203.0.113.2:8080/
expect 0 "$closed" fetch one http://169.254.169.254/
expect 0 "$closed" fetch one http://192.168.1.1/
expect 0 'the world' fetch two http://203.0.113.1/
[ "$(network | grep '"rules"')" = "$rules" ] || fail "more sandboxes are more rules: $rules, $(network)"
pool=$(network | sed -n 's/.*"pool": "\([0-9]*\.[0-9]*\)\..*/\1/p')
for slot in $(network | sed -n 's/.*"wt\([0-9]*\)".*/\1/p'); do
    expect 0 "$closed" fetch one http://$pool.1.$slot:9001/
done
expect 0 "$closed" fetch apart http://203.0.113.1/

say "agent and jailer are killed: the network works on, and so does what comes after"
before=$(pids)
kill -9 $(pidof warren-agent) $(pidof warren-jailer)
until fetch one http://203.0.113.1/ > /tmp/again 2>&1; do sleep 0.2; done
grep -q 'the world' /tmp/again || fail "$(cat /tmp/again)"
# One may have been started besides, before the adopted ones were known again.
for pid in $before; do
    pids | grep -qx "$pid" || fail "sandbox $pid was not adopted: $(pids)"
done
kill -9 $before
# Until that is noticed, an event may still be given to one of them, and is lost with it.
for pid in $before; do
    while pids | grep -qx "$pid"; do sleep 0.2; done
done
expect 0 'the world' fetch two http://203.0.113.1/

say "one that was brought back reaches the same and no more, over a card of its own"
until grep 'a snapshot was made' /var/lib/warren/log/agent.log | grep -q '"two"'; do
    grep 'no snapshot was made' /var/lib/warren/log/agent.log && fail "no snapshot of two"
    sleep 0.5
done
kill -9 $(pids)
while [ -n "$(pids)" ]; do sleep 0.2; done
# In the quick form a machine waits for it, with a card's tap of its own.
[ -n "${WARREN_SOAK-}" ] || until $warren --json hosts | tr -d '\n ' | grep -q '"waiting":[1-9]'; do sleep 0.2; done
expect 0 'the world' fetch two http://203.0.113.1/
[ -n "${WARREN_SOAK-}" ] || expect 0 '"adopted": [1-9]' $warren --json hosts
$warren ps --function two | grep -q restored || fail "two was not restored: $($warren ps)"
# In the full form it was restored in a jail made then, else by the machine that waited.
held two
expect 0 "$closed" fetch two http://203.0.113.2:8080/

# In the full form: what a slot had of the network is whole again for whoever has it next, whether its end was orderly or not.
if [ -n "${WARREN_SOAK-}" ]; then
    say "thirty rounds of three sandboxes on the same slots"
    taps() { network | sed -n 's/.*"\(wt[0-9]*\)".*/\1/p'; }
    end() { kill -9 $(pids); until [ -z "$(pids)$(taps)" ]; do sleep 0.1; done; }
    end
    : > /tmp/slots
    for round in $(seq 30); do
        $warren fn create brief --kind linux --runtime debian-base --code /functions/fetch --timeout-ms 60000 --network outbound \
            > /tmp/created 2>&1 || fail "round $round: $(cat /tmp/created)"
        for name in one two brief; do
            fetch $name http://203.0.113.1/ > /tmp/round-$name 2>&1 &
            echo $! > /tmp/pid-$name
        done
        for name in one two brief; do
            wait "$(cat /tmp/pid-$name)"
            grep -q 'the world' /tmp/round-$name || fail "round $round, $name: $(cat /tmp/round-$name)"
        done
        taps >> /tmp/slots
        [ "$(taps | wc -l)" = 3 ] || fail "round $round: not three taps: $(network)"
        [ "$(network | grep '"rules"')" = "$rules" ] || fail "round $round: other rules: $rules, $(network)"
        $warren fn rm brief > /tmp/removed 2>&1 || fail "round $round: $(cat /tmp/removed)"
        until [ "$(taps | wc -l)" = 2 ]; do sleep 0.1; done
        end
        [ $((round % 5)) = 0 ] && say "round $round"
    done
    slots=$(sort -u /tmp/slots | wc -l)
    [ "$slots" -le 6 ] || fail "$slots slots were used of six"
    ip route | grep -q '^100\..* via .*wt' && fail "routes of slots are left: $(ip route)"
    expect 0 'the world' fetch one http://203.0.113.1/
fi

say "how each ended has a name and is counted"
kill -9 $(pids)
until $warren --json hosts | grep -q '"killed": [1-9]'; do sleep 0.2; done
grep -q 'it ended by itself.*reason="killed"' /var/lib/warren/log/agent.log || fail "it was not named"
grep -q 'cannot be read on' /var/lib/warren/log/agent.log && fail "an adopted sandbox has no log"

say "nothing stays"
kill -TERM $up && wait $up || fail "the stop: $(cat /tmp/up)"
expect 0 '"has_link": false' network
expect 0 '"rules": 0' network
ip link | grep -q 'warren\|wt[0-9]' && fail "links are left: $(ip link)"
ip route | grep -q '^100\.' && fail "routes are left: $(ip route)"
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ] || fail "the host forwards still"
say "all good"
