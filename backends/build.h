/* Images that are built: what of Compose's `build` an engine is told (https://github.com/compose-spec/compose-spec/blob/main/build.md),
 * and the parts of building that need no engine. Any thread. */
#ifndef BACKENDS_BUILD_H
#define BACKENDS_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/container.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/strv.h"

#define BUILD_DOCKERFILE_MAX (1u << 20)  /* bytes, of a .dockerignore, too */
#define BUILD_ENTRIES_MAX 1000000u       /* of a context */

/* Whoever fills one owns what it points to, and releases it. */
struct build_options {
	char *context;     /* a directory, as written */
	char *dockerfile;  /* as written, seen from the context; NULL: its Dockerfile */
	char *inline_text; /* instead */
	char *target, *network;
	struct keyvals args; /* without a value: nobody has given one */
	struct keyvals labels;
	char **cache_from, **extra_hosts, **tags;
	char **platforms;
	struct ulimit_option *ulimits;
	size_t n_ulimits;
	uint64_t shm_bytes;
	bool no_cache, pull;
	char **refused; /* fields that say what cannot be done, and without which another image would come out */
	char **ignored; /* those without which the same does */
};

void build_options_release(struct build_options *o);

/* A service's image, as a backend is to build it. */
struct build_spec {
	const struct build_options *options;
	const char *context;    /* absolute: where this process opens it */
	const char *shown;      /* as messages name it */
	const char *dockerfile; /* absolute, the same; NULL: in the text of the options */
	const char *platform;   /* NULL: the engine's own */
	const char *key;        /* hex, of the options: another key is another image */
	bool live;              /* the service mounts its context: what is in there is no reason to build it again */
	/* A workspace below (or at) the context: of what we place there nothing goes along, and the user's own lines do under their name. All seen from
	 * the context; NULL: there is none. */
	const char *control; /* ".aether" */
	const char *env;     /* ".env" */
	const char *env_own; /* where the user's own lines rest; may be `env` */
	const char *vcs;     /* the directory of the workspace: what jj and git keep there is no reason to build it again */
	const char *root;    /* that directory beneath our own mount, absolute; NULL: it is the context itself, or not in it */
};

/* new, with all that it points to */
struct build_spec *build_spec_copy(const struct build_spec *s);
void build_spec_free(struct build_spec *s);

/* Hex of all that stands in the options but of the paths. */
void build_options_key(const struct build_options *o, const char *platform, char ret[SHA256_HEX]);

/* new: the image of a service in an environment, without a tag; a name that an image can have. */
char *build_image_name(const char *namespace_, const char *service);

/* ---- .dockerignore: https://docs.docker.com/build/concepts/context/#dockerignore-files (build_ignore.c) ---- */

struct build_ignore;

/* 0, or CONFIG_INVALID with the line. *ret is new. */
int build_ignore_parse(const char *text, struct build_ignore **ret, struct error *err);
void build_ignore_free(struct build_ignore *g);
/* Is this path, seen from the context, left out? */
bool build_ignore_matches(const struct build_ignore *g, const char *path);
/* May anything below this directory, which is left out, be in again? */
bool build_ignore_looks_into(const struct build_ignore *g, const char *directory);

/* ---- the Dockerfile (build_file.c) ---- */

struct build_file {
	char **images;      /* that it begins with, or copies from; not those of its own stages, nor what only the engine can tell */
	const char *buildkit; /* static: what of it the classic builder does not know; NULL: nothing */
	bool heredocs;
	bool frontend;      /* `# syntax=` names another one than docker's own */
	char *plain;        /* its text without a `# syntax=docker/dockerfile...` line: the engine has docker's own in it, and would fetch another; NULL: there is none */
};

void build_file_read(const char *text, const struct keyvals *args, struct build_file *ret);
void build_file_release(struct build_file *f);

/* ---- the context (build_context.c) ---- */

struct build_context {
	const struct build_spec *spec; /* borrowed */
	int fd, root_fd;      /* root_fd -1: none */
	char *text;           /* of the Dockerfile */
	struct build_file file;
	char *ignore_text;    /* NULL: there is none */
	bool own_ignore;      /* it is the Dockerfile's own */
	struct build_ignore *ignore;
	struct build_entry *entries; /* by their paths */
	size_t n_entries;
	char *dockerfile;     /* its name in the archive */
	char file_digest[SHA256_HEX]; /* of the Dockerfile and the .dockerignore */
	char digest[SHA256_HEX];      /* of all; "" until it is packed */
	uint64_t stamp;   /* of what the files look like without being read: the same stamp, the same digest */
	int64_t newest_ms;
	bool settled;     /* what changes from now on changes the stamp, too */
};

/* Reads the Dockerfile and lists what goes along. BUILD_FAILED says what is missing. `spec` is kept. */
int build_context_open(const struct build_spec *spec, struct build_context **ret, struct error *err);
/* Reads all of it: its digest, and with `fd` (not -1) a tar archive. */
int build_context_pack(struct build_context *c, int fd, struct error *err);
void build_context_free(struct build_context *c);

/* ---- what an engine says of it (build_progress.c) ---- */

#define BUILD_LINES_MAX 20 /* of the end, that an error carries */

struct build_progress {
	struct buffer line;   /* of the stream */
	struct buffer text;   /* of the output */
	char *lines[BUILD_LINES_MAX]; /* the last ones, a ring */
	unsigned n_lines;
	unsigned step, steps; /* 0: not known yet */
	char *what;           /* of the step: "RUN npm ci" */
	struct error failed;
	char **vertices;      /* BuildKit's: digest, then name */
	int log_fd;           /* -1: nowhere */
};

#define BUILD_PROGRESS_INIT {.line = BUFFER_INIT, .text = BUFFER_INIT, .failed = ERROR_INIT, .log_fd = -1}

/* A piece of the answer; false: a line of it is too long. */
bool build_progress_feed(struct build_progress *p, const char *data, size_t len);
void build_progress_end(struct build_progress *p); /* what is left without an end of line */
void build_progress_release(struct build_progress *p);

#endif
