#!/bin/sh
# Brings up the network: the interface the machine booted from, or else any that gets an address.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

# A switch port that runs the spanning tree protocol forwards nothing for 30 s (IEEE 802.1D, two times 15 s forward
# delay) after its link came up.
DISCOVERS=16
PAUSE_SECONDS=3
CARRIER_TENTHS=150
DRIVER_TENTHS=100

# ethernets: the names of all Ethernet interfaces (ARPHRD_ETHER), the one the machine booted from first.
ethernets() {
  local path wanted
  wanted="$(printf '%s' "$KIT_MAC" | tr - :)"
  for path in "$KIT_SYS"/class/net/*; do
    [ "$(cat "$path/type" 2>/dev/null)" = 1 ] || continue
    if [ "$(cat "$path/address")" = "$wanted" ]; then echo "1 ${path##*/}"; else echo "2 ${path##*/}"; fi
  done | sort | cut -d ' ' -f 2
}

# shellcheck disable=SC2317 # called by within
has_boot_interface() {
  grep -qx "$(printf '%s' "$KIT_MAC" | tr - :)" "$KIT_SYS"/class/net/*/address
}

# shellcheck disable=SC2317 # called by within
has_carrier() {
  [ "$(cat "$KIT_SYS/class/net/$1/carrier" 2>/dev/null)" = 1 ]
}

# within TENTHS COMMAND…: asks again and again until the command is true; 1 when the time is up.
within() {
  local left="$1"
  shift
  until "$@"; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 1))
    sleep 0.1
  done
}

# lease INTERFACE: asks for an address there; udhcpc.sh sets it.
lease() {
  set -- -i "$1" -f -q -n -t "$DISCOVERS" -T "$PAUSE_SECONDS" -s "$KIT_LIB/udhcpc.sh"
  [ -z "${KIT_HOSTNAME:-}" ] || set -- "$@" -x "hostname:$KIT_HOSTNAME"
  udhcpc "$@"
}

ip link set lo up
# An attempt before this one may have left a network that works no more.
rm -f "$KIT_RUN/net"
[ -z "${KIT_HOSTNAME:-}" ] || hostname "$KIT_HOSTNAME"
within "$DRIVER_TENTHS" has_boot_interface || progress "no interface has the MAC $KIT_MAC; trying the others"
interfaces="$(ethernets)"
[ -n "$interfaces" ] || fail "Cannot find a network interface: is its driver in the initrd? $(dmesg | grep -ic firmware) kernel lines speak of firmware"
# All at once: links negotiate side by side.
for interface in $interfaces; do
  ip link set "$interface" up || echo "cannot bring up $interface"
done
tried=''
for interface in $interfaces; do
  # Later ones have had the time of the first already.
  if ! within "$CARRIER_TENTHS" has_carrier "$interface"; then
    tried="$tried $interface (no link)"
    continue
  fi
  if lease "$interface"; then
    progress "$interface has $(sed -n 's/^address //p' "$KIT_RUN/net")"
    exit 0
  fi
  tried="$tried $interface (no DHCP answer)"
done
fail "Cannot get an address:$tried"
