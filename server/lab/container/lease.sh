#!/bin/sh
# Called by udhcpc for the firmware: sets the address, and notes what it is to boot.
# shellcheck shell=dash
# shellcheck disable=SC2154 # udhcpc sets interface, ip, mask, router, boot_file in the environment
set -eu

[ "$1" = bound ] || exit 0
ip -4 addr flush dev "$interface"
ip addr add "$ip/${mask:-24}" dev "$interface"
for gateway in ${router:-}; do ip route replace default via "$gateway" dev "$interface"; done
printf 'boot %s\n' "${boot_file:-${bootfile:-}}" >"$LEASE"
