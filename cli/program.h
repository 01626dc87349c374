/* What `ajj exec` and `ajj run --in` share: a program elsewhere that is ours to wait for. */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include "cli/arguments.h"
#include "cli/client.h"
#include "provisioner/attachment.h"

/* 0, 1 and 2 are there from now on: what is opened later must not be taken for one of them. */
void program_open_descriptors(void);

/* What --env names, and TERM of ours for a terminal. */
int program_env(const struct arguments *args, bool terminal, struct keyvals *env, struct error *err);

/* Fills in the environment as this user's own registry has it, and opens it. */
int program_attach(const struct client *c, struct attachment_spec *spec, struct attachment **ret, struct error *err);

/* What a command exits with that could not be run: 126 and 127, with the error told, else `r`. */
int program_failed(int r, const struct error *err);

#endif
