/* The configuration in the shape of `docker compose config --format json`: short forms written out, paths absolute, variables and
 * env_files resolved, what nothing uses left out. Made of the tree, so that fields pass through which nothing here reads.
 * Between the files of config_shape*.c alone, and config_container.c, which takes requests of devices in that form. */
#ifndef PROVISIONER_CONFIG_SHAPE_H
#define PROVISIONER_CONFIG_SHAPE_H

#include <jansson.h>

#include "provisioner/config_private.h"

struct shape;

/* *ret stays NULL where the field is left out. new */
typedef int shape_make(const struct field *f, const struct shape *shape, json_t **ret);

/* A key of a mapping, and what becomes of its value. */
struct shape {
	const char *key;            /* NULL: the end of a table */
	shape_make *make;
	const struct shape *fields; /* of shape_object, and of what is made of them */
	bool always;                /* an empty text, 0 and false, too; command and entrypoint: where they are not given, too */
};

/* ---- config_shape_values.c ---- */

shape_make shape_any; /* what it looks like */
shape_make shape_text, shape_integer, shape_real, shape_bool, shape_bytes, shape_duration, shape_mode, shape_mode_number;
shape_make shape_texts;   /* a list, or one text */
shape_make shape_mapping; /* a mapping, or a list of KEY=value: texts */
shape_make shape_words;   /* a list, or a text that is split */
shape_make shape_path, shape_paths;
shape_make shape_object;  /* by `fields`; a key that is not among them passes through, an x- does not */
shape_make shape_objects; /* a list of them */
shape_make shape_map;     /* of any keys, each to an object, or null */

/* ---- config_shape_forms.c: what is written in more than one form ---- */

shape_make shape_ports, shape_volumes, shape_depends_on, shape_networks, shape_devices, shape_file_mounts, shape_secret_mounts, shape_ulimits,
	shape_hosts, shape_test, shape_context, shape_contexts, shape_args, shape_gpus, shape_ssh, shape_environment, shape_device_requests;

/* The whole, once the configuration has been read; `inactive`: with the services of profiles that are not active. new */
int config_shape(struct loading *l, bool inactive, json_t **ret);

#endif
