#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance suite on every engine: on bt here, on kvm in the outer machine; a table of each case with both results.

usage: conformance.py --exit-program FILE --conform FILE --time-test FILE --guest-run FILE [--only SUITE]...
                      GUEST=FILE:PROCESSORS:SECONDS...

Suite "shadow" is suite "host" once more, on a KVM that is told to do without nested paging.

Every case must pass on bt. A case may fail on kvm only as known.txt says, with its reason: the outer machine's processor is
QEMU's translator, and KVM has limits of its own. What known.txt names and does not happen is a failure too.
"""
import argparse
import os
import re
import shlex
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
RESULT = re.compile(r"^(ok|not ok) \d+ - (.*)$")
SKIPPED = re.compile(r"^# skipped: (.*): (.*?)$")
RIP = re.compile(r"^RIP: got ([0-9a-f]+), want ([0-9a-f]+)$")
NESTED_SECONDS = 900


class Result:
    def __init__(self, good, details):
        self.good = good
        self.details = details
        self.word = "ok" if good else "FAILED"
        self.note = ""


class Suite:
    """One program: its results by case name, where a name that comes again is numbered."""

    def __init__(self):
        self.results = {}
        self.skipped = {}
        self.rest = []

    def read(self, lines):
        details = []
        for line in lines:
            match = RESULT.match(line)
            skipped = SKIPPED.match(line)
            if match:
                name, n = match.group(2), 2
                while name in self.results:
                    name, n = f"{match.group(2)} ({n})", n + 1
                self.results[name] = Result(match.group(1) == "ok", details)
                details = []
            elif skipped:
                self.skipped[skipped.group(1)] = skipped.group(2)
            elif line.startswith("# "):
                details.append(line[2:])
        self.rest = details
        return self


class Known:
    def __init__(self, line):
        suite, cases, detail, self.reason = (part.strip() for part in line.split(" | "))
        self.suite, self.detail = re.compile(suite), re.compile(detail)
        self.cases = [case.removeprefix("? ") for case in cases.split(" & ")]
        self.may_pass = {case.removeprefix("? ") for case in cases.split(" & ") if case.startswith("? ")}
        self.used = set()  # suites and cases

    def unused(self, suites):
        """What it names and did not happen."""
        return [f"{suite}: {case}: {self.detail.pattern}" for suite in suites if self.suite.fullmatch(suite)
                for case in self.cases if (suite, case) not in self.used and case not in self.may_pass]


def read_known():
    with open(os.path.join(HERE, "known.txt"), encoding="ascii") as f:
        return [Known(line.strip()) for line in f if line.strip() and not line.startswith("#")]


def measured(wrong):
    """To a RIP its distance from what it should be is added."""
    match = RIP.match(wrong)
    return f"{wrong} [{int(match.group(1), 16) - int(match.group(2), 16):+d}]" if match else wrong


def excuse(suite, name, result, known):
    """The reasons that explain all that was wrong, or None."""
    reasons = []
    entries = [k for k in known if k.suite.fullmatch(suite) and name in k.cases]
    # The other lines say where, not what.
    for wrong in [d for d in result.details if "got" in d or "wrong" in d] or result.details[:1] or [""]:
        entry = next((k for k in entries if k.detail.search(measured(wrong))), None)
        if not entry:
            return None
        entry.used.add((suite, name))
        if entry.reason not in reasons:
            reasons.append(entry.reason)
    return "; ".join(reasons)


def programs(args, engine, place):
    """Name and words of each program; `place` gives a file's path where it will run."""
    chosen = [("host", [place(args.conform), "--engine", engine, "--other", "bt"]), ("time", [place(args.time_test), engine])]
    for guest in args.guests:
        name, what = guest.split("=", 1)
        path, cpus, seconds = what.rsplit(":", 2)
        slow = 4 if engine == "kvm" else 1
        chosen.append((name, [place(args.guest_run), "--engine", engine, "--cpus", cpus, "--seconds",
                              str(int(seconds) * slow), place(path)]))
    chosen.append(("shadow", chosen[0][1]))
    return [(name, words) for name, words in chosen if not args.only or name in args.only]


