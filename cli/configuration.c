#include "cli/configuration.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/client.h"
#include "provisioner/config.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"

extern char **environ;

void configuration_read_env(const char *root, struct keyvals *ret)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_client struct client c = CLIENT_INIT;
	if (client_of(root, NULL, &c, NULL))
		return;
	const char *name = c.id.env_name;
	cleanup_free char *path = xasprintf("%s/%s", root, name), *base = xasprintf("%s/" ENV_NAME_DEFAULT, root);
	if (env_name_has_base(name) && !file_read(AT_FDCWD, base, ENVFILE_MAX, &text)) {
		envfile_parse(buffer_str(&text), NULL, NULL, NULL, ret);
		buffer_clear(&text);
	}
	if (c.mounted ? client_read(&c, "env.own", &text, NULL) : file_read(AT_FDCWD, path, ENVFILE_MAX, &text))
		return;
	envfile_parse(buffer_str(&text), NULL, NULL, NULL, ret);
}

int configuration_check(const char *root, bool *up, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	struct identity id = {0};
	struct config *config = NULL;
	int r = identity_of(root, NULL, &id, err);
	if (r)
		return r;
	const char *place = id.main_root ? id.main_root : id.root;
	cleanup_close int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		configuration_read_env(place, &variables);
		struct config_params params = {
		    .root_fd = fd, .root = place, .main_root = id.main_root, .variables = &variables, .environ_ = environ};
		r = config_load(&params, &config, &why);
		if (!r)
			*up = *up || config->up_on_add;
		config_free(config);
	}
	if (r && why.code == ERROR_CONFIG_NOT_FOUND)
		r = 0;
	if (r)
		error_move(err, &why);
	identity_release(&id);
	return r;
}

static int load_shape(const struct identity *id, const struct keyvals *variables, const char *profiles, struct config **ret, json_t **ret_shape, struct error *err)
{
	cleanup_close int fd = open(id->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct config_params params = {.root_fd = fd,
	                               .root = id->root,
	                               .main_root = id->main_root,
	                               .search_upwards = id->kind == WORKSPACE_PLAIN,
	                               .variables = variables,
	                               .profiles = profiles,
	                               .environ_ = environ};
	if (fd < 0)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", id->root);
	return config_load_shape(&params, ret, ret_shape, err);
}

static int load(const struct identity *id, const struct keyvals *variables, struct config **ret, struct error *err)
{
	return load_shape(id, variables, NULL, ret, NULL, err);
}

void configuration_lines(const struct identity *id, struct keyvals *ret)
{
	if (id->main_root && strcmp(id->main_root, id->root))
		configuration_read_env(id->main_root, ret);
	configuration_read_env(id->root, ret);
}

static int load_with_lines(const struct identity *id, struct config **ret, struct error *err)
{
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	configuration_lines(id, &variables);
	error_release(err);
	return load(id, &variables, ret, err);
}

int configuration_shape(const struct identity *id, const char *profiles, struct config **ret, json_t **ret_shape, struct error *err)
{
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	configuration_lines(id, &variables);
	return load_shape(id, &variables, profiles, ret, ret_shape, err);
}

const char *configuration_profiles(const struct identity *id)
{
	cleanup_keyvals struct keyvals lines = KEYVALS_INIT;
	const char *mine = getenv("COMPOSE_PROFILES");
	if (!mine)
		return NULL;
	configuration_lines(id, &lines);
	const char *line = keyvals_get(&lines, "COMPOSE_PROFILES");
	return line && !strcmp(line, mine) ? NULL : mine; /* a shell that has sourced `.env` asks for no more than a read of it */
}

void configuration_more_files(const struct identity *id, char ***names)
{
	cleanup_error struct error why = ERROR_INIT;
	struct config *config = NULL;
	if (load(id, NULL, &config, &why)) /* ${X:?} or COMPOSE_FILE perhaps: the user's lines have it */
		load_with_lines(id, &config, &why);
	for (size_t i = 0; config && i < config->n_more_files; i++)
		strv_push(names, xstrdup(config->more_files[i].path));
	config_free(config);
}

int configuration_find(const struct identity *id, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	struct config *config = NULL;
	int r = load(id, NULL, &config, &why);
	if (r && why.code == ERROR_CONFIG_NOT_FOUND)
		r = load_with_lines(id, &config, &why);
	config_free(config);
	if (why.code == ERROR_WORKSPACE_NOT_FOUND) {
		error_move(err, &why);
		return r;
	}
	if (!r || why.code != ERROR_CONFIG_NOT_FOUND)
		return 0;
	error_move(err, &why);
	return r;
}
