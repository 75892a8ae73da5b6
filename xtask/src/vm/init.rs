//! The guest's first process, and what it and the initramfs agree on.

/// A module's name on each line, in the order of loading.
pub(super) const ORDER: &str = "/lib/modules/order";
/// The script with the command, outside /host lest a file there is hidden by it.
pub(super) const COMMAND: &str = "/command";
/// What the command leaves here goes onto the disk, if the guest has one.
pub(super) const OUT: &str = "/out";
/// Before the command's status, on the console.
pub(super) const MARK: &str = "@@ exit ";

/// The script. The kernel's log and the mark go to the first serial port, what the command writes
/// goes to the second, so that neither can be taken for the other.
pub(super) const SCRIPT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
out=/dev/ttyS1
# No translation of line ends: bytes come out as they were written.
stty -F $out raw
# A module that is refused is told among the output, where it is seen.
while read -r module; do
	insmod "/lib/modules/$module.ko" >$out 2>&1
done </lib/modules/order
# As large a table as on hosts with several GiB; the kernel goes by the guest's little memory.
echo 65536 >/proc/sys/net/netfilter/nf_conntrack_buckets
echo 262144 >/proc/sys/net/netfilter/nf_conntrack_max
ip link set lo up
hostname guest
cd /host
sh /command >$out 2>&1 </dev/null
status=$?
# The host looks whether the archive is whole.
[ ! -b /dev/vda ] || { tar -C /out -cf /dev/vda . && sync; } >$out 2>&1
# stty waits until all output is out. The mark goes through printk, which is done when it returns.
stty -F $out raw
echo "<0>@@ exit $status" >/dev/kmsg
reboot -f
"#;

#[cfg(test)]
mod tests {
    use super::{COMMAND, MARK, ORDER, OUT, SCRIPT};

    #[test]
    fn the_script_keeps_to_what_is_agreed() {
        for agreed in [ORDER, COMMAND, OUT, MARK] {
            assert!(SCRIPT.contains(agreed), "{agreed}");
        }
    }
}
