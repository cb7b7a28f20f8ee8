/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The way through the modes: see modes.c. Results are numbered in modes.h. */
#include "layout.h"
#include "modes.h"

#define RES(i)  (MODES_AT + 4 * (i))
#define LOW(l)  (MODES_LOW + (l) - modes_low)
#define EFER    0xc0000080

/* What is tried until label 9 may fault; then the fault is in last_*. */
.macro TRY
    movl $0xff, last_vector
    movl $0, last_error
    movl $9f, resume
    movl %esp, resume_esp
.endm

.macro SAVE_FAULT index
    movl last_vector, %eax
    shl $16, %eax
    orl last_error, %eax
    movl %eax, RES(\index)
.endm

    .text
    .code64
    .globl modes_run
modes_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    cli
    sgdt saved_gdt(%rip)
    sidt saved_idt(%rip)
    mov %rsp, saved_rsp(%rip)
    mov %cr3, %rax
    mov %rax, saved_cr3(%rip)
    mov %cr4, %rax
    mov %rax, saved_cr4(%rip)
    ljmp *to_compat(%rip)

    .code32
compat:
    mov $SEL_KDATA, %eax        /* in 64-bit mode it was null */
    mov %eax, %ds
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov $EFER, %ecx
    rdmsr
    mov %eax, %ebx
    and $0x400, %ebx
    mov %ebx, RES(1)
    and $~0x900, %eax           /* LME, NXE */
    wrmsr
    lgdt modes_gdt_pointer
    lidt modes_idt_pointer
    ljmp $M_CODE32, $1f
1:  call load_flat
    mov %ds, RES(0)
    movw $0, RES(0) + 2
    mov $modes_stack_end, %esp
    xor %eax, %eax
    lldt %ax
    mov $M_TSS, %eax
    ltr %ax
    call exceptions32
    call segments32
    call old_instructions
    call ring3
    call tasks
    call virtual86
    call paging32
    call paging_pae
    ljmp $M_CODE16, $LOW(protected16)

back_to_32:
    call load_flat
    mov $modes_stack_end, %esp
    lidt modes_idt_pointer

    /* And to long mode again. */
    mov saved_cr4, %eax
    mov %eax, %cr4
    mov saved_cr3, %eax
    mov %eax, %cr3
    mov $EFER, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    and $~8, %eax
    mov %eax, %cr0
    lgdt saved_gdt
    ljmp $SEL_KCODE64, $1f
    .code64
1:  mov saved_rsp(%rip), %rsp
    mov $SEL_KDATA, %eax
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    lidt saved_idt(%rip)
    lgdt saved_gdt(%rip)
    mov $SEL_TSS, %eax
    andb $~2, guest_gdt + SEL_TSS + 5(%rip)
    ltr %ax
    mov $EFER, %ecx
    rdmsr
    and $0x500, %eax
    mov %eax, RES(110)
    popfq
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .code32
load_flat:
    mov $M_DATA32, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    ret

/* --- exceptions and segments --- */

exceptions32:
    TRY
    ud2
9:  SAVE_FAULT 2
    TRY
    int $0x30
9:  SAVE_FAULT 3
    TRY
    xor %ecx, %ecx
    mov $1, %eax
    xor %edx, %edx
    div %ecx
9:  SAVE_FAULT 4
    ret

segments32:
    movl $0x5a5a5a5a, scratch + 0xffc
    movl $0x5a5a5a5a, scratch + 0x1000
    mov $M_SMALL, %eax
    mov %eax, %es
    mov %es:0xffc, %eax
    mov %eax, RES(5)
    TRY
    mov %es:0xffd, %eax
9:  SAVE_FAULT 6
    mov $M_SMALL, %eax
    mov %eax, %es
    TRY
    movb $1, %es:0x20000
9:  SAVE_FAULT 7
    TRY
    mov $M_SMALL, %ebx
    mov %ebx, %ss
    mov $0x800, %esp            /* what delivers the exception still has room */
    mov 0x1000(%esp), %eax
