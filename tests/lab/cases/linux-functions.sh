# Runs on the lab host as root: Linux functions through the whole path, from the CLI to a jailed microVM and back.
# What each runtime does is suite `runtimes`; here are the lives of sandboxes. Runtimes and kernel are in /guests, the functions
# in /functions, hello.wasm beside the programs.
set -u
warren=/opt/warren/bin/warren
say() { echo "== $* ($(cut -d' ' -f1 /proc/uptime) s)"; }
fail() { echo "FAILED: $*"; tail -n 30 /var/lib/warren/log/agent.log; exit 1; }
# What a call says, and with which code it ends.
expect() {
    wanted=$1; words=$2; shift 2
    said=$("$@" 2>&1); code=$?
    [ "$code" = "$wanted" ] || fail "$* ended with $code, not $wanted: $said"
    echo "$said" | grep -q -- "$words" || fail "$* did not say '$words': $said"
}
# Of sandboxes: zygotes come and go.
pids() { $warren --json ps | tr -d '\n ' | sed 's/},{/\n/g' | grep -v '"state":"zygote"' | sed -n 's/.*"pid":\([0-9]*\).*/\1/p' | sort; }
invoke() { function=$1; shift; $warren invoke "$function" "$@"; }

say "Warren starts, and knows what it can"
origin=/tmp/origin
$warren up --data /var/lib/warren --guests /guests --listen 127.0.0.1:0 --snapshot-origin $origin > /tmp/up 2>&1 &
up=$!
until grep -q '^ready' /tmp/up; do kill -0 $up 2> /dev/null || fail "$(cat /tmp/up)"; sleep 0.2; done
expect 0 '"linux"' $warren --json hosts
expect 0 'debian-base' $warren --json hosts

say "a shell bootstrap, cold and warm; the same bytes as its Wasm twin"
$warren fn create shell --kind linux --runtime debian-base --code /functions/shell --handler main.greet \
    --env COLOUR=blue --timeout-ms 60000 || fail "create shell"