def run_here(args):
    suites = {}
    for name, words in programs(args, "bt", str):
        if name == "shadow" and "host" in suites:
            suites[name] = suites["host"]
            continue
        p = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, timeout=1200)
        suites[name] = Suite().read(p.stdout.splitlines())
    return suites


def run_nested(args):
    def place(path):
        return "/t/" + os.path.basename(path)

    script, add = "", []
    for name, words in programs(args, "kvm", place):
        if name == "shadow":
            script += "rmmod kvm_amd && insmod /modules/kvm-amd.ko npt=0; "
        script += f"echo '== {name}'; {' '.join(map(shlex.quote, words))}; "
    for path in {args.conform, args.time_test, args.guest_run, *(g.split("=", 1)[1].rsplit(":", 2)[0] for g in args.guests)}:
        add += ["--add", f"{path}={place(path)}"]
    command = [sys.executable, os.path.join(HERE, "nested.py"), "--exit-program", args.exit_program, "--timeout",
               str(NESTED_SECONDS), *add, "--", "sh", "-c", script + "true"]
    p = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    parts = re.split(r"^== (.*)$", p.stdout.decode(errors="replace").replace("\r", ""), flags=re.MULTILINE)
    suites = {parts[i]: Suite().read(parts[i + 1].splitlines()) for i in range(1, len(parts), 2)}
    if p.returncode:
        print(f"the outer machine ended with {p.returncode}:\n{parts[-1][-2000:]}")
    return suites, p.returncode == 0


def compare(name, here, there, known, rows):
    """Adds the rows of one suite; gives the number of failures."""
    bad = 0
    for case in [*here.results, *(c for c in there.results if c not in here.results)]:
        bt, kvm = here.results.get(case), there.results.get(case)
        bt_word, kvm_word, note = bt.word if bt else "none", kvm.word if kvm else "none", ""
        if not kvm and case in there.skipped:
            kvm_word, note = "left out", there.skipped[case]
        elif not (bt and kvm) or not kvm.good:
            wrong = kvm if bt and kvm else Result(False, ["no result" if bt else "only on kvm"])
            note = excuse(name, case, wrong, known) or ""
            kvm_word = "known" if note else kvm_word
        failed = bt_word != "ok" and bool(bt or not note) or kvm_word not in ("ok", "known", "left out")
        bad += failed
        rows.append((name, case, bt_word, kvm_word, note, failed, kvm.details if failed and kvm else []))
    if not here.results and not there.results:
        rows.append((name, "(no results)", "missing", "missing", "", True, there.rest))
        bad += 1
    return bad


def print_rows(rows):
    width = min(70, max(len(row[1]) for row in rows))
    for name, case, bt, kvm, note, failed, details in rows:
        print(f"{'!' if failed else ' '} {name:<11} {case:<{width}}  {bt:<8} {kvm:<8} {note}".rstrip())
        for line in details:
            print(f"      {line}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for option in ("--exit-program", "--conform", "--time-test", "--guest-run"):
        parser.add_argument(option, required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("guests", nargs="*")
    args = parser.parse_args()
    known, rows = read_known(), []
    # Both at once: the outer machine is one thread.
    here = {}
    on_bt = threading.Thread(target=lambda: here.update(run_here(args)))
    on_bt.start()
    there, bad = run_nested(args)
    bad = 0 if bad else 1
    on_bt.join()
    print(f"  {'suite':<11} case, result on bt, result on kvm")
    for name, _ in programs(args, "bt", str):
        bad += compare(name, here.get(name, Suite()), there.get(name, Suite()), known, rows)
    print_rows(rows)
    for entry in known:
        for unused in entry.unused([name for name, _ in programs(args, "bt", str)]):
            print(f"! known.txt: this did not happen: {unused}")
            bad += 1
    words = [row[3] for row in rows]
    print(f"{len(rows)} cases; on kvm {words.count('ok')} passed, {words.count('known')} failed for known reasons, "
          f"{words.count('left out')} were left out; {bad} failures")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