9:  mov $M_DATA32, %eax
    mov %eax, %ss
    mov resume_esp, %esp
    SAVE_FAULT 8
    mov $M_DOWN, %eax
    mov %eax, %es
    mov %es:0x1000, %eax
    mov %eax, RES(10)
    TRY
    mov %es:0xffc, %eax
9:  SAVE_FAULT 9
    mov $M_READONLY, %eax
    mov %eax, %es
    TRY
    mov %eax, %es:0
9:  SAVE_FAULT 11
    mov $M_EXECONLY, %eax
    TRY
    ljmp $M_EXECONLY, $1f
1:  mov %cs:0x1000, %eax
9:  SAVE_FAULT 12
    ljmp $M_CODE32, $1f
1:  TRY
    mov %eax, %cs:0x1000
9:  SAVE_FAULT 13
    xor %eax, %eax
    mov %eax, %es
    TRY
    mov %es:0, %eax
9:  SAVE_FAULT 14
    TRY
    mov $M_ABSENT, %eax
    mov %eax, %es
9:  SAVE_FAULT 15
    mov $M_LDT, %eax
    lldt %ax
    mov $M_LDT_DATA, %eax
    mov %eax, %es
    mov %es:0x1000, %eax
    mov %eax, RES(16)
    call load_flat
    xor %eax, %eax
    lldt %ax
    ret

/* --- what 64-bit mode does not have --- */

.macro SAVE_FLAGS index         /* AL and the flags of the operation */
    lahf
    and $0xd5ff, %eax
    mov %eax, RES(\index)
.endm

old_instructions:
    xor %eax, %eax
    mov $0x79, %al
    add $0x35, %al
    daa
    SAVE_FLAGS 20
    xor %eax, %eax
    mov $0x35, %al
    sub $0x47, %al
    das
    SAVE_FLAGS 21
    mov $0x010f, %eax
    test %eax, %eax             /* AF is undefined, but A..F count alone */
    aaa
    mov %eax, RES(22)
    mov $0x0302, %eax
    sub $9, %al
    aas
    mov %eax, RES(23)
    mov $0x3f, %eax
    aam
    mov %eax, RES(24)
    mov $0x3f, %eax
    aam $16
    mov %eax, RES(25)
    mov $0x0603, %eax
    aad
    mov %eax, RES(26)
    TRY
    aam $0
9:  SAVE_FAULT 27
    mov %esp, %ebp
    mov $1, %eax
    mov $2, %ecx
    mov $3, %edx
    mov $4, %ebx
    mov $6, %esi
    mov $7, %edi
    pusha
    mov 12(%esp), %ecx
    sub %ebp, %ecx
    mov %ecx, RES(28)
    movl $0x77777777, 12(%esp)  /* the place of ESP is not loaded */
    movl $8, 28(%esp)
    movl $9, 24(%esp)
    popa
    cmp %esp, %ebp
    jne 1f
    add %ecx, %eax              /* 8 + 9 */
    add %edx, %eax              /* 3 */
    add %ebx, %eax              /* 4 */
    add %esi, %eax              /* 6 */
    add %edi, %eax              /* 7: 37; less one for the comparison above */
    dec %eax
    mov %eax, RES(29)
1:  mov $0x10, %eax
    mov $3, %ecx
    arpl %cx, %ax
    jnz 1f
    or $0x10000, %eax
1:  mov %eax, RES(30)
    movl $0x12345678, 0x6010
    mov $0xfffffff0, %ebx
    mov $0xabcd6020, %esi
    mov (%bx,%si), %eax
    mov %eax, RES(31)
    movl $0x55aa, far_pointer
    movw $M_DATA32, far_pointer + 4
    les far_pointer, %eax
    mov %es, %ecx
    shl $24, %ecx
    or %ecx, %eax
    mov %eax, RES(32)
    TRY
    mov $11, %eax
    bound %eax, bounds
