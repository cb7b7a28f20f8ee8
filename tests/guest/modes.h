/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What modes.S leaves behind and what it should be. A fault is vector << 16 | error code. */
#ifndef TESTS_GUEST_MODES_H
#define TESTS_GUEST_MODES_H

#define MODES_AT      0x7000 /* where the results lie: real mode must reach them */
#define MODES_LOW     0x9000 /* where code for real and virtual-8086 mode is copied to */
#define MODES_RESULTS 128

/* The guest's own GDT while in legacy modes. */
#define M_CODE32     0x08
#define M_DATA32     0x10
#define M_CODE16     0x18
#define M_DATA16     0x20
#define M_SMALL      0x28 /* limit 0xfff */
#define M_DOWN       0x30 /* expand-down, limit 0xfff */
#define M_READONLY   0x38
#define M_EXECONLY   0x40
#define M_UCODE32    0x4b
#define M_UDATA32    0x53
#define M_TSS        0x58
#define M_TSS_OTHER  0x60
#define M_TASK_GATE  0x6b
#define M_CALL_GATE  0x73
#define M_LDT        0x78
#define M_ABSENT     0x80
#define M_GDT_LENGTH 17
#define M_LDT_DATA   0x04 /* first entry of the LDT */

#define MODES_LIST(X)                                                                                        \
    X(0, 0x10, "32-bit protected mode: data segment")                                                        \
    X(1, 0, "leaving long mode: EFER.LMA is clear")                                                          \
    X(2, 0x60000, "32-bit #UD")                                                                              \
    X(3, 0x300000, "32-bit INT")                                                                             \
    X(4, 0x0, "32-bit #DE")                                                                                  \
    X(5, 0x5a5a5a5a, "segment with a limit: last bytes")                                                     \
    X(6, 0xd0000, "#GP: one byte over the limit")                                                            \
    X(7, 0xd0000, "#GP: far over the limit")                                                                 \
    X(8, 0xc0000, "#SS: over the limit of SS")                                                               \
    X(9, 0xd0000, "#GP: expand-down segment, low offset")                                                    \
    X(10, 0x5a5a5a5a, "expand-down segment, high offset")                                                    \
    X(11, 0xd0000, "#GP: write to a read-only segment")                                                      \
    X(12, 0xd0000, "#GP: read from an execute-only segment")                                                 \
    X(13, 0xd0000, "#GP: write to the code segment")                                                         \
    X(14, 0xd0000, "#GP: null segment")                                                                      \
    X(15, 0xb0080, "#NP: absent segment")                                                                    \
    X(16, 0x5a5a5a5a, "segment from the LDT")                                                                \
    X(20, 0x1514, "DAA")                                                                                     \
    X(21, 0x9588, "DAS")                                                                                     \
    X(22, 0x0205, "AAA")                                                                                     \
    X(23, 0x0203, "AAS")                                                                                     \
    X(24, 0x0603, "AAM")                                                                                     \
    X(25, 0x030f, "AAM 16")                                                                                  \
    X(26, 0x003f, "AAD")                                                                                     \
    X(27, 0x0, "#DE: AAM 0")                                                                                 \
    X(28, 0, "PUSHA stores the first ESP")                                                                   \
    X(29, 0x24, "POPA loads all but ESP")                                                                    \
    X(30, 0x10013, "ARPL")                                                                                   \
    X(31, 0x12345678, "16-bit address wraps")                                                                \
    X(32, 0x100055aa, "LES")                                                                                 \
    X(33, 0x50000, "#BR: BOUND")                                                                             \
    X(34, 0xff0000, "BOUND within")                                                                          \
    X(35, 0x40000, "#OF: INTO")                                                                              \
    X(36, 0x10000, "LOOP with CX")                                                                           \
    X(37, 0x7fffffff, "INC and DEC of one byte")                                                             \
    X(40, 0x4b, "ring 3: CS")                                                                                \
    X(41, 0x300000, "ring 3: INT through a gate of DPL 3")                                                   \
    X(42, 0xd018a, "#GP: ring 3 through a gate of DPL 0")                                                    \
    X(43, 0xd0000, "#GP: CLI in ring 3")                                                                     \
    X(44, 0x11112222, "call gate: first parameter")                                                          \
    X(45, 0x33334444, "call gate: second parameter")                                                         \
    X(46, 0x8, "call gate: CS inside")                                                                       \
    X(47, 0x0, "call gate: stack after RET 8")                                                               \
    X(50, 0x60, "task switch by JMP: TR")                                                                    \
    X(51, 0xcafe, "task switch by JMP: registers come back")                                                 \
    X(52, 0x8, "task switch sets CR0.TS")                                                                    \
    X(53, 0x58, "task switch by CALL: back link")                                                            \
    X(54, 0x4000, "task switch by CALL: NT inside")                                                          \
    X(55, 0x0, "IRET from a task: NT outside")                                                               \
    X(56, 0x3, "task through CALL, INT and CALL again")                                                      \
    X(57, 0x58, "TR at the end")                                                                             \
    X(58, 0xa0000, "#TS: IRET with NT and no back link")                                                     \
    X(60, 0x900, "virtual-8086 mode: CS")                                                                    \
    X(61, 0x12345678, "virtual-8086 mode: segment address")                                                  \
    X(62, 0xd0000, "#GP: INT in virtual-8086 mode with IOPL 0")                                              \
    X(63, 0x300000, "INT in virtual-8086 mode with IOPL 3")                                                  \
    X(64, 0x20000, "VM in the pushed flags")                                                                 \
    X(65, 0x0, "DS after an interrupt from virtual-8086 mode")                                               \
    X(66, 0xd0000, "#GP: HLT in virtual-8086 mode")                                                          \
    X(67, 0x60000, "#UD in virtual-8086 mode")                                                               \
    X(70, 0x5a5a5a5a, "32-bit paging, 4 MiB page")                                                           \
    X(71, 0x77777777, "32-bit paging, 4 KiB page")                                                           \
    X(72, 0xe0002, "32-bit paging: #PF, write to an absent page")                                            \
    X(73, 0x60, "32-bit paging: accessed and dirty")                                                         \
    X(74, 0x88888888, "PAE paging, 2 MiB page")                                                              \
    X(75, 0xe0000, "PAE paging: #PF, absent")                                                                \
    X(76, 0xe0011, "PAE paging: #PF, execution of an NX page")                                               \
    X(77, 0x60, "PAE paging: accessed and dirty")                                                            \
    X(80, 0x20, "16-bit protected mode: data segment")                                                       \
    X(81, 0xabcd6fec, "16-bit stack: upper half of ESP stays")                                               \
    X(82, 0x6, "16-bit CALL, PUSH, ENTER")                                                                   \
    X(83, 0x5678, "16-bit addressing with a limit of 64 KiB")                                                \
    X(84, 0xd0000, "#GP: 16-bit offset over the limit")                                                      \
    X(90, 0x0, "real mode: CR0.PE")                                                                          \
    X(91, 0x12345678, "real mode: segment address")                                                          \
    X(92, 0x40, "real mode: INT")                                                                            \
    X(93, 0x0, "real mode: IF in the handler")                                                               \
    X(94, 0x200, "real mode: IF after IRET")                                                                 \
    X(95, 0x1, "real mode: STOSB wraps DI")                                                                  \
    X(96, 0xd, "real mode: #GP at offset 0xffff")                                                            \
    X(97, 0x0, "real mode: #DE")                                                                             \
    X(98, 0x1, "real mode: #DE pushes the IP of DIV")                                                        \
    X(99, 0xfffe, "real mode: PUSH wraps SP")                                                                \
    X(100, 0x900, "real mode: far call pushes CS")                                                           \
    X(101, 0x2, "real mode: RETF 2")                                                                         \
    X(102, 0x6, "real mode: #UD")                                                                            \
    X(103, 0x89abcdef, "real mode: 32-bit operands")                                                         \
    X(104, 0x5a5a5a5a, "real mode with big segments")                                                        \
    X(105, 0xd, "real mode: #GP with 32-bit addresses over 64 KiB")                                          \
    X(106, 0x4142, "real mode: REP MOVSW")                                                                   \
    X(107, 0x10000003, "real mode: single step")                                                             \
    X(110, 0x500, "back in long mode: EFER.LME and LMA")

#endif
