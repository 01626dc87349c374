#include "provisioner/env_name.h"

#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"

#define NAME_FILE_MAX 65536

const char *const env_names[] = {ENV_NAME_DEFAULT, ".env.local", ".env.aether", NULL};

const char *env_name_own(const char *name)
{
	static const char *const own[] = {".env.user", ".env.local.user", ".env.aether.user"};
	for (size_t i = 0; env_names[i]; i++)
		if (!strcmp(env_names[i], name))
			return own[i];
	return own[0];
}

static char *file_of(const char *shared_dir, const char *repository)
{
	return xasprintf("%s/names/%016llx", shared_dir, (unsigned long long)hash_str(HASH_INIT, repository));
}

const char *env_name_read(const char *shared_dir, const char *repository, char **ret_state)
{
	cleanup_free char *path = file_of(shared_dir, repository);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	const char *found = ENV_NAME_DEFAULT, *state = "";
	if (!file_read(AT_FDCWD, path, NAME_FILE_MAX, &text)) {
		size_t len = strcspn(buffer_str(&text), "\n");
		for (size_t i = 0; env_names[i]; i++)
			if (strlen(env_names[i]) == len && !strncmp(env_names[i], buffer_str(&text), len))
				found = env_names[i];
		state = buffer_str(&text) + len + (buffer_str(&text)[len] == '\n');
	}
	if (ret_state)
		*ret_state = xstrndup(state, strcspn(state, "\n"));
	return found;
}

int env_name_write(const char *shared_dir, const char *repository, const char *name, const char *state, struct error *err)
{
	cleanup_free char *path = file_of(shared_dir, repository), *directory = xasprintf("%s/names", shared_dir);
	cleanup_free char *text = xasprintf("%s\n%s\n", name, state);
	int r = dir_make(AT_FDCWD, directory, 0700);
	if (!r)
		r = file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_STORE_FAILED, -r, "%s", path) : 0;
}

bool env_name_has_base(const char *name)
{
	return strcmp(name, ENV_NAME_DEFAULT) != 0;
}
