#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Work of many kinds with one right result: run on the host and in a guest, it prints the same lines.

Each line is the name of a piece of work and a digest of all it computed.
"""
import bisect
import bz2
import decimal
import fractions
import hashlib
import itertools
import json
import lzma
import math
import multiprocessing
import random
import re
import sqlite3
import struct
import threading
import zlib


def digest(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


def text(count, seed=1):
    source = random.Random(seed)
    return " ".join("".join(source.choices("abcdefghijklmnop", k=source.randint(1, 12))) for _ in range(count))


def sorting():
    source = random.Random(2)
    numbers = [source.getrandbits(64) for _ in range(200000)]
    words = text(50000).split()
    ordered = sorted(numbers)
    assert all(a <= b for a, b in itertools.pairwise(ordered))
    return ordered[::1000], sorted(words, key=lambda w: (len(w), w))[::100], bisect.bisect(ordered, 1 << 63)


def primes():
    limit = 2000000
    sieve = bytearray([1]) * limit
    sieve[0] = sieve[1] = 0
    for n in range(2, math.isqrt(limit) + 1):
        if sieve[n]:
            sieve[n * n::n] = bytes(len(range(n * n, limit, n)))
    assert sum(sieve) == 148933  # primes below two million
    return [n for n in range(limit - 2000, limit) if sieve[n]]


def regular_expressions():
    words = text(40000)
    vowels = re.sub(r"([aeio])\1+", lambda m: m.group(1).upper(), words)
    return (vowels[:5000], len(re.findall(r"\b(\w)\w*\1\b", words)), re.split(r"[aeio]+", words)[:2000],
            re.findall(r"(?:a|b)c+(?=d)", words)[:100])


def big_numbers():
    a, b = 3**20000 + 7, 7**9000 - 11
    quotient, rest = divmod(a, b)
    assert quotient * b + rest == a
    assert pow(a, b - 2, (1 << 521) - 1) == pow(a % ((1 << 521) - 1), b - 2, (1 << 521) - 1)
    decimal.getcontext().prec = 500
    pi = sum(decimal.Decimal(1) / 16**k * (decimal.Decimal(4) / (8 * k + 1) - decimal.Decimal(2) / (8 * k + 4) -
                                           decimal.Decimal(1) / (8 * k + 5) - decimal.Decimal(1) / (8 * k + 6))
             for k in range(400))
    assert str(pi).startswith("3.14159265358979323846264338327950288419716939937510")
    third = sum(fractions.Fraction(1, n) for n in range(1, 1500))
    return hex(a * b), hex(math.factorial(3000)), str(pi), third, hex(math.gcd(a, a * b)), hex(math.comb(5000, 2500))


def floating_point():
    source = random.Random(3)
    results = []
    for _ in range(60000):
        x, y = source.uniform(-1e3, 1e3), source.expovariate(1e-5)
        z = complex(x, y) / complex(y + 1, x)
        # Only what IEEE 754 rounds correctly: the C library may choose its code by the processor.
        results += [x * y, x / y, math.sqrt(y), x % y, round(x, 3), float.hex(x), math.floor(x), z, math.ldexp(x, -1050),
                    math.fsum((x, y, -x))]
    return results[::37], float("1e-320") * 3, [struct.pack("<f", v) for v in (1e-40, 3.4e38, 0.1)]


def documents():
    source = random.Random(4)

    def value(depth):
        if depth == 0:
            return source.choice([None, True, source.random(), source.getrandbits(80), text(3, source.random())])
        if source.random() < 0.5:
            return [value(depth - 1) for _ in range(6)]
        return {f"k{i} \u00e9\U0001f41d": value(depth - 1) for i in range(6)}

    tree = value(5)
    written = json.dumps(tree, sort_keys=True)
    assert json.loads(written) == tree
    return written, json.dumps(tree, ensure_ascii=False, indent=1)


def compression():
    data = text(150000).encode() + random.Random(5).randbytes(300000)
    for module in (zlib, bz2, lzma):
        assert module.decompress(module.compress(data)) == data
    return hashlib.sha256(bz2.compress(data)).hexdigest(), zlib.crc32(data), zlib.adler32(data)


def hashes():
    data = random.Random(6).randbytes(1 << 20)
    names = ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b", "blake2s", "shake_128")
    made = [hashlib.new(n, data) for n in names]
    return ([h.hexdigest(32) if h.name.startswith("shake") else h.hexdigest() for h in made],
            hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 20000).hex(), hashlib.scrypt(b"w", salt=b"s", n=4096, r=8, p=1))


def database():
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, n REAL)")
    base.executemany("INSERT INTO t (word, n) VALUES (?, ?)", ((w, len(w) / 7) for w in text(60000).split()))
    base.execute("CREATE INDEX i ON t (word)")
    base.execute("UPDATE t SET n = n * 2 WHERE word LIKE '%ab%'")
    base.execute("DELETE FROM t WHERE id % 7 = 3")
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return base.execute("SELECT substr(word, 1, 2) AS p, count(*), sum(n), max(word) FROM t GROUP BY p "
                        "ORDER BY 2 DESC, 1").fetchall()


def threads():
    """Threads that hand work around under locks and conditions: no piece of it is lost or done twice."""
    lock, done, work = threading.Condition(), [], list(range(3000))

    def worker():
        while True:
            with lock:
                if not work:
                    return
                piece = work.pop()
            square = piece * piece
            with lock:
                done.append(square)
                lock.notify_all()

    workers = [threading.Thread(target=worker) for _ in range(8)]
    for w in workers:
        w.start()
    with lock:
        assert lock.wait_for(lambda: len(done) == 3000, 300)
    for w in workers:
        w.join()
    return sorted(done)


def cube(n):
    return n**3 % 1000003


def processes():
    with multiprocessing.Pool(4) as pool:
        return pool.map(cube, range(20000), chunksize=50)


if __name__ == "__main__":
    for job in (sorting, primes, regular_expressions, big_numbers, floating_point, documents, compression, hashes,
                database, threads, processes):
        print(job.__name__, digest(job()), flush=True)
