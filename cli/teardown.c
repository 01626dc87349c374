#include "cli/teardown.h"

#include <string.h>
#include <unistd.h>

#include "cli/mounting.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "provisioner/mounts.h"

static int take_down(struct client *c, struct error *err)
{
	if (!c->mounted || c->dead) {
		int r = c->dead ? mounting_detach(c, DETACH_UNDER_SHELL, err) : 0;
		return r ? r : registry_discard(&c->id, err);
	}
	struct progress *progress = progress_start(c, "destroying");
	int r = client_command(c, "destroy", err);
	progress_stop(progress);
	if (!r)
		r = mounting_detach(c, DETACH_UNDER_SHELL, err);
	return r ? r : registry_forget(&c->id, err);
}

int teardown_client(struct client *c, struct error *err)
{
	return take_down(c, err) ? error_prefix(err, "workspace %s", c->id.workspace) : 0;
}

int teardown_root(const char *root, const char *name, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_of(root, name, &c, err);
	return r ? r : teardown_client(&c, err);
}

int teardown_record(const struct store_environment *e, struct error *err)
{
	struct identity id = {0};
	if (!access(e->root, F_OK) || errno == ENOTCONN)
		return teardown_root(e->root, e->workspace, err);
	int r = registry_identity(e, &id, err);
	if (!r && is_mounted_by_us(e->control_dir) && mount_is_dead(e->control_dir))
		r = mounting_clear_dead(e->control_dir, err);
	if (!r)
		r = registry_discard(&id, err);
	identity_release(&id);
	return r;
}

int teardown_gone(const char *repository, const char *root, struct error *err)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	int r = registry_list(&list, err);
	for (size_t i = 0; !r && i < list.count; i++)
		if (!strcmp(list.items[i].repository, repository) && !strcmp(list.items[i].root, root))
			r = teardown_record(&list.items[i], err);
	return r;
}
