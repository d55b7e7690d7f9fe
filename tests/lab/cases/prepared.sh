# Runs on the lab host as root: a machine prepared once for a real account, everything else without privilege, and the
# machine as it was before at the end. cgroup v2, no udev, no tools for accounts: the group file itself. With systemd as
# PID 1 (systemd-init.sh) the jailer is its service, else it is started by hand.
set -u
warren=/opt/warren/bin/warren
functions=/opt/warren/functions
samples=/src/tests/functions/data

# systemd's own notes of what it does are no part of the machine.
own_notes=/run/systemd
has_systemd() { [ -d /run/systemd/system ]; }
jailer() { if has_systemd; then systemctl show -P MainPID warren-jailer; else cat /run/warren/jailer.pid; fi; }

say() { echo "== $*"; }
fail() { echo "FAILED: $*"; exit 1; }
as() { who=$1; shift; su "$who" -c "$*"; }
# Everything a preparation could leave: files with owner and mode, accounts, groups of processes, the device.
machine() {
    find /etc /usr /opt /var /run /sys/fs/cgroup -xdev | sort | while read -r path; do
        case $path in /sys/fs/cgroup/*.* | $own_notes | $own_notes/*) continue ;; esac
        stat -c '%n %a %u:%g' "$path"
    done
    cat /etc/passwd /etc/group
    stat -c '%n %a %u:%g' /dev/kvm
    cgroup_options
}
cgroup_options() { sed -n 's/.* - cgroup2 [^ ]* //p' /proc/self/mountinfo | tr ',' '\n' | sort | tr '\n' ' '; }
favored() { case " $(cgroup_options)" in *' favordynmods '*) true ;; *) false ;; esac; }
# The pids of living programs of this name.
running() {
    for status in /proc/[0-9]*/status; do
        grep -qx "Name:.$1" "$status" 2> /dev/null && ! grep -q '^State:.Z' "$status" && basename "${status%/status}"
    done
}
expect() {
    wanted=$1; words=$2; shift 2
    said=$("$@" 2>&1); code=$?
    [ "$code" = "$wanted" ] || fail "$* ended with $code, not $wanted: $said"
    echo "$said" | grep -q -- "$words" || fail "$* did not say '$words': $said"
}

say "two accounts, and a device that is root's alone"
echo 'ada:x:1000:1000::/home/ada:/bin/sh' >> /etc/passwd
echo 'bob:x:1001:1001::/home/bob:/bin/sh' >> /etc/passwd
printf 'root:x:0:\nada:x:1000:\nbob:x:1001:\n' > /etc/group
for user in ada bob; do mkdir -p /home/$user && chown $user:$user /home/$user; done
chown 0:0 /dev/kvm && chmod 600 /dev/kvm
mkdir -p /var/lib /var/tmp /usr/local && chmod 1777 /var/tmp
machine > /tmp/before

say "unprepared, it names the one command"
expect 7 "sudo $warren host prepare --user ada" as ada "$warren up --once"
expect 2 "root needs no preparation" $warren host prepare --user root
expect 2 "no user eve" $warren host prepare --user eve

say "prepare, and again"
favored && fail "favordynmods before anything was prepared"
expect 1 'is too long' /opt/warren/bin/warren-jailer serve --favordynmods --state /run/odd --socket /run/$(printf '%0150d' 0) --agent-uid 1000
favored && fail "favordynmods of a jailer that did not start"
ls -d /sys/fs/cgroup/warren-* 2>/dev/null && fail "cgroups of a jailer that did not start"
rm -r /run/odd
$warren host prepare --user ada --max-sandboxes 8 --max-memory-mib 1024 --favordynmods true || fail "prepare"
favored || fail "no favordynmods: $(cgroup_options)"
[ "$(cgroup_options | sed 's/favordynmods //')" = "$(tail -n 1 /tmp/before)" ] || fail "other options of cgroup2: $(cgroup_options)"
expect 0 '"changed": \[\]' $warren --json host prepare --user ada
expect 2 "prepared for ada" $warren host prepare --user bob
[ "$(stat -c '%a %G' /dev/kvm)" = "660 kvm" ] || fail "$(stat -c '%a %G' /dev/kvm)"
as ada "exec 3<>/dev/kvm" || fail "ada cannot open /dev/kvm"
as bob "exec 3<>/dev/kvm" 2> /dev/null && fail "bob can open /dev/kvm"
[ "$(cat /sys/fs/cgroup/warren-*/memory.max)" = 1073741824 ] || fail "the bound of all jails"

say "as ada, from nothing to answers"
as ada "$warren up --listen 127.0.0.1:0 --once --demo --functions $functions --samples $samples --only hello" ||
    fail "ada's demo"
[ -d /home/ada/.local/share/warren ] || fail "no state in ada's home"
expect 7 "prepared for ada" as bob "$warren up --once --listen 127.0.0.1:0"
expect 0 "none needed: prepared" as ada "$warren doctor"

say "an update while it runs: the jailer is started anew, its sandboxes go on"
as ada "$warren up --listen 127.0.0.1:0" > /tmp/up 2>&1 &
up=$!
until grep -q '^ready' /tmp/up; do
    kill -0 $up 2> /dev/null || fail "$(cat /tmp/up)"
    sleep 0.2
done
as ada "$warren fn create steady $functions/hello.wasm && $warren invoke steady --payload '{\"name\":\"Ada\"}'" || fail "invoke"
first=$(jailer)
sandbox=$(as ada "$warren --json ps --function steady" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
[ -n "$sandbox" ] || fail "no sandbox"
expect 0 "its sandboxes go on" $warren host prepare --user ada --max-sandboxes 9
[ "$(jailer)" != "$first" ] || fail "the same jailer"
kill -0 "$sandbox" || fail "the sandbox ended"
favored || fail "no favordynmods after the update"
expect 0 "Hello, Ada" as ada "$warren invoke steady --payload '{\"name\":\"Ada\"}'"
[ "$(as ada "$warren --json ps --function steady" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')" = "$sandbox" ] || fail "another sandbox answers"
if has_systemd; then
    say "kill -9: systemd starts the next one, which finds the sandbox"
    first=$(jailer)
    kill -9 "$first"
    while [ "$(jailer)" = 0 ] || [ "$(jailer)" = "$first" ]; do sleep 0.2; done
    expect 0 "Hello, Ada" as ada "$warren invoke steady --payload '{\"name\":\"Ada\"}'"
    kill -0 "$sandbox" || fail "the sandbox ended"
    favored || fail "no favordynmods after kill -9"
    # SYS_ADMIN, SETPCAP, SETUID, SETGID, KILL, DAC_OVERRIDE, CHOWN; and no filter that every VMM would inherit.
    grep -q '^CapBnd:.00000000002401e3' /proc/$(jailer)/status || fail "$(grep Cap /proc/$(jailer)/status)"
    grep -q '^Seccomp:.0' /proc/$(jailer)/status || fail "the unit filters system calls"
fi
for pid in $(running warren-agent) $(running warren-control); do
    services="${services:-}x"
    grep -q '^CapEff:.0000000000000000' /proc/$pid/status || fail "$pid has capabilities"
done
[ "${services:-}" = xx ] || fail "not two services: ${services:-none}"
kill -TERM $(running warren) && wait $up || fail "ada's stop: $(cat /tmp/up)"

say "unprepare: the machine as it was"
$warren host unprepare || fail "unprepare"
expect 0 "not prepared" $warren host unprepare
[ -z "$(running 'warren.*')" ] || fail "processes are left: $(running 'warren.*')"
machine > /tmp/after
diff /tmp/before /tmp/after || fail "something is left"
say "all good"
