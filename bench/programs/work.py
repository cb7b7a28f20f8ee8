# SPDX-License-Identifier: GPL-2.0-or-later
"""Work for an interpreter: objects, dictionaries, text, regular expressions, JSON, big numbers."""
import hashlib
import json
import re


class Vector:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)


def objects(count):
    total = Vector(0, 0)
    for i in range(count):
        total = total + Vector(i, -i & 7)
    return total.x, total.y


def words(count):
    seen, state = {}, 1
    for _ in range(count):
        state = state * 1103515245 + 12345 & 0x7fffffff
        word = f"w{state % 5003}"
        seen[word] = seen.get(word, 0) + 1
    return sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))[:20]


def expressions(count):
    text = "; ".join(f"key{i}=value-{i * i % 1009}" for i in range(count))
    return sum(int(match.group(2)) for match in re.finditer(r"key(\d+)=value-(\d+)", text))


def documents(count):
    document = {"list": list(range(50)), "text": "abc" * 20, "nested": [{"a": i, "b": str(i)} for i in range(50)]}
    return len("".join(json.dumps(json.loads(json.dumps(document))) for _ in range(count)))


def queens(size, row=0, columns=0, up=0, down=0):
    if row == size:
        return 1
    free, count = ~(columns | up | down) & (1 << size) - 1, 0
    while free:
        bit = free & -free
        free ^= bit
        count += queens(size, row + 1, columns | bit, (up | bit) << 1, (down | bit) >> 1)
    return count


def factorial(count):
    product = 1
    for i in range(2, count):
        product *= i
    return hashlib.sha256(hex(product).encode()).hexdigest()


print(objects(150000), words(150000), expressions(40000), documents(400), queens(8), factorial(3000))
