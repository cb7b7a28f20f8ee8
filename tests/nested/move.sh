#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in the outer machine: a guest with a running counter and a process that checksums is saved under one engine in the
# middle of its work, goes on under the other, and comes back. Usage: move.sh RUCHE RUCHE-VMM KERNEL INITRD
#
# The guest prints "count N" for each N in turn, and "sum bad" should a checksum ever be another than the first one.
set -u
ruche=$1 kernel=$3 initrd=$4
export RUCHE_VMM=$2
console=/tmp/console
: >$console

fail() {
    echo "moving between engines: $*; the console ended with:"
    tail -n 20 $console
    exit 1
}

# wait_for PATTERN SECONDS
wait_for() {
    n=0
    until grep -q -- "$1" $console; do
        kill -0 $machine 2>/dev/null || fail "the machine ended before '$1'"
        n=$((n + 1))
        [ $n -lt $(($2 * 5)) ] || fail "no '$1' within $2 s"
        sleep 0.2
    done
}

last_count() {
    tr -d '\r' <$console | sed -n 's/^count \([0-9]*\)$/\1/p' | tail -n 1
}

# go ENGINE OPTION...: starts or continues the machine there, its console added to the rest.
go() {
    engine=$1
    shift
    "$ruche" run --engine "$engine" --control /tmp/control "$@" </dev/null >>$console 2>&1 &
    machine=$!
}

# counts_on: the counter must pass its present value by 5.
counts_on() {
    wait_for "^count $(($(last_count) + 5))" 120
}

go kvm --net none --cpus 2 --memory 256M --kernel "$kernel" --initrd "$initrd" --cmdline 'console=ttyS0 quiet panic=-1'
wait_for '^count 8' 200
for engine in bt kvm bt kvm; do
    counts_on
    "$ruche" save --end /tmp/control /tmp/saved 2>/tmp/why || fail "cannot save: $(tail -n 1 /tmp/why)"
    wait $machine
    at=$(last_count)
    rm -f /tmp/control
    go $engine --restore /tmp/saved
    counts_on
    echo "saved at count $at, goes on under $engine to count $(last_count)"
done
kill $machine
wait $machine

# Each number once and in order; checksums all along.
tr -d '\r' <$console | sed -n 's/^count //p' | awk '$1 != NR { exit 1 }' || fail "a count is missing or came twice"
grep -q 'sum bad' $console && fail "a checksum was wrong"
grep -q 'sum good' $console || fail "no checksum was made"
grep -qE 'BUG|WARNING|Call Trace|stall' $console && fail "the guest's kernel complains"
echo "moving between engines: to and fro twice, nothing lost"
