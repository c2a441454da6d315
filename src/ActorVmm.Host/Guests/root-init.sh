#!/bin/sh
# The first process on ActorVmm's Debian disk: no service manager, just a shell. The initramfs has mounted /proc, /sys and /dev.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux LANG=C.UTF-8
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
hostname actorvmm

# Where this line is missing, the disk stays read-only, as its device may be.
grep -q '\brw\b' /proc/cmdline && mount -o remount,rw /
[ -x /etc/actorvmm/start ] && /etc/actorvmm/start

option() { sed -n "s/^\(.* \)\{0,1\}$1=\([^ ]*\).*/\2/p" /proc/cmdline; }
exec </dev/console >/dev/console 2>&1
stty crtscts
rows=$(option actorvmm.rows) columns=$(option actorvmm.columns)
[ -n "$rows" ] && [ -n "$columns" ] && stty rows "$rows" cols "$columns"
shell='bash --noprofile --norc'
if [ "$(option actorvmm.input)" = script ]; then
  # As in the initramfs: without echo and editing, Ctrl-D means "end of input" whenever it arrives; -v shows each line where it runs.
  stty -echo
  shell='bash --noprofile --norc --noediting -v'
fi
export PS1='\w # '

dmesg -n 4
echo
echo "Welcome to ActorVmm: Debian $(cat /etc/debian_version) on $(findmnt -n -o SOURCE /), Linux $(uname -r), $(nproc) vCPU."
echo "'poweroff', 'reboot' or the end of this shell ends it; what you write to this disk stays."
cd /root || cd /
setsid -c -w $shell -i
poweroff
