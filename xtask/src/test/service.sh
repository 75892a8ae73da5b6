# Runs in a guest: the package in a Debian whose init is systemd, which starts the service; it
# captures by eBPF, with its three capabilities and within its sandbox.
set -eu
mkdir -p /system /mnt
mount -t tmpfs -o size=2g system /system
tar xzf system.tar.gz -C /system
cp flowlog.deb /system/opt/
# Debian keeps kprobes to root; with this, CAP_PERFMON is enough.
echo 2 > /proc/sys/kernel/perf_event_paranoid
nft 'table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }'
ip link set lo up

# Programs of the system, not those of the guest that have the same names.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /system/proc
chroot /system /usr/bin/dpkg --install /opt/flowlog.deb
cat > /system/opt/init.sh <<'END'
cd /system
umount proc
mount -t proc proc proc
mount -t sysfs sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
ln -s /dev/null etc/systemd/system/getty.target
export container=flowlog-test
exec chroot . /lib/systemd/systemd --log-target=journal --show-status=no
END
unshare --mount --pid --ipc --uts --cgroup --fork --kill-child sh -e /system/opt/init.sh &
parent=$!

# Waits until a command succeeds, for a minute.
until_ok() {
    tries=60
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "in vain: $*"; return 1; }
        sleep 1
    done
}
# Runs a script beside systemd.
inside() {
    init=$(tr -d ' ' < /proc/$parent/task/$parent/children)
    nsenter --target="$init" --mount --pid --ipc --uts --cgroup --root --wd="/proc/$init/root" \
        /bin/sh -ec "$1"
}
booted() { inside 'systemctl is-system-running' 2> /dev/null | grep -qE 'running|degraded'; }
lines() { [ "$(inside "grep -cF '[$1]' /var/log/flowlog/flowlog.log")" -ge 6 ]; }

until_ok booted
inside 'systemctl enable --now flowlog || { journalctl --no-pager -u flowlog; exit 1; }'
for _ in 1 2 3 4 5 6; do ping -c 1 -W 5 127.0.0.1 > /dev/null; done
conntrack -F
until_ok lines NEW
until_ok lines DESTROY
inside '
    journalctl --no-pager -u flowlog | grep -F "runs by eBPF (kprobe)"
    systemctl stop flowlog
    ! systemctl is-failed flowlog'
