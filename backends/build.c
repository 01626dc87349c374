#include "backends/build.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

#define TEXTS(o) {(o)->context, (o)->dockerfile, (o)->inline_text, (o)->target, (o)->network}
#define LISTS(o) {(o)->cache_from, (o)->extra_hosts, (o)->tags, (o)->platforms, (o)->refused, (o)->ignored}
#define COUNT(array) (sizeof(array) / sizeof *(array))

void build_options_release(struct build_options *o)
{
	char *const texts[] = TEXTS(o);
	char **const lists[] = LISTS(o);
	for (size_t i = 0; i < COUNT(texts); i++)
		free(texts[i]);
	for (size_t i = 0; i < COUNT(lists); i++)
		strv_free(lists[i]);
	keyvals_release(&o->args);
	keyvals_release(&o->labels);
	ulimit_options_free(o->ulimits, o->n_ulimits);
	*o = (struct build_options){.context = NULL};
}

static void add_list(struct sha256 *h, char *const *list)
{
	for (; list && *list; list++)
		sha256_add_str(h, *list);
	sha256_add_str(h, "");
}

static void add_map(struct sha256 *h, const struct keyvals *map)
{
	for (size_t i = 0; i < map->count; i++) {
		sha256_add_str(h, map->items[i].key);
		sha256_add_str(h, map->items[i].value ? "=" : "");
		sha256_add_str(h, map->items[i].value ? map->items[i].value : "");
	}
	sha256_add_str(h, "");
}

/* What cache_from and tags say makes no other image; the same context at another place is the same. */
void build_options_key(const struct build_options *o, const char *platform, char ret[SHA256_HEX])
{
	const char *const texts[] = {o->target, o->network, platform};
	const uint64_t numbers[] = {o->shm_bytes, o->no_cache};
	struct sha256 h;
	sha256_begin(&h);
	for (size_t i = 0; i < COUNT(texts); i++)
		sha256_add_str(&h, texts[i] ? texts[i] : "");
	add_list(&h, o->extra_hosts);
	add_map(&h, &o->args);
	add_map(&h, &o->labels);
	for (size_t i = 0; i < o->n_ulimits; i++) {
		const int64_t limits[] = {o->ulimits[i].soft, o->ulimits[i].hard};
		sha256_add_str(&h, o->ulimits[i].name);
		sha256_add(&h, limits, sizeof limits);
	}
	sha256_add(&h, numbers, sizeof numbers);
	sha256_end(&h, ret);
}

/* Lower case, and between its words one `.`, one or two `_`, or `-`:
 * https://pkg.go.dev/github.com/distribution/reference#pkg-overview. Others get a hash, so that two do not become one. */
static bool is_path_component(const char *name)
{
	for (const char *p = name; *p; p++) {
		if (islower((unsigned char)*p) || isdigit((unsigned char)*p))
			continue;
		size_t run = strspn(p, "._-");
		bool fits = run && (run == strspn(p, "-") || (run == 1 && *p != '-') || (run == 2 && !strncmp(p, "__", 2)));
		if (!fits || p == name || !p[run])
			return false;
		p += run - 1;
	}
	return *name;
}

char *build_image_name(const char *namespace_, const char *service)
{
	if (is_path_component(service))
		return xasprintf("%s-%s", namespace_, service);
	struct buffer name = BUFFER_INIT;
	for (const char *p = service; *p; p++)
		if (isalnum((unsigned char)*p))
			buffer_addc(&name, (char)tolower((unsigned char)*p));
	buffer_printf(&name, "%s%08x", name.len ? "-" : "", (unsigned)hash_str(HASH_INIT, service));
	char *image = xasprintf("%s-%s", namespace_, buffer_str(&name));
	buffer_release(&name);
	return image;
}

/* ---- copies ---- */

static void copy_options(struct build_options *to, const struct build_options *from)
{
	*to = (struct build_options){
	    .context = xstrdup(from->context),
	    .dockerfile = xstrdup(from->dockerfile),
	    .inline_text = xstrdup(from->inline_text),
	    .target = xstrdup(from->target),
	    .network = xstrdup(from->network),
	    .cache_from = strv_copy(from->cache_from),
	    .extra_hosts = strv_copy(from->extra_hosts),
	    .tags = strv_copy(from->tags),
	    .platforms = strv_copy(from->platforms),
	    .refused = strv_copy(from->refused),
	    .ignored = strv_copy(from->ignored),
	    .ulimits = from->n_ulimits ? xcalloc(from->n_ulimits, sizeof *to->ulimits) : NULL,
	    .n_ulimits = from->n_ulimits,
	    .shm_bytes = from->shm_bytes,
	    .no_cache = from->no_cache,
	    .pull = from->pull,
	};
	for (size_t i = 0; i < from->n_ulimits; i++)
		to->ulimits[i] = (struct ulimit_option){xstrdup(from->ulimits[i].name), from->ulimits[i].soft, from->ulimits[i].hard};
	keyvals_copy(&to->args, &from->args);
	keyvals_copy(&to->labels, &from->labels);
}

#define SPEC_TEXTS(s) {&(s)->context, &(s)->shown, &(s)->dockerfile, &(s)->platform, &(s)->key, &(s)->control, &(s)->env, &(s)->env_own, &(s)->vcs, &(s)->root}

struct build_spec *build_spec_copy(const struct build_spec *s)
{
	struct build_spec *copy = xcalloc(1, sizeof *copy);
	struct build_options *options = xcalloc(1, sizeof *options);
	*copy = *s;
	copy_options(options, s->options);
	copy->options = options;
	const char **const texts[] = SPEC_TEXTS(copy);
	for (size_t i = 0; i < COUNT(texts); i++)
		*texts[i] = xstrdup(*texts[i]);
	return copy;
}

void build_spec_free(struct build_spec *s)
{
	if (!s)
		return;
	const char **const texts[] = SPEC_TEXTS(s);
	for (size_t i = 0; i < COUNT(texts); i++)
		free((char *)*texts[i]);
	build_options_release((struct build_options *)s->options);
	free((struct build_options *)s->options);
	free(s);
}
