/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options of verbs: see args.h. */
#include "cli/args.h"

#include <string.h>

#include "cli/verb.h"

static bool is_flag(const struct arg *a, const char *word)
{
    const char letter[] = {'-', a->letter, 0};
    return a->flag && ((strncmp(word, "--", 2) == 0 && strcmp(word + 2, a->name) == 0) ||
                       (a->letter && strcmp(word, letter) == 0));
}

int args_take(int argc, char **argv, const struct arg *args, size_t count)
{
    const char *verb = argv[0];
    bool options = true;
    int words = 0;
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        while (options && k < count && !is_flag(&args[k], argv[i]) &&
               (!args[k].value || !option_value(argc, argv, &i, args[k].name, args[k].value)))
            k++;
        if (!options || (k == count && argv[i][0] != '-'))
            argv[words++] = argv[i];
        else if (k == count)
            return usage_error(verb, "unknown option '%s'", argv[i]), -1;
        else if (args[k].flag)
            *args[k].flag = true;
        else if (!*args[k].value)
            return usage_error(verb, "--%s wants a value", args[k].name), -1;
    }
    return words;
}
