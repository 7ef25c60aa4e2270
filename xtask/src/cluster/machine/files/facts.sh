# Prints what the table of docs/portability.md says about a virtual machine. The program reads it
# from the journal.
fact() { echo "fact $1: $2"; }
fact systemd "$(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')"
fact runc "$(runc --version | sed -n 's/^runc version //p')"
fact cgroups "$(stat -fc %T /sys/fs/cgroup)"
fact lsm "$(cat /sys/kernel/security/lsm)"
fact apparmor "$(cat /sys/module/apparmor/parameters/enabled)"
fact selinux "$(getenforce 2>/dev/null || echo absent)"
fact disk "$(cat /sys/block/vda/queue/write_cache)"
fact files "$(sed -n 's/^Max open files *\([0-9]*\) *\([0-9]*\).*/\1 \2/p' /proc/$(pidof containerd)/limits)"
