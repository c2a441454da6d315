#!/bin/busybox sh
# The first process of ActorVmm's guest. Everything here is busybox.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run

# In the order in which they need each other.
while read -r module; do insmod "/modules/$module"; done </modules.list

hostname actorvmm

# actorvmm.net=dhcp on the command line: every interface asks for an address, and the guest goes on once each has one, or none answers.
if grep -q '\(^\| \)actorvmm.net=dhcp\( \|$\)' /proc/cmdline; then
  ip link set lo up
  mkdir -p /etc
  for interface in $(cd /sys/class/net && ls -d eth* 2>/dev/null); do
    ip link set "$interface" up
    udhcpc -i "$interface" -s /dhcp.script -n -q -t 5 -T 1 -A 0 2>&1 | sed 's/^udhcpc: //'
  done
fi

[ -x /init.local ] && /init.local

option() { sed -n "s/^\(.* \)\{0,1\}$1=\([^ ]*\).*/\2/p" /proc/cmdline; }

# The device of the partition with a PARTUUID, as the kernel makes them: SIGNATURE-NUMBER of an MBR, or the GUID of a GPT's entry.
bytes() { dd if="/dev/$1" bs=1 skip="$2" count="$3" 2>/dev/null | od -A n -v -t x1 | tr -d ' \n'; }
reversed() { echo "$1" | sed 's/../& /g' | awk '{ for (i = NF; i > 0; i--) printf "%s", $i }'; }
partition() {
  wanted=$(echo "$1" | tr A-F a-f)
  for file in /sys/block/*/*/partition; do
    [ -e "$file" ] || continue
    number=$(cat "$file") part=${file%/partition} disk=${file#/sys/block/}
    part=${part##*/} disk=${disk%%/*}
    sector=$(cat /sys/block/$disk/queue/logical_block_size)
    if [ "$(bytes $disk $sector 8)" = 4546492050415254 ]; then # "EFI PART"
      table=$((0x$(reversed $(bytes $disk $((sector + 72)) 8)) * sector))
      guid=$(bytes $disk $((table + (number - 1) * 0x$(reversed $(bytes $disk $((sector + 84)) 4)) + 16)) 16)
      id=$(reversed ${guid:0:8})-$(reversed ${guid:8:4})-$(reversed ${guid:12:4})-${guid:16:4}-${guid:20:12}
    else
      id=$(reversed $(bytes $disk 440 4))-$(printf %02x $number)
    fi
    [ "$id" = "$wanted" ] && echo /dev/$part && return
  done
}

# root= on the command line: the system on that disk goes on from here.
root=$(option root)
if [ -n "$root" ]; then
  case $root in
    /dev/*) device=$root ;;
    LABEL=*|UUID=*) device=$(findfs "$root") ;;
    PARTUUID=*) device=$(partition "${root#PARTUUID=}") ;;
    *) echo "init: root=$root: this initramfs knows /dev/NAME, LABEL=, UUID= and PARTUUID=" ;;
  esac
  init=$(option init)
  mode=ro; grep -q '\(^\| \)rw\( \|$\)' /proc/cmdline && mode=rw
  mkdir -p /newroot
  if [ -n "$device" ] && mount -t "$(option rootfstype | grep . || echo ext4)" -o $mode "$device" /newroot; then
    for mounted in dev proc sys; do mkdir -p /newroot/$mounted 2>/dev/null; mount --move /$mounted /newroot/$mounted; done
    umount /tmp /run
    [ $mode = rw ] && [ -f /etc/resolv.conf ] && mkdir -p /newroot/etc && cp /etc/resolv.conf /newroot/etc/resolv.conf
    exec switch_root -c /dev/console /newroot "${init:-/sbin/init}"
  fi
  echo "init: root=$root cannot be mounted; this shell is in the initramfs"
fi

# Job control needs a controlling terminal: setsid makes a session, cttyhack makes the console its terminal. RTS/CTS lets a full line
# buffer hold the sender back, so that a paste of any size arrives whole.
stty -F /dev/console crtscts
rows=$(option actorvmm.rows) columns=$(option actorvmm.columns)
[ -n "$rows" ] && [ -n "$columns" ] && stty -F /dev/console rows "$rows" cols "$columns"
shell='sh'
if [ "$(option actorvmm.input)" = script ]; then
  # Lines come from a file or pipe. Without echo the shell reads whole lines instead of editing them, so that the Ctrl-D at the end means
  # "end of input" whenever it arrives; -v shows each line where it runs, as if it had been typed.
  stty -F /dev/console -echo
  shell='sh -v'
fi

# From here on only warnings of the kernel come between the user's lines.
dmesg -n 4
echo
echo "Welcome to ActorVmm: Linux $(uname -r), $(nproc) vCPU, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB."
echo "'poweroff -f' or the end of this shell ends it."
cd /root
setsid cttyhack $shell
poweroff -f
