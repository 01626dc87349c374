/* config_load over any bytes as compose.yaml: no crash, no hang, and an error says where. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/config.h"
#include "provisioner/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libfyaml 0.7.12 loses a buffer for some malformed texts. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfyaml\n";
}

static char scratch[] = "/dev/shm/fuzz-config.XXXXXX"; /* in memory: one file for each input */
static int directory = -1;
static struct recipes *no_recipes;

static void remove_scratch(void)
{
	tree_remove(AT_FDCWD, scratch);
	recipes_free(no_recipes);
	close(directory);
}

static void make_scratch(void)
{
	if (!mkdtemp(scratch) || (directory = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    recipes_load(NULL, &no_recipes, NULL))
		abort();
	atexit(remove_scratch);
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check(const struct config *c)
{
	require(c->file && c->directory && c->text_hash && c->approval_hash && c->backend);
	for (size_t i = 0; i < c->n_services; i++) {
		const struct config_service *s = &c->services[i];
		require(s->name && *s->name && !strchr(s->name, '/') && config_service(c, s->name) == s);
		for (size_t k = 0; k < s->n_ports; k++)
			require(s->ports[k].internal > 0);
		require((s->healthcheck.kind == PROBE_EXEC) == (s->healthcheck.argv != NULL));
		require(!s->run_command || (s->run_command[0] && *c->approval_hash));
	}
	/* one line of approval is one finding */
	for (size_t i = 0; i < c->n_approvals; i++)
		require(*c->approvals[i].path && !strchr(c->approvals[i].value, '\n') && !strchr(c->approvals[i].shown, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char variable[] = "SET=value";
	static char *const variables[] = {variable, NULL};
	struct config *c = NULL;
	cleanup_error struct error err = ERROR_INIT;
	if (directory < 0)
		make_scratch();
	cleanup_close int file = openat(directory, "compose.yaml", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	require(file >= 0 && write_all(file, data, size) == 0);
	const struct config_params params = {
	    .root_fd = directory, .root = scratch, .environ_ = variables, .recipes = no_recipes};
	if (config_load(&params, &c, &err) == 0) {
		check(c);
		config_free(c);
		return 0;
	}
	require(err.code == ERROR_CONFIG_INVALID && !strncmp(err.message, "compose.yaml:", 13));
	require(json_integer_value(json_object_get(err.details, "line")) > 0 &&
	        json_integer_value(json_object_get(err.details, "column")) > 0);
	return 0;
}
