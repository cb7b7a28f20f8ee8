/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads a machine's configuration a line from standard input; prints "good", or what is wrong with it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "catalog/config.h"

int main(void)
{
    cleanup(mem) char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        struct error *err = NULL;
        json_error_t why;
        json_t *config = json_loads(line, JSON_DECODE_ANY, &why);
        if (!config)
            printf("not JSON: %s\n", why.text);
        else if (config_check(config, &err))
            puts("good");
        else
            printf("%s\n", error_text(err));
        error_free(err);
        json_decref(config);
    }
    return 0;
}