9:  SAVE_FAULT 33
    TRY
    mov $-10, %eax
    bound %eax, bounds
9:  SAVE_FAULT 34
    TRY
    mov $0x7fffffff, %eax
    add $1, %eax
    into
9:  SAVE_FAULT 35
    mov $0x10001, %ecx
1:  addr16 loop 1b
    mov %ecx, RES(36)
    mov $0x7fffffff, %eax
    inc %eax
    dec %eax
    mov %eax, RES(37)
    ret

/* --- ring 3 --- */

.macro TO_RING3 target
    push $M_UDATA32
    push $modes_ring3_stack_end
    push $2
    push $M_UCODE32
    push $\target
    iret
.endm

ring3:
    TRY
    TO_RING3 1f
1:  xor %eax, %eax
    mov %cs, %ax
    int $0x30
9:  mov last_eax, %eax
    mov %eax, RES(40)
    SAVE_FAULT 41
    TRY
    TO_RING3 1f
1:  int $0x31
9:  SAVE_FAULT 42
    TRY
    TO_RING3 1f
1:  cli
9:  SAVE_FAULT 43
    TRY
    TO_RING3 1f
1:  push $0x11112222
    push $0x33334444
    lcall $M_CALL_GATE, $0
    mov %esp, %eax
    sub $modes_ring3_stack_end, %eax
    int $0x30
9:  mov last_eax, %eax
    mov %eax, RES(47)
    ret

gate_entry32:
    mov $M_DATA32, %eax
    mov %eax, %ds
    mov 12(%esp), %eax
    mov %eax, RES(44)
    mov 8(%esp), %eax
    mov %eax, RES(45)
    mov %cs, RES(46)
    movw $0, RES(46) + 2
    lret $8

/* --- tasks --- */

tasks:
    movl $0, task_count
    mov $0xcafe, %ebx
    ljmp $M_TSS_OTHER, $0
    mov %ebx, RES(51)
    smsw %eax
    and $8, %eax
    mov %eax, RES(52)
    clts
    lcall $M_TSS_OTHER, $0
    pushf
    pop %eax
    and $0x4000, %eax
    mov %eax, RES(55)
    int $0x32                   /* a task gate */
    lcall $M_TASK_GATE, $0
    mov task_count, %eax
    mov %eax, RES(56)
    str %eax
    mov %eax, RES(57)
    clts
    movl $0, modes_tss
    TRY
    pushf
    orl $0x4000, (%esp)
    popf
    iret
9:  SAVE_FAULT 58
    ret

    .globl task_entry
task_entry:
    xor %eax, %eax
    str %eax
    mov %eax, RES(50)
    mov $0xbad, %ebx
    ljmp $M_TSS, $0
1:  pushf                       /* here by CALL or INT */
    pop %eax
    and $0x4000, %eax
    mov %eax, RES(54)
    movzwl modes_tss_other, %eax
    mov %eax, RES(53)
    incl task_count
    mov $0xbad, %ebx
    clts
    iret
    jmp 1b

/* --- virtual-8086 mode --- */

.macro TO_V86 target, flags
    push $0                     /* GS */
    push $0                     /* FS */
    push $0x600                 /* DS: 0x6000 */
    push $0                     /* ES */
    push $0x500                 /* SS */
    push $0xff0
    push $(0x20002 | \flags)
    push $(MODES_LOW >> 4)
    push $(\target - modes_low)
    iret
.endm

virtual86:
    TRY
    TO_V86 v86_addresses, 0
9:  mov last_eax, %eax
    mov %eax, RES(60)
    mov last_ebx, %eax
    mov %eax, RES(61)
    SAVE_FAULT 62
    TRY
    TO_V86 v86_addresses, 0x3000
9:  SAVE_FAULT 63
    mov last_eflags, %eax
    and $0x20000, %eax
    mov %eax, RES(64)
    mov last_ds, %eax
    mov %eax, RES(65)
    TRY
    TO_V86 v86_hlt, 0x3000
