#include "provisioner/env_name.h"

#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/strv.h"

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

char **env_name_tracked(const char *shared_dir, const char *repository)
{
	cleanup_free char *path = file_of(shared_dir, repository);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	char **list = NULL;
	unsigned n = 0;
	if (file_read(AT_FDCWD, path, NAME_FILE_MAX, &text))
		return NULL;
	for (const char *line = buffer_str(&text); *line; n++) {
		size_t len = strcspn(line, "\n");
		if (n >= 2 && len)
			strv_push(&list, xstrndup(line, len));
		line += len + (line[len] == '\n');
	}
	return list;
}

int env_name_write(const char *shared_dir, const char *repository, const char *name, const char *state, char *const *tracked, struct error *err)
{
	cleanup_free char *path = file_of(shared_dir, repository), *directory = xasprintf("%s/names", shared_dir);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	buffer_printf(&text, "%s\n%s\n", name, state);
	for (; tracked && *tracked; tracked++)
		buffer_printf(&text, "%s\n", *tracked);
	int r = dir_make(AT_FDCWD, directory, 0700);
	if (!r)
		r = file_write_atomic(AT_FDCWD, path, buffer_str(&text), text.len, 0600);
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_STORE_FAILED, -r, "%s", path) : 0;
}

char *env_name_flat(const char *path)
{
	char *flat = xstrdup(path);
	for (char *c = flat; *c; c++)
		if (*c == '/')
			*c = ':';
	return flat;
}

bool env_name_has_base(const char *name)
{
	return strcmp(name, ENV_NAME_DEFAULT) != 0;
}
