#include "cli/commands.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/trash_id.h"
#include "provisioner/trash.h"

static int run(const struct arguments *args, struct error *err)
{
	cleanup_store struct store *store = NULL;
	uint64_t bytes = 0;
	int64_t id = 0;
	int r = args->words ? trash_id_parse(args->words[0], &id, err) : 0;
	if (!r)
		r = registry_open(&store, err);
	if (!r && store)
		r = trash_empty(store, id, &bytes, err);
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
