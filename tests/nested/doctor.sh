#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in the outer machine: what `ruche doctor` says with KVM, with a KVM that may not be opened, and with its module gone.
# Usage: doctor.sh RUCHE RUCHE-VMM
set -u
ruche=$1
export RUCHE_VMM=$2
failed=0

# expect WHO STATUS PATTERN...: runs it as WHO; each pattern must be in a line of what it says.
expect() {
    who=$1 want=$2
    shift 2
    said=$(su "$who" -c "RUCHE_VMM=$RUCHE_VMM $ruche doctor")
    status=$?
    if [ $status != "$want" ]; then
        echo "doctor as $who: status $status, not $want"
        failed=1
    fi
    for pattern; do
        if ! printf '%s\n' "$said" | grep -q -- "$pattern"; then
            echo "doctor as $who: no line '$pattern' in:"
            printf '%s\n' "$said"
            failed=1
        fi
    done
}

expect root 0 '^ok *processor .*AMD-V' '^ok *kvm ' '^ok *engine *kvm works' '^ok *engine *bt works' 'auto takes kvm'
chmod 600 /dev/kvm
expect nobody 0 '^absent *kvm .*may not be opened: Permission denied' '-> .*chgrp kvm' 'auto takes bt' \
    '^absent *engine *kvm does not work: cannot open /dev/kvm: Permission denied'
chown 0:65533 /dev/kvm
chmod 660 /dev/kvm
expect nobody 0 '^absent *kvm .*may not be opened' '-> .*usermod -aG kvm' 'auto takes bt'
chmod 666 /dev/kvm
expect nobody 0 '^ok *kvm ' '^ok *engine *kvm works' 'auto takes kvm'
rmmod kvm_amd
rmmod kvm
expect root 0 '^ok *processor ' '^absent *kvm *there is no /dev/kvm' '-> as root: modprobe kvm-amd' 'auto takes bt'
[ $failed = 0 ] && echo "doctor in the outer machine: all as it should be"
exit $failed
