#include "cli/commands.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/trash_id.h"
#include "provisioner/trash.h"

/* Before it goes: what is in it alone, or in all (0). */
static int64_t measure(struct store *store, int64_t id)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int64_t sum = 0;
	json_t *told = json_object();
	if (store_trash_list(store, NULL, &entries, &count, NULL))
		count = 0;
	for (size_t i = 0; i < count; i++) {
		int64_t bytes = !id || entries[i].id == id ? trash_measure(&entries[i], told) : 0;
		sum += bytes < 0 ? (int64_t)entries[i].bytes : bytes;
	}
	trash_entries_free(entries, count);
	json_decref(told);
	return sum;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_store struct store *store = NULL;
	int64_t bytes = 0;
	int64_t id = 0;
	int r = args->words ? trash_id_parse(args->words[0], &id, err) : 0;
	if (!r)
		r = registry_open(&store, err);
	if (!r && store) {
		bytes = measure(store, id);
		r = trash_empty(store, id, NULL, err);
	}
	if (r)
		return r;
	output_line("freed %.1f MiB", (double)bytes / (1 << 20));
	output_document(json_pack("{s:I}", "bytes", (json_int_t)bytes));
	return 0;
}

const struct command command_trash_empty = {
	.name = "trash empty",
	.arguments = "[ID]",
	.summary = "remove what is in the trash for good",
	.words_max = 1,
	.run = run,
};