9:  SAVE_FAULT 66
    TRY
    TO_V86 v86_ud, 0
9:  SAVE_FAULT 67
    ret

/* --- legacy paging --- */

#define TABLE  0x10000          /* directory, and at + 0x1000 a table */
#define WINDOW 0x40000000

paging32:
    mov $TABLE, %edi
    mov $0x800, %ecx
    xor %eax, %eax
    rep stosl
    movl $0x00000083, TABLE     /* identity by 4 MiB */
    movl $0x00000083, TABLE + 4 * (WINDOW >> 22)
    movl $(TABLE + 0x1003), TABLE + 4 * (WINDOW >> 22) + 4
    movl $0x00006003, TABLE + 0x1000
    movl $0x5a5a5a5a, 0x6000
    mov $TABLE, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    and $~0x20, %eax
    or $0x10, %eax              /* PSE */
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80010000, %eax
    mov %eax, %cr0
    jmp 1f
1:  mov WINDOW + 0x6000, %eax
    mov %eax, RES(70)
    movl $0x77777777, WINDOW + 0x400000
    mov 0x6000, %eax
    mov %eax, RES(71)
    TRY
    movl $0, WINDOW + 0x401000
9:  SAVE_FAULT 72
    mov TABLE + 0x1000, %eax
    and $0x60, %eax
    mov %eax, RES(73)
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    ret

paging_pae:
    mov $TABLE, %edi
    mov $0x1000, %ecx
    xor %eax, %eax
    rep stosl
    movl $(TABLE + 0x1001), TABLE               /* first GiB */
    movl $(TABLE + 0x2001), TABLE + 8           /* second */
    movl $0x00000083, TABLE + 0x1000            /* identity by 2 MiB */
    movl $0x00200083, TABLE + 0x1008
    movl $0x00000083, TABLE + 0x2000            /* low memory at WINDOW */
    movl $0x00000083, TABLE + 0x2008            /* again, not to be executed */
    movl $0x80000000, TABLE + 0x200c
    movl $0x88888888, 0x6000
    movb $0xc3, 0x6010
    mov $EFER, %ecx
    rdmsr
    or $0x800, %eax             /* NXE */
    wrmsr
    mov $TABLE, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    jmp 1f
1:  mov WINDOW + 0x6000, %eax
    mov %eax, RES(74)
    mov %eax, WINDOW + 0x6008
    TRY
    mov WINDOW + 0x400000, %eax
9:  SAVE_FAULT 75
    mov $WINDOW + 0x6010, %eax
    call *%eax
    TRY
    mov $WINDOW + 0x206010, %eax
    call *%eax
9:  SAVE_FAULT 76
    mov TABLE + 0x2000, %eax
    and $0x60, %eax
    mov %eax, RES(77)
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov %cr4, %eax
    and $~0x20, %eax
    mov %eax, %cr4
    ret

/* --- 32-bit exception entry --- */

    .globl modes_vectors
    .balign 16
modes_vectors:
    .set vector, 0
    .rept 64
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
    .else
    push $0
    .endif
    push $vector
    jmp entry32
    .set vector, vector + 1
    .endr

entry32:
    push %eax
    mov %ds, %ax
    push %eax
    mov $M_DATA32, %eax
    mov %eax, %ds
    popl last_ds
    andl $0xffff, last_ds
    popl last_eax
    mov %ebx, last_ebx
    popl last_vector
    popl last_error
    popl last_eip
    popl last_cs
    popl last_eflags
    mov resume_esp, %esp
    mov $M_DATA32, %eax
    mov %eax, %ss
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    push $2
    popf
    jmp *resume

/* --- real mode and virtual-8086 mode, copied to MODES_LOW --- */

    .globl modes_low, modes_low_end
    .code16
    .balign 16
