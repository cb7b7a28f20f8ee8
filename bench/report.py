# SPDX-License-Identifier: GPL-2.0-or-later
"""The results as text: tables in Markdown that read well on a terminal too, and a chart in SVG."""
import math
from xml.sax.saxutils import escape


def format_time(ns):
    if ns is None:
        return "–"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{number(ns / size)} {unit}"
    return f"{number(ns)} ns"


def number(value):
    """Three digits that matter."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def table(head, rows):
    """A Markdown table with its columns aligned; the first is of words, the others are of numbers."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
             for row in [head, *rows]]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, rule)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def title(side):
    return {"native": "native", "ruche": "Ruche"}.get(side) or side.replace("qemu-", "QEMU ")


def rows_table(results):
    """Times, how much slower than native each side is, and how much faster Ruche than the fastest QEMU."""
    shown = [side for side in results.sides if any(side in row.runs for row in results.of(*results.groups()))]
    others = [side for side in shown if side != "native"] if "native" in shown else []
    gains = "ruche" in shown and any(side.startswith("qemu") for side in shown)
    head = ["", *map(title, shown), *(f"{title(side)} / native" for side in others)]
    head += ["Ruche faster"] if gains else []
    lines = []
    for group in results.groups():
        rows = results.of(group)
        for row in rows:
            line = [row.name, *(format_time(results.time(row, side)) for side in shown)]
            line += [number(results.slowdown(row, side)) for side in others]
            lines.append(line + ([number(results.gain(row))] if gains else []))
        line = [f"**{group}**", *("" for _ in shown)]
        line += [number(results.mean(rows, lambda row, side=side: results.slowdown(row, side))) for side in others]
        lines.append(line + ([number(results.mean(rows, results.gain))] if gains else []))
    return table(head, lines) if lines else ""


def scaling_table(results):
    """What more threads do, each in a virtual processor of its own, in times of what one does."""
    found = results.scaling()
    names = list(dict.fromkeys(name for name, _ in found))
    if not names:
        return ""
    head = ["", *(f"{title(side)}, {count}" for side in results.sides for count in (2, 8))]

    def cell(name, side, count):
        times = found.get((name, side), {})
        return number(times[1] / times[count]) if 1 in times and count in times else number(None)

    lines = [[name, *(cell(name, side, count) for side in results.sides for count in (2, 8))] for name in names]
    lines.append(["**mean**", *(number(results.speedup(side, 1, count)) for side in results.sides for count in (2, 8))])
    return table(head, lines)


def goals_table(results):
    lines = [[what, wanted, number(value), "yes" if met else "no"] for what, wanted, value, met in results.goals()]
    return table(["goal", "wanted", "measured", "met"], lines) if lines else ""


def machine_lines(host, versions):
    lines = [f"{host['processor']}, {host['cpus']} processors, Linux {host['kernel']}; guest kernel {host['guest kernel']}; "
             f"load before: {host['load']:.1f}"]
    return lines + [f"{title(side)}: {version}" for side, version in versions.items() if version]


# --- the chart ---------------------------------------------------------------------------------------------------------

COLOURS = {"ruche": "#d98e04", "qemu": ("#7a8ba3", "#b4bfcd")}
ROW, BAR, LEFT, WIDTH, RIGHT, TOP = 34, 9, 150, 620, 60, 64


def colour(side, rivals):
    return COLOURS["ruche"] if side == "ruche" else COLOURS["qemu"][rivals.index(side) % 2]


def chart(results, caption):
    """Bars on a logarithmic scale: how many times slower than native each side is, group by group."""
    others = [side for side in results.sides if side != "native"]
    rivals = [side for side in others if side != "ruche"]
    entries = []
    for group in results.groups():
        rows = [row for row in results.of(group) if any(results.slowdown(row, side) for side in others)]
        if rows:
            entries.append((group, None))
            entries += [(row.name, row) for row in rows]
    if not entries:
        return ""
    values = [results.slowdown(row, side) for _, row in entries if row for side in others]
    values = [value for value in values if value]
    low = 2.0 ** math.floor(math.log2(min([*values, 0.5]) / 1.3))
    high = 2.0 ** math.ceil(math.log2(max([*values, 2.0])))

    def x(value):
        return LEFT + WIDTH * math.log(value / low) / math.log(high / low)

    height = TOP + ROW * len(entries) + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{LEFT + WIDTH + RIGHT}" height="{height}" fill="#ffffff"/>',
           f'<text x="10" y="22" font-size="15" fill="#222222">{escape(caption)}</text>']
    for i, side in enumerate(others):
        out.append(f'<rect x="{10 + 110 * i}" y="34" width="12" height="12" fill="{colour(side, rivals)}"/>'
                   f'<text x="{27 + 110 * i}" y="44" fill="#222222">{escape(title(side))}</text>')
    out += scale_lines(low, high, x, height)
    for i, (name, row) in enumerate(entries):
        out += entry_bars(results, name, row, others, rivals, TOP + ROW * i, x)
    return "\n".join([*out, "</svg>"]) + "\n"


def scale_lines(low, high, x, height):
    value = low
    while value <= high:
        strong = value == 1
        yield (f'<line x1="{x(value):.1f}" y1="{TOP}" x2="{x(value):.1f}" y2="{height - 30}" '
               f'stroke="{"#444444" if strong else "#dddddd"}"/>'
               f'<text x="{x(value):.1f}" y="{height - 12}" text-anchor="middle" fill="#444444">'
               f'{"native" if strong else f"{value:g}×" if value > 1 else f"1/{1 / value:g}"}</text>')
        value *= 2


def entry_bars(results, name, row, others, rivals, y, x):
    if row is None:
        yield f'<text x="10" y="{y + ROW - 8}" font-weight="bold" fill="#222222">{escape(name)}</text>'
        return
    yield f'<text x="{LEFT - 8}" y="{y + ROW / 2 + 4}" text-anchor="end" fill="#222222">{escape(name)}</text>'
    for i, side in enumerate(others):
        value = results.slowdown(row, side)
        if not value:
            continue
        start, end = sorted((x(1), x(value)))
        label = f'x="{end + 3:.1f}"' if value >= 1 else f'x="{start - 3:.1f}" text-anchor="end"'
        top = y + 3 + i * (BAR + 1)
        yield (f'<rect x="{start:.1f}" y="{top}" width="{max(end - start, 1):.1f}" height="{BAR}" '
               f'fill="{colour(side, rivals)}"/>'
               f'<text {label} y="{top + BAR - 1}" font-size="9" fill="#444444">{number(value)}</text>')
