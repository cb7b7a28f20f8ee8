/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a test guest begins: by Multiboot in 32-bit protected mode, from there into long mode and to guest_main; exception
 * and interrupt entry; the start of further processors. See guest.h for what C code sees of it.
 */
#include "layout.h"

    .section .multiboot, "a"
    .balign 4
header:
    .long 0x1badb002
    .long 0x00010000            /* the addresses below are valid */
    .long -(0x1badb002 + 0x00010000)
    .long header
    .long guest_image
    .long guest_image_end
    .long guest_bss_end
    .long guest_start

    .text
    .code32
    .globl guest_start
guest_start:
    cli
    cld
    lgdt gdt_pointer
    ljmp $SEL_KCODE32, $1f
1:  mov $SEL_KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_end, %esp
    mov $1, %ebp                /* bootstrap processor */

    /* Identity: four gigabytes of 2 MiB pages; the same for CPL 3 at USER_ALIAS. */
    mov $guest_pd, %edi
    mov $0x83, %eax             /* present, writable, 2 MiB */
    mov $2048, %ecx
2:  mov %eax, (%edi)
    movl $0, 4(%edi)
    mov %eax, user_pd - guest_pd(%edi)
    orl $4, user_pd - guest_pd(%edi)
    movl $0, user_pd - guest_pd + 4(%edi)
    add $8, %edi
    add $0x200000, %eax
    loop 2b
    mov $4, %ecx
    mov $guest_pd + 3, %eax
    mov $guest_pdpt, %edi
3:  mov %eax, (%edi)
    add $user_pd - guest_pd + 4, %eax
    mov %eax, user_pdpt - guest_pdpt(%edi)
    sub $user_pd - guest_pd + 4, %eax
    add $0x1000, %eax
    add $8, %edi
    loop 3b
    movl $guest_pdpt + 3, guest_pml4
    movl $user_pdpt + 7, guest_pml4 + 8 * USER_ALIAS_SLOT

enter_long_mode:                /* also processors that come from the trampoline */
    mov %cr4, %eax
    or $0x620, %eax             /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $guest_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax             /* LME, NXE, SCE */
    wrmsr
    mov %cr0, %eax
    and $0x9fffffff, %eax       /* CD, NW */
    or $0x80010023, %eax        /* PG, WP, NE, MP, PE */
    and $~0xc, %eax             /* EM, TS */
    mov %eax, %cr0
    ljmp $SEL_KCODE64, $4f
    .code64
4:  mov $SEL_KDATA, %eax
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    test %ebp, %ebp
    jz 5f
    call guest_begin
    jmp .
5:  lock incl ap_count(%rip)
    mov $1, %eax                /* its number is its APIC ID, whoever comes first */
    cpuid
    shr $24, %ebx
    mov %ebx, %edi
    mov %edi, %esp
    shl $14, %esp
    lea ap_stacks(%rsp), %rsp
    call guest_ap_begin
    jmp .

    /* Copied to AP_TRAMPOLINE; position-dependent on that address. */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl AP_TRAMPOLINE + trampoline_gdt - ap_trampoline
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $SEL_KCODE32, $6f
trampoline_gdt:
    .word GDT_ENTRIES * 8 - 1
    .long guest_gdt
ap_trampoline_end:
    .code32
6:  mov $SEL_KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %ebp, %ebp
    jmp enter_long_mode

    .code64
    /* void guest_run(struct context *): see guest.h. */
    .globl guest_run, guest_run_return
guest_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rdi, guest_running(%rip)
    mov %rsp, guest_run_stack(%rip)
    pushq CTX_SS(%rdi)
    pushq CTX_RSP(%rdi)
    pushq CTX_RFLAGS(%rdi)
    pushq CTX_CS(%rdi)
    pushq CTX_RIP(%rdi)
    mov (%rdi), %rax
    mov 8(%rdi), %rcx
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rbx
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
    iretq
guest_run_return:               /* trap() returns here on guest_run_stack */
    movq $0, guest_running(%rip)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    /* Stack: vector, error code, and what the processor pushed. */
entry:
    cld
    push %r15
    push %r14
    push %r13
    push %r12
    push %r11
    push %r10
    push %r9
    push %r8
    push %rdi
    push %rsi
    push %rbp
    push $0                     /* in the order of enum x86_reg; RSP is in the frame */
    push %rbx
    push %rdx
    push %rcx
    push %rax
    mov %rsp, %rdi
    and $~15, %rsp
    mov %rdi, %rbx
    call guest_trap
    mov %rbx, %rsp
    pop %rax
    pop %rcx
    pop %rdx
    pop %rbx
    add $8, %rsp
    pop %rbp
    pop %rsi
    pop %rdi
    pop %r8
    pop %r9
    pop %r10
    pop %r11
    pop %r12
    pop %r13
    pop %r14
    pop %r15
    add $16, %rsp
    iretq

    .balign 16
    .globl guest_vectors
guest_vectors:                  /* 16 bytes each */
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
    .else
    pushq $0
    .endif
    pushq $vector
    jmp entry
    .set vector, vector + 1
    .endr

    .data
    .balign 16
    .globl guest_gdt
guest_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* kernel code, 64-bit */
    .quad 0x00cf93000000ffff    /* kernel data */
    .quad 0x00cf9b000000ffff    /* kernel code, 32-bit */
    .quad 0x00cffb000000ffff    /* user code, 32-bit */
    .quad 0x00cff3000000ffff    /* user data */
    .quad 0x00affb000000ffff    /* user code, 64-bit */
    .fill GDT_ENTRIES - 7, 8, 0
gdt_pointer:
    .word GDT_ENTRIES * 8 - 1
    .quad guest_gdt

    .bss
    .balign 4096
    .globl guest_pml4, guest_pdpt, guest_pd
guest_pml4: .skip 4096
guest_pdpt: .skip 4096
user_pdpt:  .skip 4096
guest_pd:   .skip 4 * 4096
user_pd:    .skip 4 * 4096
boot_stack: .skip 0x10000
boot_stack_end:
ap_stacks:  .skip 0x4000 * (MAX_CPUS + 1)
    .globl guest_running, guest_run_stack, ap_count
guest_running:   .skip 8
guest_run_stack: .skip 8
ap_count:        .skip 4

    .section .note.GNU-stack, "", @progbits
