/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conformance: port and device memory accesses of each width and direction, as the machine sees them. */
#include "conform.h"

#include <string.h>

#include "base/util.h"

#define PORT HARNESS_PORT
#define MMIO HARNESS_MMIO

/* An access that is expected. `offset` is from the first scratch port or register. */
struct want {
    uint16_t offset;
    uint8_t size;
    bool write;
    uint64_t value; /* what is written, or what was read */
};

#define IN(offset, size, value)                                                                              \
    {                                                                                                        \
        offset, size, false, value                                                                           \
    }
#define OUT(offset, size, value)                                                                             \
    {                                                                                                        \
        offset, size, true, value                                                                            \
    }

struct io_case {
    const uint8_t *code, *end;
    bool port;
    struct want want[16];
};

static void fill_scratch(struct harness *h)
{
    for (unsigned i = 0; i < HARNESS_PORT_COUNT; i++)
        h->ports[i] = (uint8_t)(0xa0 + i);
    for (unsigned i = 0; i < 256; i++)
        h->mmio[i] = (uint8_t)(0x10 + i);
}

static void check_accesses(struct conform *c, const struct io_case *io)
{
    unsigned n = 0;
    for (; n < ARRAY_SIZE(io->want) && io->want[n].size; n++) {
        const struct want *w = &io->want[n];
        const struct harness_access *a = &c->h->access[n];
        if (n >= c->h->access_count)
            break;
        conform_equal(c, a->port, io->port, "access to a port");
        conform_equal(c, a->address, (io->port ? PORT : MMIO) + w->offset, "address");
        conform_equal(c, a->size, w->size, "size");
        conform_equal(c, a->write, w->write, "write");
        conform_equal(c, a->value, w->value, "value");
    }
    conform_equal(c, c->h->access_count, n, "number of accesses");
}

static void run_io(struct conform *c, const struct io_case *io, bool wide)
{
    struct x86_state s;
    const uint8_t pattern[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    uint64_t size = (uint64_t)(io->end - io->code);
    if (wide)
        conform_prepare_long(c, io->code, size, &s);
    else
        conform_prepare(c, 0, io->code, size, &s);
    s.gpr[R_RSI] = s.gpr[R_RDI] = AT_DATA;
    s.gpr[R_RBX] = MMIO;
    s.gpr[R_RDX] = PORT;
    harness_write(c->h, AT_DATA, pattern, sizeof(pattern));
    fill_scratch(c->h);
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_EXITED, 20000);
    check_accesses(c, io);
}

/* Ends the guest with AL. */
#define END "; out %al, $0xf4; 9: jmp 9b"

CODE(port_read, "code32",
     "in %dx, %al; mov %al, 0x100000; add $2, %dx; in %dx, %ax; mov %ax, 0x100002; add $2, %dx; in %dx, %eax;"
     "mov %eax, 0x100004" END);
CODE(port_write, "code32",
     "mov $0x11223344, %eax; out %al, %dx; add $2, %dx; out %ax, %dx; add $2, %dx; out %eax, %dx" END);
CODE(port_strings, "code32",
     "cld; outsb; outsw; outsl; mov $3, %ecx; rep outsb; mov $2, %ecx; rep outsw; mov $2, %ecx; rep "
     "outsl" END);
CODE(port_read_strings, "code32",
     "cld; insb; insw; insl; mov $3, %ecx; rep insb; mov $2, %ecx; rep insw; mov $1, %ecx; rep insl" END);

static void ports(struct conform *c)
{
    static const struct io_case io = {
        port_read, port_read_end, true, {IN(0, 1, 0xa0), IN(2, 2, 0xa3a2), IN(4, 4, 0xa7a6a5a4)}};
    uint64_t got = 0;
    run_io(c, &io, false);
    harness_read(c->h, AT_DATA, &got, sizeof(got));
    conform_equal(c, got, UINT64_C(0xa7a6a5a4a3a202a0), "what the guest has read");
}

static void port_writes(struct conform *c)
{
    static const struct io_case io = {
        port_write, port_write_end, true, {OUT(0, 1, 0x44), OUT(2, 2, 0x3344), OUT(4, 4, 0x11223344)}};
    run_io(c, &io, false);
}

static void outs(struct conform *c)
{
    static const struct io_case io = {port_strings,
                                      port_strings_end,
                                      true,
                                      {OUT(0, 1, 1), OUT(0, 2, 0x0302), OUT(0, 4, 0x07060504), OUT(0, 1, 8),
                                       OUT(0, 1, 9), OUT(0, 1, 10), OUT(0, 2, 0x0c0b), OUT(0, 2, 0x0e0d),
                                       OUT(0, 4, 0x100f), OUT(0, 4, 0)}};
    const uint8_t zero[16] = {0};
    harness_write(c->h, AT_DATA + 16, zero, sizeof(zero));
    run_io(c, &io, false);
}