modes_low:
v86_addresses:
    xor %eax, %eax
    mov %cs, %ax
    movl $0x12345678, 0x10
    xor %bx, %bx
    mov %bx, %es
    mov %es:0x6010, %ebx
    int $0x30
v86_hlt:
    hlt
v86_ud:
    ud2

protected16:
    mov $M_DATA16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    xor %eax, %eax
    mov %ss, %ax
    mov %eax, RES(80)
    mov $0xabcd6ff0, %esp
    pushl %eax
    mov %esp, RES(81)
    mov $0x6ff0, %esp
    call 1f                     /* 2 bytes */
1:  push $5                     /* 2 bytes */
    enter $0, $0                /* 2 bytes */
    mov $0x6ff0, %eax
    sub %esp, %eax
    leave
    mov %eax, RES(82)
    movl $0x12345678, 0x6010
    mov $0x6000, %bx
    mov $0x10, %si
    xor %eax, %eax
    mov (%bx,%si), %ax
    mov %eax, RES(83)
    mov $0x6ff0, %esp
    movl $0xff, RES(84)
    mov $0x10000, %eax
    ljmpl $M_CODE32, $limit16

real_again:                     /* from limit16, in 16-bit protected mode */
    mov $M_DATA16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %fs
    mov %ax, %gs
    mov %ax, %ss
    lidt LOW(real_idt)
    mov %cr0, %eax
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0, $LOW(real)
real:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x6f00, %esp
    mov %cr0, %eax
    and $1, %eax
    mov %eax, RES(90)
    movl $0x12345678, 0x6010
    mov $0x5ff, %ax
    mov %ax, %ds
    mov 0x20, %ebx
    xor %ax, %ax
    mov %ax, %ds
    mov %ebx, RES(91)
    movw $LOW(real_int), 4 * 0x40
    movw $0, 4 * 0x40 + 2
    sti
    int $0x40
    pushf
    cli
    pop %ax
    and $0x200, %eax
    mov %eax, RES(94)
    mov $0x1000, %ax
    mov %ax, %es
    mov $0xffff, %di
    cld
    stosb
    stosb
    movzwl %di, %eax
    mov %eax, RES(95)
    xor %ax, %ax
    mov %ax, %es
    movw $LOW(real_fault_d), 4 * 13
    movw $0, 4 * 13 + 2
    movw $LOW(real_fault_0), 0
    movw $0, 2
    movw $LOW(real_fault_6), 4 * 6
    movw $0, 4 * 6 + 2
    movw $LOW(1f), LOW(real_resume)
    movl $0xff, RES(96)
    mov $0xffff, %bx
    mov (%bx), %ax
1:  mov %edx, RES(96)
    movw $LOW(1f), LOW(real_resume)
    xor %cx, %cx
    mov $0xff, %edx
div_here:
    div %cx
1:  mov %edx, RES(97)
    xor %eax, %eax
    cmpw $LOW(div_here), LOW(real_ip)
    sete %al
    mov %eax, RES(98)
    movw $LOW(1f), LOW(real_resume)
    ud2
1:  mov %edx, RES(102)
    mov $0x5000, %ax
    mov %ax, %ss
    xor %esp, %esp
    push %ax
    mov %esp, %eax
    xor %bx, %bx
    mov %bx, %ss
    mov $0x6f00, %esp
    mov %eax, RES(99)
    ljmp $(MODES_LOW >> 4), $(1f - modes_low)
1:  lcall $(MODES_LOW >> 4), $(2f - modes_low)
    movzwl %ax, %eax
    mov %eax, RES(100)
    mov $0x6f00, %eax
    push $7
    lcall $(MODES_LOW >> 4), $(3f - modes_low)
    sub %esp, %eax
    xor $2, %eax                /* all popped: 0 */
    mov %eax, RES(101)
    jmp 4f
2:  mov %sp, %bp
    mov 2(%bp), %ax
    lret
