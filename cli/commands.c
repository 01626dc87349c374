#include "cli/commands.h"

#include <string.h>

#include "base/buffer.h"

extern const struct command command_workspace_add, command_workspace_forget, command_workspace_list, command_attach,
	command_detach, command_up, command_down, command_destroy, command_run, command_exec, command_env, command_ports, command_status,
	command_restart, command_stop, command_start, command_stats, command_list, command_logs, command_trash_list, command_trash_restore, command_trash_empty, command_cleanup, command_init,
	command_compose_config, command_devcontainer, command_trust, command_jj, command_help;

const struct command *const commands[] = {
	&command_workspace_add,
	&command_workspace_forget,
	&command_workspace_list,
	&command_attach,
	&command_detach,
	&command_up,
	&command_down,
	&command_destroy,
	&command_restart,
	&command_stop,
	&command_start,
	&command_run,
	&command_exec,
	&command_env,
	&command_ports,
	&command_compose_config,
	&command_devcontainer,
	&command_trust,
	&command_status,
	&command_list,
	&command_logs,
	&command_stats,
	&command_trash_list,
	&command_trash_restore,
	&command_trash_empty,
	&command_cleanup,
	&command_init,
	&command_jj,
	&command_help,
	NULL,
};

/* How many words of argv the name takes; 0 when it is another command. */
static unsigned matches(const char *name, char *const *argv)
{
	unsigned words = 0;
	for (const char *p = name; *p; words++) {
		size_t n = strcspn(p, " ");
		if (!argv[words] || strlen(argv[words]) != n || strncmp(argv[words], p, n))
			return 0;
		p += n + (p[n] == ' ');
	}
	return words;
}

const struct command *command_find(char *const *argv, unsigned *ret_words)
{
	for (size_t i = 0; commands[i]; i++) {
		unsigned words = matches(commands[i]->name, argv);
		if (words) {
			*ret_words = words;
			return commands[i];
		}
	}
	return NULL;
}

bool command_is_family(const char *word)
{
	size_t n = strlen(word);
	for (size_t i = 0; commands[i]; i++)
		if (!strncmp(commands[i]->name, word, n) && commands[i]->name[n] == ' ')
			return true;
	return false;
}

char *command_family(const char *word)
{
	struct buffer out = BUFFER_INIT;
	size_t n = strlen(word);
	for (size_t i = 0; commands[i]; i++)
		if (!strncmp(commands[i]->name, word, n) && commands[i]->name[n] == ' ')
			buffer_printf(&out, "%s%s", out.len ? "|" : "", commands[i]->name + n + 1);
	return buffer_detach(&out);
}
