#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in the outer machine: Debian boots on two processors under engine kvm, uses its disk and its network, and powers off.
# Usage: debian.sh RUCHE RUCHE-VMM; /dev/vda has the image, below ruche/images.
set -u
ruche=$1
export RUCHE_VMM=$2
export XDG_DATA_HOME=/data
mkdir -p /data/ruche /image
mount -t ext4 -o ro /dev/vda /image || exit 1
ln -s /image/ruche/images /data/ruche/images
console=/tmp/console
mkfifo /tmp/keys
: >$console

fail() {
    echo "debian on kvm: $*; the console ended with:"
    tail -n 40 $console
    exit 1
}

# wait_for TEXT SECONDS: until the console has said it.
wait_for() {
    n=0
    begin=$(cut -d. -f1 /proc/uptime)
    until grep -q -- "$1" $console; do
        kill -0 $machine 2>/dev/null || fail "the machine ended before '$1'"
        n=$((n + 1))
        [ $n -lt "$2" ] || fail "no '$1' within $2 s"
        sleep 1
    done
    echo "$1: after $(($(cut -d. -f1 /proc/uptime) - begin)) s"
}

# The words are split so that the terminal's echo of a command is not taken for its output.
ask() {
    printf '%s\n' "$1" >&3
}

# The guest's gateway leads to this machine's own address.
printf '#!/bin/sh\nread -r line\necho "you said $line"\n' >/tmp/answer
chmod +x /tmp/answer
nc -ll -p 7070 -e /tmp/answer &

timeout 800 "$ruche" run --engine kvm --cpus 2 --memory 1G debian </tmp/keys >$console 2>&1 &
machine=$!
exec 3>/tmp/keys
wait_for 'debian:~#' 600
ask 'echo processors $(nproc)'
wait_for 'processors 2' 60
ask 'dd if=/dev/vda of=/tmp/read bs=1M count=32 2>/dev/null && dd if=/tmp/read of=/var/tmp/written conv=fsync 2>/dev/null && cmp /tmp/read /var/tmp/written && echo disk $((6 * 7))'
wait_for 'disk 42' 120
ask 'ip -4 -br addr show scope global; exec 4<>/dev/tcp/10.0.2.2/7070 && echo hello >&4 && read -r answer <&4 && echo "network $answer"'
wait_for 'network you said hello' 60
ask 'dmesg -l emerg,alert,crit,err; echo log $((40 + 2))'
wait_for 'log 42' 60
ask 'poweroff'
wait $machine
status=$?
[ $status = 0 ] || fail "it ended with status $status"
tail -n 25 $console
echo "debian on kvm: booted on two processors, used disk and network, powered off"
