/* What the files share that build a service's spec: spec.c, and spec_volumes.c. Worker thread. */
#ifndef PROVISIONER_SPEC_PRIVATE_H
#define PROVISIONER_SPEC_PRIVATE_H

#include "base/alloc.h"
#include "provisioner/model.h"

/* ---- ownership: the spec points into the model ---- */

static inline char *keep(struct model_service *s, char *text)
{
	strv_push(&s->owned, text);
	return text;
}

static inline void *keep_array(struct model_service *s, size_t n, size_t size)
{
	array_grow(s->owned_arrays, s->n_owned_arrays);
	return s->owned_arrays[s->n_owned_arrays++] = xcalloc(n, size);
}

struct build {
	struct model *m;
	struct model_service *s;
	const struct model_params *params;
	const struct keyvals *env;
	struct volume_spec *volumes; /* of s->spec, while it is built */
	struct error *err;
};

static inline char *data_path(const struct build *b, const char *kind, const char *name)
{
	return keep(b->s, xasprintf("%s/data/%u/%s%s", b->params->id->state_dir, b->m->generation, kind, name));
}

/* ---- spec_volumes.c ---- */

/* The text of a secret or a config. */
int spec_source_text(const struct model *m, const struct model_params *params, const struct config_source *source, struct buffer *out);
void spec_build_volumes(struct build *b);
int spec_build_grants(struct build *b); /* secrets and configs, behind the volumes */
const char *spec_data_dir(const struct build *b); /* of a host process; borrowed */
/* What an engine keeps in a volume of the environment's, though the file binds a directory there. */
void spec_bind_to_volume(const struct build *b);

#endif
