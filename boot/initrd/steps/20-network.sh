#!/bin/sh
# Brings up the network: the interface the machine booted from, or else any that gets an address.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../drivers.sh
. "$KIT_LIB/drivers.sh"

# A switch port that runs the spanning tree protocol forwards nothing for 30 s (IEEE 802.1D, two times 15 s forward
# delay) after its link came up.
DISCOVERS=16
PAUSE_SECONDS=3
# For the driver of the interface it booted from, for that one's link, and then for a link anywhere (10GBASE-T and
# old switches take their time).
DRIVER_TENTHS=100
CARRIER_TENTHS=150
ANY_CARRIER_TENTHS=300

# ethernets: the names of all Ethernet interfaces (ARPHRD_ETHER), the one the machine booted from first.
ethernets() {
  local path
  for path in "$KIT_SYS"/class/net/*; do
    [ "$(cat "$path/type" 2>/dev/null)" = 1 ] || continue
    if [ "$(cat "$path/address")" = "$boot_address" ]; then echo "1 ${path##*/}"; else echo "2 ${path##*/}"; fi
  done | sort | cut -d ' ' -f 2
}

# shellcheck disable=SC2317 # called by within
has_boot_interface() {
  grep -qx "$boot_address" "$KIT_SYS"/class/net/*/address 2>/dev/null && return 0
  # It may hang on USB, or on a bus whose own driver was slow.
  load_new_drivers || true
  return 1
}

has_carrier() {
  [ "$(cat "$KIT_SYS/class/net/$1/carrier" 2>/dev/null)" = 1 ]
}

# shellcheck disable=SC2317 # called by within
has_carrier_somewhere() {
  local interface
  for interface in $(ethernets); do
    if has_carrier "$interface"; then return 0; fi
  done
  return 1
}

# lease INTERFACE: asks for an address there; udhcpc.sh sets it. udhcpc does not tell whether that worked, the note does.
lease() {
  set -- -i "$1" -f -q -n -t "$DISCOVERS" -T "$PAUSE_SECONDS" -s "$KIT_LIB/udhcpc.sh"
  [ -z "${KIT_HOSTNAME:-}" ] || set -- "$@" -x "hostname:$KIT_HOSTNAME"
  udhcpc "$@" && [ -s "$KIT_RUN/net" ]
}

# forget_network: an attempt before this one may have left an address that works no more.
forget_network() {
  local interface
  [ -e "$KIT_RUN/net" ] || return 0
  interface="$(sed -n 's/^interface //p' "$KIT_RUN/net")"
  rm -f "$KIT_RUN/net"
  ip -4 addr flush dev "$interface" || true
}

boot_address="$(printf '%s' "$KIT_MAC" | tr - :)"
ip link set lo up
forget_network
[ -z "${KIT_HOSTNAME:-}" ] || hostname "$KIT_HOSTNAME"
within "$DRIVER_TENTHS" has_boot_interface || progress "no interface has the MAC $KIT_MAC; trying the others"
interfaces="$(ethernets)"
[ -n "$interfaces" ] || fail "Cannot find a network interface: is its driver in the initrd? $(dmesg | grep -ic firmware) kernel lines speak of firmware"
# All at once: links negotiate side by side.
for interface in $interfaces; do
  ip link set "$interface" up || echo "cannot bring up $interface"
done
if ! within "$CARRIER_TENTHS" has_carrier "${interfaces%%
*}"; then
  within "$ANY_CARRIER_TENTHS" has_carrier_somewhere || true
fi
tried=''
# A second look at those without a link: the others' turn took a minute each.
for _ in 1 2; do
  linkless=''
  for interface in $interfaces; do
    if ! has_carrier "$interface"; then
      linkless="$linkless $interface"
    elif lease "$interface"; then
      progress "$interface has $(sed -n 's/^address //p' "$KIT_RUN/net")"
      exit 0
    else
      tried="$tried $interface (no DHCP answer)"
    fi
  done
  interfaces="$linkless"
done
for interface in $interfaces; do tried="$tried $interface (no link)"; done
fail "Cannot get an address:$tried"
