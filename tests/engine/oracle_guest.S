/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest of the oracle: a position-independent kernel that runs the sequences of a batch one after the other, each
 * from a full set of registers, and stores all registers when a sequence ends or faults. See oracle_guest.c for what
 * surrounds it.
 */
#include "oracle.h"

#define FS_BASE 0xc0000100
#define GS_BASE 0xc0000101

    .section .rodata
    .globl oracle_kernel, oracle_kernel_end, oracle_kernel_vectors, oracle_kernel_done
    .balign 64
oracle_kernel:
    /* struct kernel_control */
in:     .quad 0
out:    .quad 0
index:  .quad 0
last:   .quad 0
stack:  .quad 0
fault:  .quad 0

    .balign 64
    /* Entry: at oracle_kernel + 64. */
next:
    mov index(%rip), %rax
    cmp last(%rip), %rax
    jae finished
    imul $ORACLE_DATA_STRIDE, %rax, %rsi
    imul $ORACLE_REGS_SIZE, %rax
    add in(%rip), %rax
    mov %rax, %r15
    lea ORACLE_DATA + ORACLE_HOLE + ORACLE_FS_OFFSET(%rsi), %eax
    xor %edx, %edx
    mov $FS_BASE, %ecx
    wrmsr
    lea ORACLE_DATA + ORACLE_HOLE + ORACLE_GS_OFFSET(%rsi), %eax
    mov $GS_BASE, %ecx
    wrmsr
    mov $7, %eax
    xor %edx, %edx
    xrstor64 ORACLE_REGS_XSAVE(%r15)
    mov stack(%rip), %rsp
    mov ORACLE_REGS_DS(%r15), %eax
    mov %eax, %ds
    mov %eax, %es
    pushq ORACLE_REGS_SS(%r15)
    pushq 32(%r15)
    pushq ORACLE_REGS_FLAGS(%r15)
    pushq ORACLE_REGS_CS(%r15)
    pushq ORACLE_REGS_RIP(%r15)
    mov (%r15), %rax
    mov 8(%r15), %rcx
    mov 16(%r15), %rdx
    mov 24(%r15), %rbx
    mov 40(%r15), %rbp
    mov 48(%r15), %rsi
    mov 56(%r15), %rdi
    mov 64(%r15), %r8
    mov 72(%r15), %r9
    mov 80(%r15), %r10
    mov 88(%r15), %r11
    mov 96(%r15), %r12
    mov 104(%r15), %r13
    mov 112(%r15), %r14
    mov 120(%r15), %r15
    iretq

finished:
    mov $0x01, %al
    out %al, $HARNESS_EXIT
    hlt
    jmp finished

    /* Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS. */
common:
    cld
    push %rax
    push %r15
    testb $3, 40(%rsp)
    jnz sequence
    cmpl $0xffff8000, 36(%rsp)  /* CPL 0 and this upper half of RIP: the kernel itself has faulted */
    je broken
sequence:
    mov index(%rip), %rax
    imul $ORACLE_REGS_SIZE, %rax
    add out(%rip), %rax
    mov %rax, %r15
    pop 120(%r15)
    pop (%r15)
    mov %rcx, 8(%r15)
    mov %rdx, 16(%r15)
    mov %rbx, 24(%r15)
    mov %rbp, 40(%r15)
    mov %rsi, 48(%r15)
    mov %rdi, 56(%r15)
    mov %r8, 64(%r15)
    mov %r9, 72(%r15)
    mov %r10, 80(%r15)
    mov %r11, 88(%r15)
    mov %r12, 96(%r15)
    mov %r13, 104(%r15)
    mov %r14, 112(%r15)
    pop ORACLE_REGS_VECTOR(%r15)
    pop ORACLE_REGS_ERROR(%r15)
    pop ORACLE_REGS_RIP(%r15)
    pop %rax
    pop ORACLE_REGS_FLAGS(%r15)
    pop 32(%r15)
    mov %cr2, %rax
    mov %rax, ORACLE_REGS_CR2(%r15)
    mov $7, %eax
    xor %edx, %edx
    xsave64 ORACLE_REGS_XSAVE(%r15)
    incq index(%rip)
    jmp next

broken:
    mov 16(%rsp), %rax
    mov %rax, fault(%rip)       /* the vector; RIP and the rest stay on the stack for whoever debugs this */
    mov $0x02, %al
    out %al, $HARNESS_EXIT
    hlt
    jmp broken

    /* Entry points of vectors 0..31, then that of ORACLE_DONE_VECTOR; 16 bytes each. */
    .balign 16
oracle_kernel_vectors:
    .set vector, 0
    .rept 32
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
    .else
    pushq $0
    .endif
    pushq $vector
    jmp common
    .set vector, vector + 1
    .endr
    .balign 16
    pushq $0
    pushq $ORACLE_DONE_VECTOR
    jmp common
    .balign 16
    /* What the jump at the end of a sequence finds at ORACLE_TRAMPOLINE. */
oracle_kernel_done:
    int $ORACLE_DONE_VECTOR
oracle_kernel_end:

    .section .note.GNU-stack, "", @progbits
