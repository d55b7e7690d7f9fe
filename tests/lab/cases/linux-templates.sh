# Runs on the lab host as root: one worker that lets Linux functions see its processor as it is, then as a template of its family, then
# as it is again, over one origin. Runtime and kernel are in /guests, the function in /functions.
set -u
warren=/opt/warren/bin/warren
say() { echo "== $* ($(cut -d' ' -f1 /proc/uptime) s)"; }
fail() { echo "FAILED: $*"; tail -n 30 $log; exit 1; }
# What a call says, and with which code it ends.
expect() {
    wanted=$1; words=$2; shift 2
    said=$("$@" 2>&1); code=$?
    [ "$code" = "$wanted" ] || fail "$* ended with $code, not $wanted: $said"
    echo "$said" | grep -q -- "$words" || fail "$* did not say '$words': $said"
}
origin=/tmp/origin
log=/var/lib/warren/log/agent.log
serve() {
    : > /tmp/up
    $warren up --data /var/lib/warren --guests /guests --listen 127.0.0.1:0 --snapshot-origin $origin "$@" > /tmp/up 2>&1 &
    up=$!
    until grep -q '^ready' /tmp/up; do kill -0 $up 2> /dev/null || fail "$(cat /tmp/up)"; sleep 0.2; done
}
stop() { kill -TERM $up && wait $up || fail "the stop: $(cat /tmp/up)"; }
one_line() { tr -d '\n ' | sed 's/},{/\n/g'; }
# The key of the snapshot of a kind ('shell', or '' for its runtime's) that is in this state.
key() { $warren --json snapshot ls | one_line | grep "\"function\":\"$1\"" | grep "\"state\":\"$2\"" | sed -n 's/.*"key":"\([0-9a-f]*\)".*/\1/p'; }
# A call that is answered. A worker that emulates all this may be late with its heartbeats; then control says to ask again.
call() {
    until said=$($warren invoke shell --payload '{"name":"Ada"}' 2>&1); do
        echo "$said" | grep -q 'retry  *yes' || fail "a call: $said"
        sleep 0.2
    done
    echo "$said" | grep -q 'Hello, Ada' || fail "a call: $said"
}
starts() { $warren ps --function shell; }
end() {
    for pid in $($warren --json ps --function shell | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'); do kill -9 "$pid"; done
    while $warren --json ps --function shell | grep -q '"pid"'; do sleep 0.2; done
}
restored() {
    end
    call
    starts | grep -qE 'restored|paged' || fail "$1: $(starts)"
}
in_origin() { find $origin/entries -type f -name "*$1*" | grep -q .; }
published() { until in_origin "$1"; do sleep 0.2; done; }

say "what this processor can be is said before anything starts"
mkdir -p "${log%/*}" && : > $log
expect 0 'can see this processor as host, amd-v3' $warren doctor
echo "$said" | grep -q 'not intel-skylake: .*vendor' || fail "doctor: $said"
expect 2 'cannot be intel-skylake: .*vendor' $warren up --data /tmp/other --listen 127.0.0.1:0 --once --cpu-template intel-skylake
expect 2 'there are host, amd-zen, amd-v3' $warren up --data /tmp/other --listen 127.0.0.1:0 --once --cpu-template amd-zon

say "as it is"
serve
expect 0 '"cpu_template": "host"' $warren --json hosts
expect 0 ' host [0-9a-f]\{8\} ' $warren hosts
$warren fn create shell --kind linux --runtime debian-base --code /functions/shell --handler main.greet --timeout-ms 60000 \
    --snap-start published || fail "create shell"
restored "not from its own"
own=$(key shell kept)
expect 0 'processor template *host' $warren snapshot show shell
published "$own"
stop

say "as a template: what was made before is made again, and calls go on meanwhile"
serve --cpu-template amd-v3
expect 0 '"cpu_template": "amd-v3"' $warren --json hosts
calls=0
# (What was late for that is looked at again with the next registration.)
until grep 'outdated snapshots were made again' /var/lib/warren/log/control.log | grep -q 'made=1 left=0'; do
    call
    calls=$((calls + 1))
done
echo "$calls calls meanwhile"
template=$(key shell kept)
[ -n "$template" ] && [ "$template" != "$own" ] || fail "$($warren snapshot ls)"
[ -z "$(key shell outdated)" ] || fail "the old one is still there: $($warren snapshot ls)"
# Its runtime's, too, is another; the one from before is told as such, and nothing begins with it.
[ -n "$(key '' kept)" ] && [ -n "$(key '' outdated)" ] || fail "runtimes: $($warren snapshot ls)"
expect 0 'of another processor' $warren snapshot ls
expect 0 'processor template *amd-v3' $warren snapshot show shell
restored "not from the template's"
grep -q 'another kind of processor' $log && fail "a VMM was given another's: $(grep 'kind of processor' $log)"
published "$template"
in_origin "$own" || fail "the other processor's entry is gone"
stop

say "as it is again: the fleet has it still, and it is not made once more"
made=$(grep -c 'a snapshot was made' $log)
serve
until grep -q 'a snapshot was brought from the fleet' $log; do call; done
until [ "$(key shell kept)" = "$own" ]; do sleep 0.2; done
restored "not from the fleet's"
[ "$(grep -c 'a snapshot was made' $log)" = "$made" ] || fail "made again: $(grep 'a snapshot was made' $log)"
for one in "$own" "$template"; do in_origin "$one" || fail "an entry is gone: $(find $origin/entries -type f)"; done
stop
say "all good"
