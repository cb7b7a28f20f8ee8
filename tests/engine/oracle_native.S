/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entering and leaving an oracle sequence on the host's processor.
 *
 * void oracle_native_enter(const struct oracle_regs *in)
 *     loads every register from *in and jumps to the sequence. It comes back by oracle_native_exit (through the jump at
 *     ORACLE_TRAMPOLINE), which stores every register in oracle_native_result, or by oracle_native_recover, to which the
 *     signal handler goes after it has stored them itself.
 *
 * oracle_native_handler is the signal handler: the sequence ran with an FS base of its own, so the C library's comes
 * back first.
 */
#include "oracle.h"

#define ARCH_PRCTL 158
#define ARCH_SET_FS 0x1002

    .text
    .globl oracle_native_enter, oracle_native_exit, oracle_native_recover, oracle_native_handler
    .type oracle_native_enter, @function
oracle_native_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, host_rsp(%rip)
    mov %rdi, %rbx
    mov oracle_native_guest_fs(%rip), %rsi
    mov $ARCH_SET_FS, %edi
    mov $ARCH_PRCTL, %eax
    syscall
    mov %rbx, %rdi
    mov $7, %eax
    xor %edx, %edx
    xrstor64 ORACLE_REGS_XSAVE(%rdi)
    mov ORACLE_REGS_RIP(%rdi), %rax
    mov %rax, target(%rip)
    pushq ORACLE_REGS_FLAGS(%rdi)
    popfq
    mov (%rdi), %rax
    mov 8(%rdi), %rcx
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rbx
    mov 32(%rdi), %rsp
    mov 40(%rdi), %rbp
    mov 48(%rdi), %rsi
    mov 64(%rdi), %r8
    mov 72(%rdi), %r9
    mov 80(%rdi), %r10
    mov 88(%rdi), %r11
    mov 96(%rdi), %r12
    mov 104(%rdi), %r13
    mov 112(%rdi), %r14
    mov 120(%rdi), %r15
    mov 56(%rdi), %rdi
    jmp *target(%rip)

    .type oracle_native_exit, @function
oracle_native_exit:
    mov %rax, oracle_native_result(%rip)
    mov %rcx, oracle_native_result+8(%rip)
    mov %rdx, oracle_native_result+16(%rip)
    mov %rbx, oracle_native_result+24(%rip)
    mov %rsp, oracle_native_result+32(%rip)
    mov %rbp, oracle_native_result+40(%rip)
    mov %rsi, oracle_native_result+48(%rip)
    mov %rdi, oracle_native_result+56(%rip)
    mov %r8, oracle_native_result+64(%rip)
    mov %r9, oracle_native_result+72(%rip)
    mov %r10, oracle_native_result+80(%rip)
    mov %r11, oracle_native_result+88(%rip)
    mov %r12, oracle_native_result+96(%rip)
    mov %r13, oracle_native_result+104(%rip)
    mov %r14, oracle_native_result+112(%rip)
    mov %r15, oracle_native_result+120(%rip)
    mov host_rsp(%rip), %rsp
    pushfq
    popq oracle_native_result+ORACLE_REGS_FLAGS(%rip)
    movq $ORACLE_DONE_VECTOR, oracle_native_result+ORACLE_REGS_VECTOR(%rip)
    mov $7, %eax
    xor %edx, %edx
    xsave64 oracle_native_result+ORACLE_REGS_XSAVE(%rip)

    .type oracle_native_recover, @function
oracle_native_recover:
    mov host_rsp(%rip), %rsp
    pushq $0x202
    popfq
    mov host_fs(%rip), %rsi
    mov $ARCH_SET_FS, %edi
    mov $ARCH_PRCTL, %eax
    syscall
    fninit
    pushq $0x1f80
    ldmxcsr (%rsp)
    pop %rax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .type oracle_native_handler, @function
oracle_native_handler:
    push %rdi
    push %rsi
    push %rdx
    mov host_fs(%rip), %rsi
    mov $ARCH_SET_FS, %edi
    mov $ARCH_PRCTL, %eax
    syscall
    pop %rdx
    pop %rsi
    pop %rdi
    jmp oracle_native_fault

    .globl oracle_native_guest_fs, oracle_native_host_fs, oracle_native_host_rsp
    .bss
    .balign 64
    .globl oracle_native_result
oracle_native_result:
    .skip ORACLE_REGS_SIZE
oracle_native_guest_fs:
    .skip 8
oracle_native_host_fs:
host_fs:
    .skip 8
oracle_native_host_rsp:
host_rsp:
    .skip 8
target:
    .skip 8

    .section .note.GNU-stack, "", @progbits
