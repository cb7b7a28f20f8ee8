# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured: rows of figures for each side, what they mean together, and the goals they are held against."""
import statistics

from sides import Failed

# What computes, and what goes through the kernel; the rest is start-up and scaling.
COMPUTING = ("integer", "memory", "float", "programs")
SYSTEM = ("system", "system, 2 cpus")


def geometric_mean(values):
    values = list(values)
    return statistics.geometric_mean(values) if values else None


class Row:
    def __init__(self, part, group, name):
        self.part, self.group, self.name = part, group, name
        self.runs = {}  # side: [figures of a round]

    def time(self, side, best):
        """Nanoseconds: the median over the rounds of their medians, or the best of all; None for a side not measured."""
        runs = self.runs.get(side)
        if not runs:
            return None
        return min(run["best"] for run in runs) if best else statistics.median(run["median"] for run in runs)


class Results:
    def __init__(self, side_names, best=False):
        self.sides = list(side_names)
        self.best = best
        self.rows = {}
        self.footprints = {}  # name: MiB

    def add(self, part, group, name, side, figures):
        row = self.rows.setdefault((part, group, name), Row(part, group, name))
        for runs in row.runs.values():
            if runs[0]["checksum"] != figures["checksum"]:
                raise Failed(f"{side}: the result of '{name}' is {figures['checksum']}, not {runs[0]['checksum']}")
        row.runs.setdefault(side, []).append(figures)

    def of(self, *groups):
        return [row for row in self.rows.values() if row.group in groups and row.part != "scaling"]

    def groups(self):
        names = []
        for row in self.rows.values():
            if row.part != "scaling" and row.group not in names:
                names.append(row.group)
        return names

    def time(self, row, side):
        return row.time(side, self.best)

    def slowdown(self, row, side):
        """How many times slower than the host; None where one of the two is missing."""
        native, other = self.time(row, "native"), self.time(row, side)
        return other / native if native and other else None

    def gain(self, row):
        """How many times faster Ruche is than the fastest QEMU."""
        ruche = self.time(row, "ruche")
        rivals = [self.time(row, side) for side in self.sides if side.startswith("qemu")]
        rivals = [time for time in rivals if time]
        return min(rivals) / ruche if ruche and rivals else None

    def mean(self, rows, figure):
        return geometric_mean(value for value in map(figure, rows) if value)

    def scaling(self):
        """{(item, side): {threads: ns}}"""
        found = {}
        for row in self.rows.values():
            if row.part == "scaling":
                for side in row.runs:
                    found.setdefault((row.name, side), {})[int(row.group)] = self.time(row, side)
        return found

    def speedup(self, side, few, many):
        """The geometric mean over the items of how much more `many` threads do than `few`."""
        return geometric_mean(times[few] / times[many] for (_, of), times in self.scaling().items()
                              if of == side and few in times and many in times)

    def goals(self):
        """[(what, wanted, measured, met)], as far as the rows for it were measured."""
        computing, system = self.of(*COMPUTING), self.of(*SYSTEM)
        found = []

        def at_least(what, wanted, value):
            if value is not None:
                found.append((what, f"≥ {wanted}", value, value >= wanted))

        def at_most(what, wanted, value):
            if value is not None:
                found.append((what, f"≤ {wanted}", value, value <= wanted))

        def slowdown(row):
            return self.slowdown(row, "ruche")

        at_least("computing, times faster than QEMU", 6, self.mean(computing, self.gain))
        for row in computing:
            if self.gain(row) and self.gain(row) < 1.5 and not (slowdown(row) and slowdown(row) <= 1.2):
                at_least(f"{row.name}, times faster than QEMU", 1.5, self.gain(row))
        at_least("system, times faster than QEMU", 3, self.mean(system, self.gain))
        for row in system:
            if self.gain(row) and self.gain(row) < 1.2:
                at_least(f"{row.name}, times faster than QEMU", 1.2, self.gain(row))
        for row in self.of("start-up"):
            at_least(f"{row.name}, times faster than QEMU", 4, self.gain(row))
        at_most("computing, times slower than native", 1.5, self.mean(computing, slowdown))
        for row in computing:
            limit = 1.25 if row.group == "float" else 3
            if slowdown(row) and slowdown(row) > limit:
                at_most(f"{row.name}, times slower than native", limit, slowdown(row))
        at_least("two virtual processors, times one", 1.85, self.speedup("ruche", 1, 2))
        at_least("eight virtual processors on two, times two", 0.9, self.speedup("ruche", 2, 8))
        at_most("memory beyond the guest's after the suite, MiB", 48, self.footprints.get("suite"))
        at_most("memory beyond the guest's, idle busybox, MiB", 12, self.footprints.get("busybox"))
        return found

    def to_json(self):
        return {
            "rows": [{"part": row.part, "group": row.group, "name": row.name, "runs": row.runs,
                      "ns": {side: self.time(row, side) for side in row.runs}} for row in self.rows.values()],
            "footprints": self.footprints,
            "goals": [{"what": what, "wanted": wanted, "measured": value, "met": met}
                      for what, wanted, value, met in self.goals()],
        }

    def load(self, data):
        """The rows of what to_json() gave."""
        for stored in data["rows"]:
            row = Row(stored["part"], stored["group"], stored["name"])
            row.runs = stored["runs"]
            self.rows[row.part, row.group, row.name] = row
        self.footprints = data["footprints"]
