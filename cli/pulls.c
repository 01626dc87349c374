#include "cli/pulls.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/output.h"

#define ID_WIDTH 12 /* as docker shows it */
#define STATUS_WIDTH 18 /* "Verifying Checksum" */

/* The engines' words for what a layer has come to; what is none of these is worked on. */
static const struct {
	const char *status;
	unsigned rank; /* the least is shown first */
} ranks[] = {{"Download complete", 1}, {"Waiting", 2}, {"Pulling fs layer", 2}, {"Pull complete", 3}, {"Already exists", 3}};
#define RANK_DONE 3

struct layer {
	const char *id, *status; /* borrowed */
	double current, total; /* bytes; total 0: not known */
	unsigned rank;
	bool shown;
};

static struct layer layer_of(const json_t *json)
{
	const char *id = json_string_value(json_object_get(json, "id")), *status = json_string_value(json_object_get(json, "status"));
	struct layer l = {.id = id ? id : "", .status = status ? status : "", .current = json_number_value(json_object_get(json, "current")),
	                  .total = json_number_value(json_object_get(json, "total"))};
	for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
		if (!strcmp(l.status, ranks[i].status))
			l.rank = ranks[i].rank;
	return l;
}

/* As docker counts them: 1000 to the kB. */
static void add_bytes(struct buffer *out, double bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	size_t unit = 0;
	for (; bytes >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
		bytes /= 1000;
	buffer_printf(out, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void add_layer(const struct layer *l, char ***lines)
{
	struct buffer line = BUFFER_INIT;
	bool counted = l->current > 0 || (l->total && !l->rank);
	buffer_printf(&line, "  %-*.*s %-*s", ID_WIDTH, ID_WIDTH, l->id, counted ? STATUS_WIDTH : 0, l->status);
	if (counted) {
		buffer_addc(&line, ' ');
		add_bytes(&line, l->current);
	}
	if (counted && l->total && l->current < l->total) {
		buffer_adds(&line, " of ");
		add_bytes(&line, l->total);
	}
	strv_push(lines, buffer_detach(&line));
}

/* What is loaded, and extracted, is there whole. */
static void add_head(const char *image, const struct layer *layers, size_t n, char ***lines)
{
	struct buffer line = BUFFER_INIT;
	double current = 0, total = 0;
	size_t done = 0;
	for (size_t i = 0; i < n; i++) {
		bool loads = !strcmp(layers[i].status, "Downloading");
		current += loads ? layers[i].current : layers[i].total;
		total += layers[i].total;
		done += layers[i].rank == RANK_DONE;
	}
	buffer_printf(&line, "%s: %zu of %zu layers", image, done, n);
	if (total > 0) {
		buffer_adds(&line, ", ");
		add_bytes(&line, current);
		buffer_adds(&line, " of ");
		add_bytes(&line, total);
	}
	strv_push(lines, buffer_detach(&line));
}

static void add_image(const json_t *pull, unsigned rows, char ***lines)
{
	const json_t *list = json_object_get(pull, "layers");
	size_t n = json_array_size(list), left = rows - 1;
	cleanup_free struct layer *layers = xcalloc(n + 1, sizeof *layers);
	for (size_t i = 0; i < n; i++)
		layers[i] = layer_of(json_array_get(list, i));
	for (unsigned rank = 0; rank <= RANK_DONE; rank++)
		for (size_t i = 0; i < n && left; i++)
			if (layers[i].rank == rank) {
				layers[i].shown = true;
				left--;
			}
	add_head(json_string_value(json_object_get(pull, "image")), layers, n, lines);
	for (size_t i = 0; i < n; i++)
		if (layers[i].shown)
			add_layer(&layers[i], lines);
}

/* new: the first pull of each image */
static json_t *by_image(const json_t *pulls)
{
	json_t *images = json_array(), *pull, *other;
	size_t i, k;
	json_array_foreach (pulls, i, pull) {
		bool known = !json_is_string(json_object_get(pull, "image"));
		json_array_foreach (images, k, other)
			known |= json_equal(json_object_get(other, "image"), json_object_get(pull, "image"));
		if (!known)
			json_array_append(images, pull);
	}
	return images;
}

void pulls_lines(const json_t *pulls, unsigned rows, char ***lines)
{
	json_t *images = by_image(pulls), *pull;
	size_t n = json_array_size(images), i;
	json_array_foreach (images, i, pull) {
		unsigned wanted = 1 + (unsigned)json_array_size(json_object_get(pull, "layers")), share = rows / (unsigned)(n - i); /* none of them takes all */
		if (share > wanted)
			share = wanted;
		if (!share) /* their lines come first where there are more of them than fit */
			share = rows > 0;
		if (share)
			add_image(pull, share, lines);
		rows -= share;
	}
	json_decref(images);
}

void pulls_say(struct pulls_said *s, const char *image, bool pulled)
{
	cleanup_free char *shown = output_cell(image, -1);
	if (!pulled && !strv_contains(s->begun, image)) {
		strv_push(&s->begun, xstrdup(image));
		output_note("Pulling %s", shown);
	}
	if (pulled && !strv_contains(s->pulled, image)) {
		strv_push(&s->pulled, xstrdup(image));
		output_note("Pulled %s", shown);
	}
}

void pulls_said_release(struct pulls_said *s)
{
	strv_free(s->begun);
	strv_free(s->pulled);
	*s = (struct pulls_said){NULL, NULL};
}
