/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What cannot be a disk is refused before a guest starts, with a reason: wrong files, damaged and unknown
 * images, locks. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/qcow2.h"

static void wrong_files(void **state)
{
    (void)state;
    must_run("mkdir dir && mkfifo fifo && : >empty && ln -s loop loop && echo hello >small");
    must_refuse("missing", NULL, 0, "No such file");
    must_refuse("dir", NULL, 0, "it is a directory");
    must_refuse("dir", NULL, BLOCK_READONLY, "it is a directory");
    must_refuse("fifo", "raw", 0, "neither a file nor a block device");
    must_refuse("fifo", "raw", BLOCK_READONLY, "neither a file nor a block device");
    must_refuse("/dev/null", "raw", 0, "neither a file nor a block device");
    must_refuse("empty", NULL, 0, "it is empty");
    must_refuse("loop", NULL, 0, "symbolic links");
    must_refuse("small", "qcow2", 0, "truncated");
    must_refuse("small", "vmdk", 0, "unknown image format 'vmdk'");
    must_refuse("small/x", NULL, 0, "Not a directory");
}

/* As another user, since root may open everything. */
static void no_permission(void **state)
{
    (void)state;
    must_run("truncate -s 1M secret readable && chmod 600 secret && chmod 644 readable");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error *err = NULL;
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(2);
        /* The owner has the files to himself when the suite does not run as root: then take the right away.
         */
        chmod("secret", 0);
        chmod("readable", 0444);
        bool refused =
            !block_open("secret", "raw", BLOCK_READONLY, NULL, &err) && strstr(error_text(err), "Permission");
        err = NULL;
        refused = refused && !block_open("readable", "raw", 0, NULL, &err) &&
                  strstr(error_text(err), "for writing");
        _exit(refused ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static FILE *qemu_io; /* its commands */

/* QEMU has written to the image and goes on having it open, however long what follows takes. */
static void hold_by_qemu(const char *image)
{
    char command[128];
    snprintf(command, sizeof(command), "exec qemu-io %s >held", image);
    qemu_io = popen(command, "we");
    assert_non_null(qemu_io);
    assert_true(fputs("write 0 4k\n", qemu_io) >= 0 && fflush(qemu_io) == 0);
    must_run("for i in $(seq 1200); do grep -q wrote held && exit 0; sleep 0.05; done; cat held; exit 1");
}

static void let_go_by_qemu(void)
{
    assert_int_equal(pclose(qemu_io), 0);
}

static void locks(void **state)
{
    (void)state;
    must_run("truncate -s 1M disk && qemu-img create -f qcow2 disk.qcow2 1M");
    struct block *b = must_open("disk", "raw", 0);
    must_refuse("disk", "raw", 0, "in use by another program");
    must_refuse("disk", "raw", BLOCK_READONLY, "in use by another program");
    block_close(b);
    /* Readers go together, and keep writers out. */
    b = must_open("disk", "raw", BLOCK_READONLY);
    struct block *c = must_open("disk", "raw", BLOCK_READONLY);
    must_refuse("disk", "raw", 0, "in use by another program");
    block_close(c);
    block_close(b);
    block_close(must_open("disk", "raw", 0));

    /* QEMU's programs see the lock, and we see theirs. */
    b = must_open("disk.qcow2", NULL, 0);
    assert_int_not_equal(run("qemu-img info disk.qcow2"), 0);
    must_run("! qemu-io -c 'write 0 4k' disk.qcow2");
    block_close(b);
    b = must_open("disk.qcow2", NULL, BLOCK_READONLY);
    must_run("qemu-img info disk.qcow2");
    must_run("! qemu-io -c 'write 0 4k' disk.qcow2");
    block_close(b);
    hold_by_qemu("disk.qcow2");
    must_refuse("disk.qcow2", NULL, 0, "in use by another program");
    must_refuse("disk.qcow2", NULL, BLOCK_READONLY, "in use by another program that writes it");
    let_go_by_qemu();
    block_close(must_open("disk.qcow2", NULL, 0));
}

/* --- Header fields. --- */

struct damage {
    const char *why; /* expected in the message */
    uint64_t offset; /* in the header */
    unsigned bytes;  /* 4 or 8 */
    uint64_t value;
};

static const struct damage damages[] = {
    {"not a qcow2 image", HEADER_MAGIC, 4, 0x12345678},
    {"version 1 is not supported", HEADER_VERSION, 4, 1},
    {"version 4 is not supported", HEADER_VERSION, 4, 4},
    {"clusters of 2^8", HEADER_CLUSTER_BITS, 4, 8},
    {"clusters of 2^22", HEADER_CLUSTER_BITS, 4, 22},
    {"clusters of 2^4294967295", HEADER_CLUSTER_BITS, 4, UINT32_MAX},
    {"disk of", HEADER_SIZE, 8, UINT64_MAX},
    {"disk of", HEADER_SIZE, 8, 1 << 20 | 1},
    {"too small for a disk", HEADER_SIZE, 8, 1ull << 40},
    {"encryption", HEADER_CRYPT, 4, 1},
    {"encryption", HEADER_CRYPT, 4, 2},
    {"L1 table of", HEADER_L1_SIZE, 4, UINT32_MAX},
    {"too small for a disk", HEADER_L1_SIZE, 4, 0},
    {"truncated: the L1 table", HEADER_L1_SIZE, 4, 1 << 20},
    {"L1 table is not at the start of a cluster", HEADER_L1_OFFSET, 8, 0x30200},
    {"L1 table is not at the start of a cluster", HEADER_L1_OFFSET, 8, 0},
    {"truncated: the L1 table", HEADER_L1_OFFSET, 8, 1ull << 40},
    {"truncated: the L1 table", HEADER_L1_OFFSET, 8, UINT64_MAX << 16},
    {"lie in the same place", HEADER_L1_OFFSET, 8, 0x10000},
    {"refcount table is not at the start", HEADER_REFTABLE_OFFSET, 8, 0x10008},
    {"truncated: the refcount table", HEADER_REFTABLE_OFFSET, 8, 1ull << 50},
    {"refcount table of 0", HEADER_REFTABLE_CLUSTERS, 4, 0},
    {"refcount table of", HEADER_REFTABLE_CLUSTERS, 4, 1 << 20},
    {"snapshots are too many", HEADER_SNAPSHOTS, 4, 70000},
    {"snapshot table", HEADER_SNAPSHOTS, 4, 1},
    {"external data file", HEADER_INCOMPATIBLE, 8, INCOMPAT_DATA_FILE},
    {"extended L2", HEADER_INCOMPATIBLE, 8, INCOMPAT_EXTENDED_L2},
    {"incompatible bit 5", HEADER_INCOMPATIBLE, 8, 1 << 5},
    {"incompatible bit 63", HEADER_INCOMPATIBLE, 8, 1ull << 63},
    {"unknown compression type 0", HEADER_INCOMPATIBLE, 8, INCOMPAT_COMPRESSION},
    {"without its feature bit", HEADER_COMPRESSION, 4, 1u << 24},
    {"marked as corrupt", HEADER_INCOMPATIBLE, 8, INCOMPAT_CORRUPT},
    {"refcounts of 2^7", HEADER_REFCOUNT_ORDER, 4, 7},
    {"header of 100 bytes", HEADER_LENGTH, 4, 100},
    {"header of 65544 bytes", HEADER_LENGTH, 4, 65544},
    {"name of the backing file is not in the header", HEADER_BACKING_OFFSET, 8, 1ull << 40},
};

static void bad_headers(void **state)
{
    (void)state;
    must_run("truncate -s 1M base && qemu-img create -f qcow2 -b base -F raw good");
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        const struct damage *d = &damages[i];
        must_run("cp good bad");
        if (d->bytes == 4)
            poke_be32("bad", d->offset, (uint32_t)d->value);
        else
            poke_be64("bad", d->offset, d->value);
        must_refuse("bad", "qcow2", 0, d->why);
    }
    /* Reading a corrupt image may save something. */
    must_run("cp good bad");
    poke_be64("bad", HEADER_INCOMPATIBLE, INCOMPAT_CORRUPT);
    struct block *b = must_open("bad", NULL, BLOCK_READONLY);
    struct block_info info;
    block_get_info(b, &info);
    assert_true(info.corrupt && info.readonly);
    assert_string_equal(info.format, "qcow2");
    assert_string_equal(info.backing, "base");
    block_close(b);
}

/* An unknown feature is called by the name that the image's own table has for it. */
static void feature_names(void **state)
{
    (void)state;
    uint8_t entry[48] = {0, 40};
    must_run("qemu-img create -f qcow2 feat 1M");
    memcpy(entry + 2, "time travel", 11);
    /* qemu-img's header: 112 bytes, then the table. */
    assert_int_equal(peek_be64("feat", 112) >> 32, EXTENSION_FEATURES);
    poke("feat", 120, entry, sizeof(entry));
    poke_be64("feat", HEADER_INCOMPATIBLE, 1ull << 40);
    must_refuse("feat", NULL, 0, "unknown feature 'time travel'");
    must_run("qemu-img create -f qcow2 -o extended_l2=on ext 1M && "
             "qemu-img create -f qcow2 -o data_file=data.raw,data_file_raw=on data 1M");
    /* qemu-img measures how fast it derives keys, and gives up on a busy host. */
    must_run(
        "for i in $(seq 50); do qemu-img create -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,"
        "encrypt.key-secret=s,encrypt.iter-time=10 luks 1M && exit 0; done; exit 1");
    must_refuse("ext", NULL, 0, "extended L2");
    must_refuse("data", NULL, 0, "external data file");
    must_refuse("luks", NULL, 0, "encryption");
}

/* --- Tables. --- */

static void bad_tables(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -f qcow2 good 1M && qemu-io -c 'write -P 1 0 128k' good && qemu-img check good");
    uint64_t l1 = peek_be64("good", HEADER_L1_OFFSET), l2 = peek_be64("good", l1) & ENTRY_OFFSET;
    uint64_t reftable = peek_be64("good", HEADER_REFTABLE_OFFSET), size = 0;
    struct stat st;
    assert_int_equal(stat("good", &st), 0);
    size = round_up((uint64_t)st.st_size, 65536);
    const struct {
        const char *why;
        uint64_t offset, value;
    } bad[] = {
        {"reserved bits are set in its L1 table", l1, l2 | 1},
        {"reserved bits are set in its L1 table", l1, l2 | 1ull << 60},
        {"L1 table points between clusters", l1, l2 + 512},
        {"an L2 table lies past the end", l1, size | ENTRY_COPIED},
        {"lie in the same place", l1, reftable},
        {"lie in the same place", l1, l1},
        {"refcount table points between clusters", reftable, 0x20200},
        {"a refcount block lies past the end", reftable, size},
        {"lie in the same place", reftable, 0x10000},
        {"reserved bits are set in an L2 entry", l2, 1ull << 58},
        {"reserved bits are set in an L2 entry", l2 + 8, 2},
        {"an L2 entry points between clusters", l2, 0x50200},
        {"data lies past the end of the file", l2 + 8, size | ENTRY_COPIED},
        {"data lies past the end of the file", l2 + 80, 1ull << 55},
        {"data lies in the same place as a table", l2 + 8, l2},
        {"data lies past the end of the file", l2, ENTRY_COMPRESSED | 1ull << 40},
        {"marked as not shared", l2, ENTRY_COMPRESSED | ENTRY_COPIED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        must_run("cp good bad");
        poke_be64("bad", bad[i].offset, bad[i].value);
        must_refuse("bad", NULL, 0, bad[i].why);
    }
    /* Cut short anywhere, also by the better part of a table: a refusal as soon as data is missing. */
    for (uint64_t at = 0; at < (uint64_t)st.st_size; at += 4096) {
        for (uint64_t end = at; end <= at + 1; end++) {
            must_run("cp good bad && truncate -s %llu bad", (unsigned long long)end);
            if (round_up(end, 65536) < size)
                must_refuse("bad", "qcow2", 0, "truncated");
        }
    }
}

static void bad_chains(void **state)
{
    (void)state;
    must_run("qemu-img create -f qcow2 a 1M && qemu-img create -f qcow2 -b a -F qcow2 b && "
             "qemu-img rebase -u -b b -F qcow2 a");
    must_refuse("a", NULL, 0, "comes back to");
    must_run("qemu-img create -f qcow2 self 1M && qemu-img rebase -u -b self -F qcow2 self");
    must_refuse("self", NULL, 0, "comes back to");
    must_run("qemu-img create -f qcow2 c0 1M && for i in $(seq 70); do "
             "qemu-img create -u -f qcow2 -b c$((i-1)) -F qcow2 c$i 1M || exit 1; done");
    must_refuse("c70", NULL, 0, "longer than");
    block_close(must_open("c40", NULL, 0));
    must_run("qemu-img create -u -f qcow2 -b gone -F raw orphan 1M");
    must_refuse("orphan", NULL, 0, "backing file of 'orphan': cannot open disk image 'gone'");
    must_run("qemu-img create -u -f qcow2 -b nbd://host/x -F raw remote 1M");
    must_refuse("remote", NULL, 0, "not a plain file name");
    must_run("truncate -s 1M plain && qemu-img create -u -f qcow2 -b plain -F vmdk wrong 1M");
    must_refuse("wrong", NULL, 0, "unknown image format 'vmdk'");
    /* The name is relative to where the overlay lies, not to where we are. */
    must_run("mkdir sub && qemu-img create -f raw sub/base 1M && qemu-img create -f qcow2 -b base -F raw "
             "sub/over");
    block_close(must_open("sub/over", NULL, 0));
}

static void creation(void **state)
{
    (void)state;
    struct error *err = NULL;
    assert_true(block_create("new.qcow2", "qcow2", 3 * GIB + 512, NULL, NULL, &err));
    must_run(
        "qemu-img check new.qcow2 && qemu-img info new.qcow2 | grep -q 'virtual size.*(3221225984 bytes)'");
    assert_false(block_create("new.qcow2", "qcow2", GIB, NULL, NULL, &err));
    assert_non_null(strstr(error_text(err), "File exists"));
    error_free(err);
    err = NULL;
    assert_true(block_create("new.raw", "raw", GIB, NULL, NULL, &err));
    must_run("qemu-img info -f raw new.raw | grep -q 'virtual size.*(1073741824 bytes)'");
    must_run("mkdir deep");
    assert_true(block_create("deep/over", "qcow2", 0, "../new.raw", "raw", &err));
    must_run(
        "qemu-img check deep/over && qemu-img info deep/over | grep -q 'virtual size.*(1073741824 bytes)'");
    must_run("qemu-img compare -f qcow2 -F raw deep/over new.raw");
    const struct {
        const char *path, *format, *backing, *backing_format, *why;
        uint64_t size;
    } bad[] = {
        {"x", "vdi", NULL, NULL, "unknown image format", MIB},
        {"x", "qcow2", NULL, NULL, "multiple of 512", 0},
        {"x", "qcow2", NULL, NULL, "multiple of 512", 1000},
        {"x", "raw", NULL, NULL, "multiple of 512", UINT64_MAX & ~511ull},
        {"x", "qcow2", NULL, NULL, "at most", 1ull << 62},
        {"x", "qcow2", "new.raw", NULL, "must be said", MIB},
        {"x", "qcow2", "missing", "raw", "No such file", MIB},
        {"x", "qcow2", "new.raw", "qcow2", "not a qcow2 image", MIB},
        {"x", "raw", "new.raw", "raw", "no backing file", MIB},
        {"missing/x", "raw", NULL, NULL, "No such file", MIB},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        err = NULL;
        assert_false(block_create(bad[i].path, bad[i].format, bad[i].size, bad[i].backing,
                                  bad[i].backing_format, &err));
        if (!strstr(error_text(err), bad[i].why))
            fail_msg("refused with '%s'; expected '%s'", error_text(err), bad[i].why);
        error_free(err);
        /* Nothing half-made stays behind. */
        assert_int_equal(access("x", F_OK), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_files), cmocka_unit_test(no_permission), cmocka_unit_test(locks),
        cmocka_unit_test(bad_headers), cmocka_unit_test(feature_names), cmocka_unit_test(bad_tables),
        cmocka_unit_test(bad_chains),  cmocka_unit_test(creation),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
