#!/bin/busybox sh
# Called by udhcpc with what the DHCP server said.
case $1 in
  deconfig) ip addr flush dev "$interface" ;;
  bound|renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    for gateway in $router; do ip route replace default via "$gateway" dev "$interface" && break; done
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    echo "$interface has $ip/$mask${router:+, gateway $router}${dns:+, name server $dns}"
    ;;
esac