$warren fn create wasm /opt/warren/functions/hello.wasm || fail "create wasm"
invoke shell --payload '{"name":"Ada"}' > /tmp/linux || fail "invoke shell: $(cat /tmp/linux)"
say "answered"
invoke wasm --payload '{"name":"Ada"}' > /tmp/wasm || fail "invoke wasm"
cmp /tmp/linux /tmp/wasm || fail "$(cat /tmp/linux /tmp/wasm)"
one=$(pids)
expect 0 'shell 128 main.greet blue' invoke shell --payload '{"do":"about"}'
expect 0 '^3' invoke shell --payload '{"do":"count"}'
[ "$(pids)" = "$one" ] || fail "another sandbox answered"
expect 0 'greeting Ada' $warren logs shell
expect 0 'REPORT' $warren logs shell
say "every thread of its VMM is behind the seal"
threads=0
for pid in $(pids); do
    for thread in /proc/"$pid"/task/*; do
        for line in 'Seccomp:.2' 'NoNewPrivs:.1' 'CapInh:.0*' 'CapPrm:.0*' 'CapEff:.0*' 'CapBnd:.0*' 'CapAmb:.0*'; do
            grep -q "^$line\$" "$thread/status" || fail "not $line: $(cat "$thread/status")"
        done
        threads=$((threads + 1))
    done
    [ -z "$(ls -A "/proc/$pid/root/")" ] || fail "a root that is not empty: $(ls -A "/proc/$pid/root/")"
done
[ "$threads" -gt 5 ] || fail "$threads threads"
say "its errors are its own, and cost no sandbox"
expect 1 'Demo.Error: as asked' invoke shell --payload '{"do":"fail"}'
expect 0 'Hello, Ada' invoke shell --payload '{"name":"Ada"}'
expect 1 '' invoke shell --payload '{"do":"exit"}'
expect 0 'Hello, Ada' invoke shell --payload '{"name":"Ada"}'

say "what was written down meanwhile is where the next sandboxes come from, and no two draw alike"
log=/var/lib/warren/log/agent.log
written_down() {
    until grep 'a snapshot was made' $log | grep -q "$1"; do
        grep 'no snapshot was made' $log && fail "no snapshot of $1"
        sleep 0.5
    done
}
# The sandboxes of a function end, so that its next call finds none.
end() {
    for pid in $($warren --json ps --function "$1" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'); do kill -9 "$pid"; done
    while $warren --json ps --function "$1" | grep -q '"pid"'; do sleep 0.2; done
}
starts() { $warren ps --function "$1"; }
# The jailed machines that wait for a Linux guest: what they are, their process says.
waiting() {
    for pid in $($warren --json ps | tr -d '\n ' | sed 's/},{/\n/g' | grep '"state":"zygote"' | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'); do
        tr '\0' ' ' < /proc/$pid/cmdline 2> /dev/null | grep -q '^warren-vmm linux' && echo "$pid"
    done
}
starts shell | grep -q booted || fail "the first did not boot: $(starts shell)"
written_down shell
# What was made of a runtime, and by what its functions' were: a boot each, or that.
of_runtime() { grep 'the snapshot of a runtime was made' $log; }
begun() { grep 'a snapshot was made' $log | grep -w "$1" | tail -n 1; }
begins_with_runtime() { begun "$1" | grep -q 'is_booted.\{1,3\}false' || fail "$1 was booted to be written down: $(begun "$1")"; }
begins_with_runtime shell
[ "$(of_runtime | wc -l)" = 1 ] || fail "its runtime: $(of_runtime)"
expect 0 '(runtime ' $warren snapshot ls
# What it was made from is said by the key of that.
of=$(of_runtime | sed -n 's/.*key=[^0-9a-f]*\([0-9a-f]\{64\}\).*/\1/p')
expect 0 "made from  *$of, its runtime's" $warren snapshot show shell
of_runtime; begun shell
: > /tmp/drawn
for copy in 1 2 3; do
    end shell
    until [ -n "$(waiting)" ]; do sleep 0.2; done
    before=$(waiting)
    expect 0 '^1 ' invoke shell --payload '{"do":"draw"}'
    set -- $said
    starts shell | grep -q restored || fail "copy $copy was not restored: $(starts shell)"
    adopted=$($warren --json ps --function shell | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
    echo "$before" | grep -qx "$adopted" || fail "copy $copy, $adopted, is none of those that waited: $before"
    tr '\0' ' ' < /proc/$adopted/cmdline | grep -q -- '--devices=block,block,block,rng,vsock' || fail "another machine"
    echo "$2" >> /tmp/drawn
    echo "$3" >> /tmp/drawn
    late=$(($(date +%s) - $4))
    [ "$late" -ge -2 ] && [ "$late" -lt 60 ] || fail "copy $copy is $late s late"
done
[ "$(sort -u /tmp/drawn | wc -l)" = 6 ] || fail "drawn alike: $(cat /tmp/drawn)"
invoke shell --payload '{"name":"Ada"}' > /tmp/again || fail "invoke a copy"
cmp /tmp/again /tmp/wasm || fail "$(cat /tmp/again /tmp/wasm)"
expect 0 'Restore Duration' $warren logs shell

say "what only the fleet has comes page by page, memory and disk, and what cannot be had boots"
until grep 'the fleet has a snapshot' $log | grep -q shell; do sleep 0.2; done
# This host's own copies are gone, and with the agent what it kept of them in memory; and with a zygote its memory.
forget() {
    rm -f /var/lib/warren/agent/snapshots/*.shell.snapshot
    kill -9 "$(pidof warren-agent)"
    until invoke shell --payload '{"name":"Ada"}' > /tmp/again 2>&1; do sleep 0.2; done
    end shell
}
# A sandbox of the function: one that is paged. What its machine is, its process says.
paged() {
    starts shell | grep -q paged || fail "not paged: $(starts shell); $(grep 'not paged' $log)"
    tr '\0' ' ' < "/proc/$(pids_of shell)/cmdline" | grep -q -- '^warren-vmm linux .*--paged' || fail "another machine"
}
pids_of() { $warren --json ps --function "$1" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
forget
# It answers, from memory and from its disk, and no two draw alike; in the full form more of it.
expect 0 '^1 ' invoke shell --payload '{"do":"draw"}'
set -- $said
paged
[ "$(printf '%s\n' "$2" "$3" | cat - /tmp/drawn | sort -u | wc -l)" = 8 ] || fail "drawn alike: $2 $3"
if [ -n "${WARREN_SOAK-}" ]; then
    expect 0 'shell 128 main.greet blue' invoke shell --payload '{"do":"about"}'
    invoke shell --payload '{"name":"Ada"}' > /tmp/again || fail "invoke what is paged"
    cmp /tmp/again /tmp/wasm || fail "$(cat /tmp/again /tmp/wasm)"
fi
say "it is learned, and a pager that is killed is its sandboxes' end by name"
until grep 'what a start touched was learned' $log | grep -q shell; do sleep 0.2; done
kill -9 "$(pidof warren-pager)"
until grep -q 'end: pager: the pager is gone' $log; do sleep 0.1; done
until [ -z "$(pids_of shell)" ]; do sleep 0.1; done
say "what was fetched whole beside it is what the next starts from"
until grep 'a snapshot was brought from the fleet' $log | grep -q shell; do sleep 0.2; done
expect 0 'Hello, Ada' invoke shell --payload '{"name":"Ada"}'
starts shell | grep -q restored || fail "what was brought whole is not used: $(starts shell)"

say "hooks run in copies, and one that fails is the start's failure, by name"
hooked() {
    hook=$1; shift
    $warren fn create hook-$hook --kind linux --runtime debian-base --code /functions/shell --handler main.greet \
        --env HOOK=$hook --timeout-ms 60000 "$@" || fail "create hook-$hook"
}
hooked fail
expect 0 'Hello, Ada' invoke hook-fail --payload '{"name":"Ada"}'
written_down hook-fail
end hook-fail
# Its snapshot is there before it is.
hooked run --snap-start published
expect 0 '"optimization": "on"' $warren --json fn show hook-run
expect 0 ' good' $warren snapshot verify hook-run
expect 0 'kernel' $warren snapshot show hook-run
# The same guest was there before it: no other boot.
for hook in run fail; do begins_with_runtime hook-$hook; begun hook-$hook; done
[ "$(of_runtime | wc -l)" = 1 ] || fail "its runtime was made again: $(of_runtime)"
expect 0 'Hello, Ada' invoke hook-run --payload '{"name":"Ada"}'
starts hook-run | grep -q restored || fail "the first start of what was published booted: $(starts hook-run)"
expect 0 'the hook runs' $warren logs hook-run
expect 1 'Runtime.AfterRestoreError' invoke hook-fail --payload '{"name":"Ada"}'
for hook in run fail; do $warren fn rm hook-$hook || fail "rm hook-$hook"; done

say "a damaged one is removed, the fleet's, damaged as well, ends by name, and the same start boots"
spoil() { while read -r file; do printf 'spoilt' | dd of="$file" bs=1 seek="$1" conv=notrunc 2> /dev/null; done; }
# And with it what it begins with: that is made anew.
ls /var/lib/warren/agent/snapshots/*.shell.snapshot /var/lib/warren/agent/snapshots/*.none..snapshot | spoil 1000000
find $origin/chunks /var/lib/warren/agent/pager/chunks /var/lib/warren/agent/shared-chunks -type f -size +200 | spoil 50000
# Manifests are smaller than most chunks. What either has in memory goes with it.
kill -9 "$(pidof warren-pager)" "$(pidof warren-agent)"
until invoke shell --payload '{"name":"Ada"}' > /tmp/again 2>&1; do sleep 0.2; done
end shell
expect 0 'Hello, Ada' invoke shell --payload '{"name":"Ada"}'
starts shell | grep -q booted || fail "a damaged one was served: $(starts shell)"
grep -q 'a kept snapshot is not served and is removed' $log || fail "it is not told"
grep 'it is not paged' $log | grep -q 'cannot be had' || fail "the chunk is not told: $(grep 'not paged' $log)"
until [ "$(of_runtime | wc -l)" = 2 ] && [ "$(grep 'a snapshot was made' $log | grep -wc shell)" = 2 ]; do
    grep 'no snapshot was made' $log && fail "no snapshot of shell again"
    sleep 0.5
done
begins_with_runtime shell

say "the agent is killed: idle and busy sandboxes go on"
one=$(pids)
kill -9 "$(pidof warren-agent)"
until invoke shell --payload '{"name":"Ada"}' > /tmp/again 2>&1; do sleep 0.2; done
[ "$(pids)" = "$one" ] || fail "another sandbox answered after the kill: $(cat /tmp/again)"
invoke shell --payload '{"do":"nap"}' > /tmp/nap 2>&1 &
until $warren --json ps | grep -q '"state": "busy"'; do sleep 0.1; done
kill -9 "$(pidof warren-agent)"
until invoke shell --payload '{"name":"Ada"}' > /tmp/again 2>&1; do sleep 0.2; done
grep -q 'Hello, Ada' /tmp/again || fail "an answer of another event: $(cat /tmp/again)"
two=$(pids)
for pid in $one; do echo "$two" | grep -qx "$pid" || fail "the busy one was not adopted:" $one, then $two; done

say "a sandbox that dies is named, with its console's last lines"
$warren fn create frail --kind linux --runtime debian-base --code /functions/shell --handler main.greet \
    --timeout-ms 60000 || fail "create frail"
expect 0 'Hello, Ada' invoke frail --payload '{"name":"Ada"}'
victim=$($warren --json ps | tr -d '\n ' | sed 's/},{/\n/g' | sed -n 's/.*"function":"frail".*"pid":\([0-9]*\).*/\1/p')
kill -9 "$victim" || fail "no sandbox of frail: $($warren --json ps)"
until grep -q 'it ended by itself.*console: warren-init' /var/lib/warren/log/agent.log; do sleep 0.2; done
expect 0 'Hello, Ada' invoke shell --payload '{"name":"Ada"}'

say "what cannot be deployed"
expect 5 'NO_SUCH_RUNTIME' $warren fn create odd --kind linux --runtime nothing --code /functions/shell
expect 2 'BAD_REQUEST' $warren fn create odd --kind linux --code /functions/shell
printf 'PK\003\004 and no more' > /tmp/bad.zip
expect 2 'ZIP_MALFORMED' $warren fn create odd --kind linux --runtime debian-base --code /tmp/bad.zip

# In the full form: the largest that may be handed in, and the largest that may come out of it, arrive whole, and one byte more
# does not.
if [ -n "${WARREN_SOAK-}" ]; then
    for kind in zip unpacked; do
        case $kind in zip) bound='50 MiB' ;; unpacked) bound='250 MiB' ;; esac
        say "files of $bound ($kind)"
        expect 2 "$bound" $warren fn create over --kind linux --runtime debian-base --code /zips/$kind-and-a-byte.zip
        [ $kind = zip ] || echo "$said" | grep -q CODE_TOO_LARGE || fail "the reason: $said"
        $warren fn create largest-$kind --kind linux --runtime debian-base --code /zips/$kind.zip --timeout-ms 60000 \
            --memory-mib 256 || fail "create largest-$kind"
        expect 0 "\"$(cat /zips/$kind.sum)\"" invoke largest-$kind --payload '{}'
        say "arrived whole"
        expect 0 "\"$(cat /zips/$kind.sum)\"" invoke largest-$kind --payload '{}'
        $warren fn rm largest-$kind || fail "rm largest-$kind"
    done
fi

say "nothing stays behind"
kill -TERM $up && wait $up || fail "the stop: $(cat /tmp/up)"
left=$(ls /var/lib/warren/agent/run)
[ -z "$left" ] || fail "files of sandboxes are left: $left"
ls -d /sys/fs/cgroup/warren-*/*.* 2> /dev/null && fail "cgroups are left"
say "all good"
