#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a random C program of some thousand lines without undefined behaviour, whose output is a line of digits a function.

usage: generate_c.py SEED [FUNCTIONS]

Any right compiler on any right machine gives it the same output, at any level of optimisation (floating-point
contraction apart). It is as much a test of the compiler's run as of the program's own.
"""
import random
import sys

HEAD = """#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item { uint64_t key; uint32_t count; int16_t step; uint8_t kind; double weight; char name[11]; };

static uint64_t words[256];
static struct item items[64];
static unsigned depth;

static inline uint64_t rotate(uint64_t v, unsigned by) { return v << (by & 63) | v >> (-by & 63); }
static inline uint64_t divide(uint64_t a, uint64_t b) { return b ? a / b : a; }
static inline uint64_t rest(uint64_t a, uint64_t b) { return b ? a % b : b; }
static uint64_t bits(double d) { uint64_t v; memcpy(&v, &d, 8); return d != d ? 0 : v; }
static double real(uint64_t v) { return (double)(int64_t)(v >> 11) / 1048576.0 + 0.5; }
static int by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}
"""

TAIL = """
int main(void)
{
    for (unsigned i = 0; i < 256; i++)
        words[i] = rotate(i * UINT64_C(0x9e3779b97f4a7c15), i);
    for (unsigned i = 0; i < 64; i++) {
        items[i] = (struct item){rotate(words[i], 7), i * 77, (int16_t)(i * 911), (uint8_t)i, i / 3.0, ""};
        snprintf(items[i].name, sizeof items[i].name, "%x", (unsigned)words[i * 3]);
    }
    for (unsigned round = 0; round < 40; round++)
        for (unsigned i = 0; i < sizeof functions / sizeof functions[0]; i++) {
            uint64_t v = functions[i](words[(round + i) & 255], words[(i * 7) & 255], i + round);
            words[(i + round * 13) & 255] ^= v;
            if (round == 39)
                printf("%u %016" PRIx64 "\\n", i, v);
        }
    qsort(items, 64, sizeof items[0], by_key);
    for (unsigned i = 0; i < 64; i++)
        printf("%016" PRIx64 " %u %d %u %a %s\\n", items[i].key, items[i].count, items[i].step, items[i].kind,
               items[i].weight, items[i].name);
    return 0;
}
"""

source = random.Random(int(sys.argv[1]))
functions = int(sys.argv[2]) if len(sys.argv) > 2 else 80


def value():
    return source.choice(["a", "b", "n", "v", "w", f"words[{source.randrange(256)}]", "words[a & 255]", "words[v >> 56]",
                          f"UINT64_C({source.getrandbits(source.choice((3, 8, 31, 64))):#x})", "items[w & 63].key",
                          f"items[{source.randrange(64)}].count", "(uint64_t)items[v & 63].step",
                          "bits(items[b & 63].weight)", "strlen(items[n & 63].name)"])


def expression(level):
    if level == 0:
        return value()
    left, right = expression(level - 1), expression(source.randrange(level))
    shapes = [f"({left} {source.choice('+-*^|&')} {right})", f"rotate({left}, (unsigned){right})",
              f"divide({left}, {right})", f"rest({left}, {right})", f"({left} {source.choice(['<', '>=', '==', '!='])} {right})",
              f"(uint64_t)((int64_t){left} >> {source.randrange(1, 63)})", f"({left} < {right} ? {right} : {left})",
              f"(uint{source.choice((8, 16, 32))}_t){left}", f"(uint64_t)(int32_t)(uint32_t){left}",
              f"(uint64_t)__builtin_popcountll({left})", f"__builtin_bswap64({left})",
              f"(uint64_t)(((unsigned __int128){left} * {right}) >> 64)",
              f"bits(real({left}) {source.choice('+-*/')} real({right}))", f"~{left}"]
    return source.choice(shapes)


def statement(indent, level, callee):
    pad = "    " * indent
    kind = source.randrange(10 if level else 4)
    if kind == 0:
        return [f"{pad}words[{source.randrange(256)}] = {expression(2)};"]
    if kind == 1:
        field, kinds = source.choice([("key", "uint64_t"), ("count", "uint32_t"), ("kind", "uint8_t")])
        return [f"{pad}items[{source.choice('abvwn')} & 63].{field} += ({kinds}){expression(2)};"]
    if kind in (2, 3):
        return [f"{pad}{source.choice('vw')} {source.choice(['=', '^=', '+='])} {expression(3)};"]
    body = [line for _ in range(source.randint(1, 3)) for line in statement(indent + 1, level - 1, callee)]
    if kind == 4:
        return [f"{pad}for (unsigned i = 0; i < {source.randint(1, 9)}; i++) {{", f"{pad}    w += v ^ i;", *body, f"{pad}}}"]
    if kind == 5:
        other = [line for _ in range(2) for line in statement(indent + 1, level - 1, callee)]
        return [f"{pad}if ({expression(2)} > {expression(1)}) {{", *body, f"{pad}}} else {{", *other, f"{pad}}}"]
    if kind == 6:
        cases = [f"{pad}case {c}: v += {expression(1)}; {source.choice(['break', 'w++; break'])};"
                 for c in sorted(source.sample(range(16), 9))]
        return [f"{pad}switch ({value()} & 15) {{", *cases, f"{pad}default: w ^= {expression(1)};", f"{pad}}}"]
    if kind == 7:
        return [f"{pad}items[v & 63].weight = real({expression(1)}) {source.choice('+-*/')} real({expression(1)});"]
    if kind == 8:
        return [f"{pad}{{", f"{pad}    struct item t = items[a & 63];", f"{pad}    t.key ^= {expression(1)};",
                f"{pad}    t.name[w % 10] = (char)('a' + v % 26);", f"{pad}    items[b & 63] = t;", f"{pad}}}"]
    if callee:
        return [f"{pad}if (depth < 6) {{", f"{pad}    depth++;",
                f"{pad}    v ^= f{source.randrange(callee)}({expression(1)}, {expression(1)}, n + 1);", f"{pad}    depth--;",
                f"{pad}}}"]
    return body


print(HEAD)
for number in range(functions):
    print(f"static uint64_t f{number}(uint64_t a, uint64_t b, uint64_t n)\n{{\n    uint64_t v = a ^ n, w = b;")
    for _ in range(source.randint(3, 8)):
        print("\n".join(statement(1, 2, number)))
    print("    return v + w;\n}\n")
names = ", ".join(f"f{number}" for number in range(functions))
print(f"static uint64_t (*const functions[])(uint64_t, uint64_t, uint64_t) = {{{names}}};")
print(TAIL)