static void ins(struct conform *c)
{
    static const struct io_case io = {port_read_strings,
                                      port_read_strings_end,
                                      true,
                                      {IN(0, 1, 0xa0), IN(0, 2, 0xa1a0), IN(0, 4, 0xa3a2a1a0), IN(0, 1, 0xa0),
                                       IN(0, 1, 0xa0), IN(0, 1, 0xa0), IN(0, 2, 0xa1a0), IN(0, 2, 0xa1a0),
                                       IN(0, 4, 0xa3a2a1a0)}};
    static const uint8_t want[] = {0xa0, 0xa0, 0xa1, 0xa0, 0xa1, 0xa2, 0xa3, 0xa0, 0xa0,
                                   0xa0, 0xa0, 0xa1, 0xa0, 0xa1, 0xa0, 0xa1, 0xa2, 0xa3};
    run_io(c, &io, false);
    if (memcmp(harness_peek(c->h, AT_DATA, sizeof(want)), want, sizeof(want)) != 0)
        conform_fail(c, "what was read is not in memory");
}

CODE(mmio_read, "code64",
     "mov (%rbx), %al; mov 2(%rbx), %ax; mov 4(%rbx), %eax; mov 8(%rbx), %rax; movzbl 16(%rbx), %eax;"
     "movswq 18(%rbx), %rax; movslq 20(%rbx), %rax; mov %rax, (%rdi)" END);
CODE(mmio_write, "code64",
     "mov $0x1122334455667788, %rax; mov %al, (%rbx); mov %ax, 2(%rbx); mov %eax, 4(%rbx); mov %rax, 8(%rbx);"
     "movb $0x5a, 16(%rbx); movl $0x12345678, 20(%rbx); movq $-2, 24(%rbx)" END);
CODE(mmio_modify, "code64",
     "addb $1, (%rbx); orw $0x8000, 2(%rbx); xorl $-1, 4(%rbx); notl 8(%rbx); mov $7, %eax; xchg %eax, "
     "12(%rbx);"
     "movzbl (%rdi), %ecx" END);
CODE(mmio_strings, "code64",
     "cld; mov %rbx, %rdi; mov $2, %ecx; rep movsb; mov $2, %ecx; rep movsw; mov $0x55667788, %eax; mov $2, "
     "%ecx; "
     "rep stosl; mov %rbx, %rsi; mov $0x100100, %edi; mov $2, %ecx; rep movsw" END);

static void device_reads(struct conform *c)
{
    static const struct io_case io = {mmio_read,
                                      mmio_read_end,
                                      false,
                                      {IN(0, 1, 0x10), IN(2, 2, 0x1312), IN(4, 4, 0x17161514),
                                       IN(8, 8, UINT64_C(0x1f1e1d1c1b1a1918)), IN(16, 1, 0x20),
                                       IN(18, 2, 0x2322), IN(20, 4, 0x27262524)}};
    run_io(c, &io, true);
}

static void device_writes(struct conform *c)
{
    static const struct io_case io = {mmio_write,
                                      mmio_write_end,
                                      false,
                                      {OUT(0, 1, 0x88), OUT(2, 2, 0x7788), OUT(4, 4, 0x55667788),
                                       OUT(8, 8, UINT64_C(0x1122334455667788)), OUT(16, 1, 0x5a),
                                       OUT(20, 4, 0x12345678), OUT(24, 8, UINT64_MAX - 1)}};
    run_io(c, &io, true);
}

static void device_modifies(struct conform *c)
{
    static const struct io_case io = {mmio_modify,
                                      mmio_modify_end,
                                      false,
                                      {IN(0, 1, 0x10), OUT(0, 1, 0x11), IN(2, 2, 0x1312), OUT(2, 2, 0x9312),
                                       IN(4, 4, 0x17161514), OUT(4, 4, 0xe8e9eaeb), IN(8, 4, 0x1b1a1918),
                                       OUT(8, 4, 0xe4e5e6e7), IN(12, 4, 0x1f1e1d1c), OUT(12, 4, 7)}};
    run_io(c, &io, true);
}

static void device_strings(struct conform *c)
{
    static const struct io_case io = {mmio_strings,
                                      mmio_strings_end,
                                      false,
                                      {OUT(0, 1, 1), OUT(1, 1, 2), OUT(2, 2, 0x0403), OUT(4, 2, 0x0605),
                                       OUT(6, 4, 0x55667788), OUT(10, 4, 0x55667788), IN(0, 2, 0x0201),
                                       IN(2, 2, 0x0403)}};
    run_io(c, &io, true);
}

/* Nobody answers: all ones, and writes are lost. */
CODE(nobody, "code32",
     "mov $0x500, %edx; in %dx, %eax; cmp $-1, %eax; jne 1f; mov 0xd0020000, %eax; cmp $-1, %eax; jne 1f;"
     "mov %eax, 0xd0020000; out %eax, %dx; mov $0, %al; jmp 2f; 1: mov $1, %al; 2:" END);

static void nobody_answers(struct conform *c)
{
    static const struct io_case io = {nobody, nobody_end, true, {{0}}};
    run_io(c, &io, false);
    conform_equal(c, c->h->exit_value, 0, "all ones were read");
}

const struct conform_case conform_io_cases[] = {
    {"IN of each width", 1, ports},
    {"OUT of each width", 1, port_writes},
    {"OUTS of each width, single and repeated", 1, outs},
    {"INS of each width, single and repeated", 1, ins},
    {"device memory: reads of each width", 1, device_reads},
    {"device memory: writes of each width", 1, device_writes},
    {"device memory: read, modify, write", 1, device_modifies},
    {"device memory: string instructions", 1, device_strings},
    {"what nobody answers reads as ones", 1, nobody_answers},
    {NULL, 0, NULL},
};
