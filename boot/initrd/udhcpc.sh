#!/bin/sh
# Called by udhcpc with each DHCP event: sets the address, routes and name servers and notes them in net.
# shellcheck shell=dash
# shellcheck disable=SC2154 # udhcpc sets interface, ip, mask, router, dns, domain, lease, serverid in the environment
set -eu

# shellcheck source=lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

[ "$1" = bound ] || [ "$1" = renew ] || exit 0

ip -4 addr flush dev "$interface"
ip addr add "$ip/${mask:-24}" dev "$interface"
[ -z "${mtu:-}" ] || ip link set "$interface" mtu "$mtu" || true
# udhcpc gives a list; the first router is the preferred one (RFC 2132 §3.5).
for gateway in ${router:-}; do
  # A router outside the subnet (/32 leases) is reached on the link. Replaced, because there may be one from an attempt
  # on another interface.
  [ "${mask:-24}" != 32 ] || ip route replace "$gateway" dev "$interface"
  ip route replace default via "$gateway" dev "$interface"
  break
done

{
  [ -z "${domain:-}" ] || echo "search $domain"
  for server in ${dns:-}; do echo "nameserver $server"; done
} >"$KIT_RUN/resolv.conf"
cat "$KIT_RUN/resolv.conf" 2>/dev/null >/etc/resolv.conf || true

# Last, and in one go: who sees it may use the network.
{
  echo "interface $interface"
  echo "address $ip"
  echo "prefix ${mask:-24}"
  echo "gateway ${router:-}"
  echo "dns ${dns:-}"
  echo "lease ${lease:-}"
  echo "server ${serverid:-}"
} >"$KIT_RUN/net.new"
mv "$KIT_RUN/net.new" "$KIT_RUN/net"
