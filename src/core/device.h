/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device says everything about itself in its own file, as a struct device_class: properties (command line,
 * JSON, documentation), windows, saved state, life cycle. Adding a device is one file and one line in
 * src/device/meson.build, from which the class table is generated (device_classes[]). Every function runs
 * with the machine lock held.
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bus.h"
#include "core/machine.h"
#include "core/state.h"

struct error;
struct device;

enum prop_type { PROP_END, PROP_BOOL, PROP_UINT, PROP_SIZE, PROP_STRING, PROP_MAC };

/* One property. Strings are owned by the device and freed with it. PROP_SIZE takes suffixes K, M, G, T. */
struct prop {
    const char *name;
    enum prop_type type;
    size_t offset;             /* in the instance: bool, uint64_t, uint64_t, char *, uint8_t[6] */
    const char *default_value; /* as text; NULL: zero / unset */
    uint64_t min, max;         /* for PROP_UINT and PROP_SIZE; max 0: no bound */
    const char *help;
};

/*
 * One register of a window, where a table says more than code. A read gives the field (or calls `read`); a
 * write stores the bits of `writable`, clears the written ones of `clear` (write-1-to-clear), then calls
 * `write` with the old value. The field is uint8_t, uint16_t, uint32_t or uint64_t according to `size`.
 */
struct reg_desc {
    const char *name; /* NULL ends the table */
    uint32_t offset;
    uint8_t size;
    size_t field;
    uint64_t reset, writable, clear;
    uint64_t (*read)(struct device *dev, const struct reg_desc *reg);
    void (*write)(struct device *dev, const struct reg_desc *reg, uint64_t old_value);
};

enum window_space { WINDOW_END, WINDOW_PORT, WINDOW_MMIO, WINDOW_BAR };

/* One range that a device answers in: by a register table or by functions. For WINDOW_BAR `base` is the BAR's
 * number. */
struct window_desc {
    enum window_space space; /* WINDOW_END ends the table */
    const char *name;
    uint64_t base, size;
    const struct reg_desc *regs;
    uint64_t (*read)(struct device *dev, uint64_t offset, unsigned size);
    void (*write)(struct device *dev, uint64_t offset, unsigned size, uint64_t value);
    uint8_t max_access; /* as in struct io_window; a register table takes 8 */
    int8_t priority;    /* as in struct io_window */
};

enum device_flags {
    DEVICE_USER = 1,      /* may be named on the command line (--device) */
    DEVICE_SINGLETON = 2, /* at most one in a machine */
};

struct device_class {
    const char *name; /* as on the command line, e.g. "virtio-rng" */
    const char *help; /* one line */
    unsigned flags;
    size_t size; /* of the instance; its first member is a struct device (or a struct that begins with one) */
    const struct prop *props;          /* NULL: none */
    const struct window_desc *windows; /* NULL: none, or mapped by realize */
    const struct state_desc *state;    /* mandatory; &STATELESS when there is nothing */

    /* Checks properties, takes resources. False and *err: the device is gone, nothing remains. */
    bool (*realize)(struct device *dev, struct error **err);
    /* Power-on state; also called once after realize. Registers with a reset value are already reset. */
    void (*reset)(struct device *dev);
    /* Machine stops: finish or cancel work in flight so that the state is complete and guest memory is not
     * touched. */
    void (*quiesce)(struct device *dev);
    void (*resume)(struct device *dev);
    /* Releases everything; windows are unmapped before. */
    void (*unrealize)(struct device *dev);
};

#define DEVICE_WINDOW_MAX 8

/* What an io_window of a device calls; kept by device.c. */
struct device_window {
    struct device *dev;
    struct window_desc desc;
};

struct device {
    const struct device_class *cls;
    struct machine *machine;
    char *id; /* owned; unique in the machine; the class name and a number unless the user says */
    struct device *next;
    struct io_window window[DEVICE_WINDOW_MAX]; /* one per window_desc, then those of device_map_window */
    struct device_window window_info[DEVICE_WINDOW_MAX];
    unsigned window_count;
    bool realized;
};

/* The generated table, ends with NULL. */
extern const struct device_class *const device_classes[];
const struct device_class *device_class_find(const char *name);

/* Makes a device with default properties; NULL and *err for an unknown class or a second singleton. `id` may
 * be NULL. */
struct device *device_new(struct machine *m, const char *cls, const char *id, struct error **err);
/* Sets a property from text. */
bool device_set(struct device *dev, const char *prop, const char *value, struct error **err);
/* Maps port and MMIO windows, calls realize and reset, links it into the machine. On failure the device is
 * freed. */
bool device_realize(struct device *dev, struct error **err);
void device_free(struct device *dev);

/*
 * For realize: maps a further window, whose place depends on properties. `desc` (not WINDOW_BAR) is copied.
 * Unmapped with the others.
 */
bool device_map_window(struct device *dev, const struct window_desc *desc, struct error **err);

void device_reset(struct device *dev);
void devices_reset(struct machine *m);
void devices_quiesce(struct machine *m);
void devices_resume(struct machine *m);
struct device *device_find(struct machine *m, const char *id);

/* The instance's own class name; device_cast checks it in debug builds. */
#define DEVICE_OF(T, dev_ptr) ((T *)(void *)(dev_ptr))

#endif
