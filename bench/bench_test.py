#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the benchmark itself: that wrong results and clocks are found, that the arithmetic is right, and that every item
of the suite runs."""
import json
import os
import subprocess
import unittest
import xml.etree.ElementTree

import report
import results
import sides

SUITE = os.environ["RUCHE_BENCH"]


def figures(ns, checksum="1"):
    return {"median": ns, "best": ns, "checksum": checksum}


def example():
    found = results.Results(["native", "ruche", "qemu-7.2", "qemu-10.0"])
    for name, group, times in (("sieve", "integer", (10, 20, 60, 40)), ("fib", "integer", (10, 80, 90, 100)),
                               ("syscall", "system", (100, 50, 150, 200))):
        for side, ns in zip(found.sides, times):
            found.add("suite", group, name, side, figures(ns))
    for side, times in (("native", (10, 5, 5)), ("ruche", (20, 10, 12.5))):
        for threads, ns in zip((1, 2, 8), times):
            found.add("scaling", str(threads), "sieve", side, figures(ns))
    return found


class Suite(unittest.TestCase):
    def test_every_item_runs(self):
        items = subprocess.run([SUITE, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[:-1]
        self.assertGreater(len(items), 35)
        names = [item.split()[0] for item in items]
        found = sides.run_lines("native", [SUITE, "--ms", "1", ",".join(names)], 300)
        self.assertEqual(list(found), names)
        self.assertEqual(int(found["sieve"]["checksum"], 16), 78498)
        self.assertEqual(int(found["fib"]["checksum"], 16), 514229)
        self.assertEqual(found["matmul-sse"]["checksum"], found["matmul-avx2"]["checksum"])
        for name, result in found.items():
            self.assertGreater(int(result["checksum"], 16), 0, name)
            self.assertLessEqual(result["best"], result["median"], name)

    def test_threads_agree(self):
        names = "sieve,crc32,interpreter,nbody,hash-table"
        alone = sides.run_lines("native", [SUITE, "--ms", "1", names], 60)
        together = sides.run_lines("native", [SUITE, "--ms", "20", "--threads", "3", names], 60)
        self.assertEqual({name: result["checksum"] for name, result in alone.items()},
                         {name: result["checksum"] for name, result in together.items()})


class Lines(unittest.TestCase):
    def run_script(self, script):
        return sides.run_lines("a side", ["sh", "-c", script], 20)

    def test_results_among_other_lines(self):
        found = self.run_script("echo a kernel says; echo begin 5000; echo x 2.5 ab 2.0; echo four words of it; echo end 6000")
        self.assertEqual(found, {"x": {"median": 2.5, "checksum": "ab", "best": 2.0}})

    def test_wrong_result(self):
        with self.assertRaisesRegex(sides.Failed, "a side: 'x' is wrong"):
            self.run_script("echo begin 5000; echo x wrong; echo end 6000")

    def test_early_end(self):
        with self.assertRaisesRegex(sides.Failed, "ended too early(.|\n)*panic"):
            self.run_script("echo begin 5000; echo panic")

    def test_slow_clock(self):
        with self.assertRaisesRegex(sides.Failed, "clock"):
            self.run_script("echo begin 5000000000; sleep 1; echo end 5100000000")

    def test_nothing_is_left(self):
        with self.assertRaises(sides.Failed):
            sides.run_lines("a side", ["sleep", "1000"], 0.2)


class Results(unittest.TestCase):
    def test_different_checksums(self):
        found = example()
        with self.assertRaisesRegex(sides.Failed, "qemu-7.2: the result of 'sieve' is 2, not 1"):
            found.add("suite", "integer", "sieve", "qemu-7.2", figures(1, "2"))

    def test_median_and_best(self):
        for best, wanted in ((False, 30), (True, 20)):
            found = results.Results(["ruche"], best)
            for ns in (40, 20, 30):
                found.add("suite", "integer", "sieve", "ruche", figures(ns))
            self.assertEqual(found.time(found.of("integer")[0], "ruche"), wanted)

    def test_ratios(self):
        found = example()
        sieve, fib = found.of("integer")
        self.assertEqual((found.slowdown(sieve, "ruche"), found.gain(sieve)), (2, 2))
        self.assertAlmostEqual(found.mean([sieve, fib], lambda row: found.slowdown(row, "ruche")), 4)
        self.assertEqual(found.speedup("ruche", 1, 2), 2)
        self.assertEqual(found.speedup("ruche", 2, 8), 0.8)

    def test_goals(self):
        goals = {what: met for what, _, _, met in example().goals()}
        self.assertEqual(goals, {
            "computing, times faster than QEMU": False,
            "fib, times faster than QEMU": False,
            "system, times faster than QEMU": True,
            "computing, times slower than native": False,
            "fib, times slower than native": False,
            "two virtual processors, times one": True,
            "eight virtual processors on two, times two": False,
        })

    def test_json_keeps_everything(self):
        found, again = example(), results.Results(example().sides)
        again.load(json.loads(json.dumps(found.to_json())))
        self.assertEqual(again.to_json(), found.to_json())


class Report(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual([report.number(value) for value in (None, 0.123, 9.94, 9.96, 99.4, 99.6)],
                         ["–", "0.12", "9.94", "10.0", "99.4", "100"])
        self.assertEqual(report.format_time(1234567), "1.23 ms")

    def test_tables(self):
        text = report.rows_table(example())
        self.assertRegex(text, r"\| sieve +\| +10.0 ns \| +20.0 ns \| +60.0 ns \| +40.0 ns \| +2.00 \|")
        self.assertEqual(len({len(line) for line in text.splitlines()}), 1)
        self.assertIn("QEMU 10.0 / native", text)

    def test_chart_is_xml(self):
        root = xml.etree.ElementTree.fromstring(report.chart(example(), "a < b"))
        bars = [rect for rect in root if rect.tag.endswith("rect")]
        self.assertEqual(len(bars), 1 + 3 + 3 * 3)


unittest.main(verbosity=2)
