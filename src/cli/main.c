/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program `ruche`: finds the verb and runs it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/verb.h"
#include "os/standard.h"

const struct verb *verb_find(const char *name)
{
    for (const struct verb *const *v = verbs; *v; v++) {
        if (strcmp((*v)->name, name) == 0)
            return *v;
    }
    return NULL;
}

int usage_error(const char *verb, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "ruche: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, verb ? " (see ruche %s --help)\n" : " (see ruche help)\n", verb);
    return EXIT_USAGE;
}

int failure(struct error *err)
{
    fprintf(stderr, "ruche: %s\n", error_text(err));
    error_free(err);
    return EXIT_RUCHE;
}

bool option_value(int argc, char **argv, int *i, const char *name, const char **value)
{
    const char *word = argv[*i];
    size_t len = strlen(name);
    if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, len) != 0)
        return false;
    if (word[2 + len] == '=') {
        *value = word + 2 + len + 1;
        return true;
    }
    if (word[2 + len] != 0)
        return false;
    *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

int main(int argc, char **argv)
{
    standard_fds_fill();
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2)
        return usage_error(NULL, "no command given");
    const char *name = argv[1];
    if (is_help(name))
        name = "help";
    else if (strcmp(name, "--version") == 0)
        name = "version";
    const struct verb *verb = verb_find(name);
    if (!verb)
        return usage_error(NULL, "there is no command '%s'", name);
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i])) {
            fputs(verb->help, stdout);
            return standard_output_done(EXIT_OK, EXIT_RUCHE);
        }
    }
    return standard_output_done(verb->run(argc - 1, argv + 1), EXIT_RUCHE);
}
