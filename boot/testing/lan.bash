# Inside the namespaces of steps.bats: lays a cable, starts the servers on one end of it, runs TEXT as the machine on
# the other. Everything here ends with the namespaces.
# shellcheck shell=bash

mount --make-rprivate /
mount -t sysfs sysfs /sys
mount --bind "$BATS_TEST_TMPDIR/sys/class/tty/console/active" /sys/class/tty/console/active
mount --bind "$BATS_TEST_TMPDIR/resolv.conf" /etc/resolv.conf
ip link set lo up
ip link add name lan0 type veth peer name machine0
ip link set machine0 address "${KIT_MAC//-/:}"
ip address add 10.77.0.1/24 dev lan0
ip link set lan0 up

cat >"$BATS_TEST_TMPDIR/udhcpd.conf" <<CONF
start 10.77.0.50
end 10.77.0.50
interface lan0
lease_file $BATS_TEST_TMPDIR/leases
pidfile $BATS_TEST_TMPDIR/udhcpd.pid
# Known beforehand: for an address it has not leased yet udhcpd first listens two seconds for who has it.
static_lease ${KIT_MAC//-/:} 10.77.0.50
option subnet 255.255.255.0
option router 10.77.0.1
option dns 10.77.0.1
option domain lab.test
CONF
touch "$BATS_TEST_TMPDIR/leases"
"$APPLETS/udhcpd" -f -S "$BATS_TEST_TMPDIR/udhcpd.conf" >/dev/null 2>&1 3>&- &
# shellcheck source=machine.bash
. "$BOOT_FOLDER/testing/machine.bash"
start_server "$FOLDER" 10.77.0.1 8080

# The initrd's own shell and programs.
export PATH="$APPLETS"
sh -c "$(printf '. "$KIT_LIB/%s.sh"\n' lib json disk identity ask report run)
$TEXT"
