#!/bin/busybox sh
# Carried to /lab/init: systemd becomes PID 1, with no more units than it takes to run the lab's job and to switch off.
units=/etc/systemd/system
mkdir -p $units
echo 'ID=lab' > /etc/os-release
: > /etc/machine-id
for target in sysinit basic shutdown multi-user; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $target > $units/$target.target
done
echo 'Requires=job.service' >> $units/multi-user.target
ln -s multi-user.target $units/default.target
cat > $units/job.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Environment=PATH=/bin:/usr/bin:/opt/warren/bin HOME=/root TERM=dumb
ExecStart=/bin/sh -c '/bin/sh /lab/job.sh > /dev/console 2>&1 < /dev/null; echo "@lab exit $$?" > /dev/console; poweroff -f'
UNIT
exec /lib/systemd/systemd --log-target=console --log-level=warning --show-status=no
