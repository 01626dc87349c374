/* The lowest layer of `.env`: the untracked one of the main checkout, read live (DESIGN section 8). One thread at a time.
 *
 * A main checkout that is mounted shows its virtual `.env` there, and asking its server could mean waiting for it. So the
 * environment of every main checkout keeps a copy of its own lines in the state directory, and that is read instead:
 * STATE/lines/<16 hex of the checkout's path>, 0600 (with the name behind it where that is not `.env`).
 */
#ifndef PROVISIONER_MAIN_LAYER_H
#define PROVISIONER_MAIN_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "provisioner/identity.h"

struct main_layer {
	const char *name; /* of the file there, a path below it; borrowed for life */
	char *root; /* NULL: there is no other checkout */
	char *copy;
	int table_fd; /* /proc/self/mountinfo: tells when anything was mounted */
	bool is_mounted;
	bool is_link; /* it may lead anywhere: main_layer_read_link, on a worker thread */
	uint64_t stamp;
	struct buffer text;
};

void main_layer_open(const struct identity *id, const char *name, struct main_layer *ret);
void main_layer_close(struct main_layer *l);

/* Looks again: a few system calls where nothing changed. Is `text` another now? */
bool main_layer_refresh(struct main_layer *l);

/* What a link holds; only where is_link. Worker thread: it uses nothing of the layer's that changes. */
void main_layer_read_link(const struct main_layer *l, struct buffer *out);

/* Keeps the copy of a main checkout's own lines; does nothing anywhere else. 0 or a negative errno. */
int main_layer_publish(const struct identity *id, const char *name, const char *text, size_t len);

#endif
