#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in the outer machine: a guest with a running counter and a process that checksums moves, without stopping, from one
# catalogue to another and back, each time to the engine named. Usage: migrate.sh RUCHE RUCHE-VMM KERNEL INITRD
#
# The guest prints "count N" for each N in turn, and "sum bad" should a checksum ever be another than the first one.
set -u
ruche=$1 kernel=$3 initrd=$4
export RUCHE_VMM=$2
here=a there=b

consoles() {
    cat /tmp/[ab]/ruche/machines/*/console | tr -d '\r'
}

fail() {
    echo "migration between engines: $*; the console ended with:"
    consoles | tail -n 20
    exit 1
}

# on SIDE WORD...: ruche on one of the two sides.
on() {
    side=$1
    shift
    XDG_DATA_HOME=/tmp/$side XDG_RUNTIME_DIR=/tmp/run-$side "$ruche" "$@"
}

last_count() {
    consoles | sed -n 's/^count \([0-9]*\)$/\1/p' | sort -n | tail -n 1
}

# counts_to NUMBER
counts_to() {
    n=0
    until [ "$(last_count)" -ge "$1" ] 2>/dev/null; do
        n=$((n + 1))
        [ $n -lt 1000 ] || fail "no count $1"
        sleep 0.2
    done
}

mkdir -m 700 /tmp/run-a /tmp/run-b
on a create box --engine kvm --net none --cpus 2 --memory 256M --kernel "$kernel" --initrd "$initrd" \
    --cmdline 'console=ttyS0 quiet panic=-1' || fail "cannot create"
on a start box || fail "cannot start"
counts_to 8
for engine in bt kvm kvm bt bt; do
    line=/tmp/run-$there/ruche/receive.sock
    on $there receive --engine $engine 2>/tmp/receive &
    receiver=$!
    n=0
    until grep -q "$line" /proc/net/unix; do
        n=$((n + 1))
        [ $n -lt 300 ] || fail "nobody waits for the machine"
        sleep 0.2
    done
    on $here migrate box "unix:$line" 2>/tmp/why || fail "cannot move: $(tail -n 1 /tmp/why), $(tail -n 1 /tmp/receive)"
    wait $receiver || fail "not received: $(tail -n 1 /tmp/receive)"
    at=$(last_count)
    counts_to $((at + 5))
    echo "$(tail -n 1 /tmp/why); moved at count $at, under $engine to count $(last_count)"
    was=$here here=$there there=$was
done
on $here stop --force --timeout 0 box || fail "cannot stop"

# Each number once; checksums all along.
consoles | sed -n 's/^count //p' | sort -n | awk '$1 != NR { exit 1 }' || fail "a count is missing or came twice"
consoles | grep -q 'sum bad' && fail "a checksum was wrong"
consoles | grep -q 'sum good' || fail "no checksum was made"
consoles | grep -qE 'BUG|WARNING|Call Trace|stall' && fail "the guest's kernel complains"
echo "migration between engines: five moves, nothing lost"