3:  lret $2
4:  ljmp $0, $LOW(1f)
1:  mov $0x01234567, %eax
    not %eax
    bswap %eax
    rol $8, %eax
    mov $0x89abcdef, %ebx
    xor %ebx, %ebx
    mov $0x89abcdef, %eax
    pushl %eax
    popl RES(103)
    movl $0x41424142, 0x6100
    mov $0x6100, %si
    mov $0x6200, %di
    mov $2, %cx
    rep movsw
    movzwl 0x6202, %eax
    xchg %al, %ah
    xchg %al, %ah
    mov %eax, RES(106)
    movw $LOW(real_fault_d), 4 * 13
    movw $LOW(1f), LOW(real_resume)
    mov $0xff, %edx
    mov $0x100000, %ebx
    mov (%ebx), %eax
1:  mov %edx, RES(105)
    /* Single step: one trap after the NOP, with its address. */
    movw $LOW(real_debug), 4 * 1
    movw $0, 4 * 1 + 2
    movl $0, LOW(real_traps)
    pushf
    pop %ax
    mov %ax, %bx
    or $0x100, %ax
    push %ax
    popf
    nop
1:  push %bx
    popf
    nop
    mov LOW(real_traps), %eax
    mov %eax, RES(107)
    /* Big segments: from protected mode with a limit of 4 GiB in DS. */
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    mov $M_DATA32, %bx
    mov %bx, %ds
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0, $LOW(1f)
1:  mov $scratch + 0x1000, %ebx
    mov (%ebx), %eax
    mov %eax, RES(104)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $M_CODE32, $back_to_32

real_int:
    pushf
    pop %ax
    and $0x200, %eax
    movl $0x40, RES(92)
    mov %eax, RES(93)
    iret
real_fault_d:
    mov $13, %edx
    jmp 1f
real_fault_6:
    mov $6, %edx
    jmp 1f
real_fault_0:
    mov $0, %edx
1:  pop %ax
    mov %ax, LOW(real_ip)
    push LOW(real_resume)
    iret
real_debug:                     /* counts; 0x10 on top says that there was a first one */
    incw LOW(real_traps) + 0
    cmpw $1, LOW(real_traps)
    jne 1f
    movb $0x10, LOW(real_traps) + 3
1:  iret
    .balign 4
real_idt:
    .word 0x3ff
    .long 0
real_resume:
    .word 0
real_ip:
    .word 0
    .balign 4
real_traps:
    .long 0
modes_low_end:

    .code32
limit16:                        /* a 16-bit offset over a limit of 64 KiB, tried from 32-bit code */
    call load_flat
    mov $modes_stack_end, %esp
    mov $M_DATA16, %eax
    mov %eax, %es
    TRY
    mov %es:0xffff, %ax
9:  SAVE_FAULT 84
    ljmp $M_CODE16, $LOW(real_again)

    .data
    .balign 8
to_compat:
    .long compat
    .word SEL_KCODE32
    .balign 4
bounds:
    .long -10, 10
    .globl gate_entry32

    .bss
    .balign 16
saved_gdt:   .skip 16
saved_idt:   .skip 16
saved_rsp:   .skip 8
saved_cr3:   .skip 8
saved_cr4:   .skip 8
resume:      .skip 4
resume_esp:  .skip 4
last_vector: .skip 4
last_error:  .skip 4
last_eip:    .skip 4
last_cs:     .skip 4
last_eflags: .skip 4
last_eax:    .skip 4
last_ebx:    .skip 4
last_ds:     .skip 4
far_pointer: .skip 8
task_count:  .skip 4
    .balign 16
    .globl modes_ring0_stack_end, modes_ring3_stack_end, modes_task_stack_end
    .skip 0x1000
modes_stack_end:
    .skip 0x1000
modes_ring0_stack_end:
    .skip 0x1000
modes_ring3_stack_end:
    .skip 0x1000
modes_task_stack_end:

    .section .note.GNU-stack, "", @progbits
