/* The command line of `aetherfs`: one table of mount options drives parsing, what is passed on to the kernel, and the help. */
#ifndef FS_MOUNT_OPTIONS_H
#define FS_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buffer.h"
#include "base/error.h"

#define MOUNT_NUMBER_MAX 86400
#define MOUNT_WATCHDOG_S 30  /* unless it is asked for otherwise */
#define MOUNT_KERNEL_MAX 256 /* bytes of options for the kernel; each is taken once */

struct mount_options {
	char *dir;
	char *workspace; /* NULL: found or derived */
	bool help, version, foreground, json;
	bool mask_resend;               /* behave as on kernels before 6.9 */
	unsigned watchdog_s;            /* 0: a silent server is left alone */
	uint32_t bits;                  /* enum mount_option */
	char kernel[MOUNT_KERNEL_MAX];  /* "ro,nosuid": what mount(2) is told beside our own; "" nothing */
};

/* `argv` as main has it. `json` is set even when something behind it is wrong, so that the error can be said as asked for. */
int mount_options_parse(int argc, char *const *argv, struct mount_options *ret, struct error *err);
void mount_options_help(FILE *out);
/* Appends what a mount has by them, an option a line, in an order of its own: what is passed over, and what is of the program alone, is not among it. */
void mount_options_list(const struct mount_options *o, struct buffer *out);
void mount_options_release(struct mount_options *o);
#define cleanup_mount_options __attribute__((cleanup(mount_options_release)))

#endif
