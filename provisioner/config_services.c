/* Services: one table of Compose's fields (compose-spec 05-services), a function for each that is used. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define SERVICES_MAX 1000
#define SERVICE_NAME_MAX 200

static int read_image(const struct field *f, void *out)
{
	return field_string(f, &((struct config_service *)out)->image);
}

static int read_command(const struct field *f, void *out)
{
	struct config_service *s = out;
	int r = field_argv(f, &s->command);
	if (r == 0)
		approve_command(f);
	return r;
}

static int read_entrypoint(const struct field *f, void *out)
{
	struct config_service *s = out;
	int r = field_argv(f, &s->entrypoint);
	if (r == 0)
		approve_command(f);
	return r;
}

static int read_profiles(const struct field *f, void *out)
{
	return field_strings(f, &((struct config_service *)out)->profiles);
}

static int read_working_dir(const struct field *f, void *out)
{
	return field_string(f, &((struct config_service *)out)->working_dir);
}

static int read_container_name(const struct field *f, void *out)
{
	struct config_service *s = out;
	int r = field_string(f, &s->container_name);
	if (r == 0)
		strv_push(&s->aliases, xstrdup(s->container_name));
	return r;
}

/* ---- other names ---- */

static int read_aliases(const struct field *f, void *out)
{
	struct config_service *s = out;
	cleanup_strv char **names = NULL;
	int r = field_strings(f, &names);
	for (char **name = names; r == 0 && name && *name; name++)
		strv_push(&s->aliases, xstrdup(*name));
	return r;
}

static int take_unused(const struct field *f, void *out)
{
	strv_push(&((struct config_service *)out)->network_words, xstrdup(f->key));
	return 0;
}

/* Where that is, read_networks knows. */
static int read_address(const struct field *f, void *out)
{
	char *address = NULL;
	int r = field_text(f, &address);
	if (r == 0)
		strv_push(&((struct config_service *)out)->network_addresses, address);
	return r;
}

/* Beside others it is that of the first. */
static int read_network_mac(const struct field *f, void *out)
{
	struct config_service *s = out;
	return s->container.mac_address ? take_unused(f, out) : field_text(f, &s->container.mac_address);
}

static const struct field_reader network_fields[] = {{"aliases", read_aliases},      {"priority", field_ignore},    {"gw_priority", take_unused},    {"interface_name", take_unused},
                                                     {"ipv4_address", read_address}, {"ipv6_address", take_unused}, {"link_local_ips", take_unused}, {"mac_address", read_network_mac},
                                                     {"driver_opts", take_unused},   {NULL, NULL}};

/* Services of one file reach each other whatever networks they are on: of a network only the names on it count. */
static int read_networks(const struct field *f, void *out)
{
	if (f->node->type != YAML_MAP && f->node->type != YAML_LIST)
		return field_expected(f, "a list of networks, or a mapping");
	struct config_service *s = out;
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field network = field_child(f, i);
		size_t before = strv_len(s->aliases), addresses = strv_len(s->network_addresses);
		bool has_mac = s->container.mac_address;
		char *key = network.key ? xstrdup(network.key) : NULL;
		if (!key)
			r = field_text(&network, &key);
		else if (!field_is_null(&network))
			r = field_read_map(&network, network_fields, UNKNOWN_WARNS, "a mapping, or nothing", out);
		for (char **alias = s->aliases ? s->aliases + before : NULL; alias && *alias; alias++)
			strv_pushf(&s->network_aliases, "%s %s", key, *alias);
		const struct config_resource *resource = key ? config_network(loading_of(f)->config, key) : NULL;
		if (!has_mac && s->container.mac_address && resource && resource->external) { /* it is not the environment's */
			free(move_ptr(s->container.mac_address));
			strv_push(&s->network_words, xstrdup("mac_address"));
		}
		if (strv_len(s->network_addresses) > addresses) {
			cleanup_free char *address = s->network_addresses[addresses];
			s->network_addresses[addresses] = xasprintf("%s %s", key ? key : "", address);
		}
		if (r == 0)
			strv_push(&s->networks, key);
		else
			free(key);
	}
	return r;
}

/* ---- limits ---- */

static int read_memory(const struct field *f, void *out)
{
	return field_bytes(f, &((struct config_service *)out)->memory_bytes);
}

static int read_cpus(const struct field *f, void *out)
{
	return field_double(f, &((struct config_service *)out)->cpus);
}

static int read_pids(const struct field *f, void *out)
{
	struct config_service *s = out;
	int r = field_int(f, -1, INT64_MAX, &s->pids);
	if (s->pids < 0) /* as Docker writes "unlimited" */
		s->pids = 0;
	return r;
}

static const struct field_reader limit_fields[] = {
    {"memory", read_memory},
    {"cpus", read_cpus},
    {"pids", read_pids},
    {NULL, NULL},
};

static int read_limits(const struct field *f, void *out)
{
	return field_read_map(f, limit_fields, UNKNOWN_WARNS, "a mapping", out);
}

static int read_reserved_memory(const struct field *f, void *out)
{
	return field_bytes(f, &((struct config_service *)out)->container.memory_reservation_bytes);
}

static const struct field_reader reservation_fields[] = {
    {"memory", read_reserved_memory},
    {"cpus", field_ignore}, /* of a scheduler's: one machine has nothing to choose */
    {"devices", read_device_requests},
    {"generic_resources", NULL},
    {"pids", NULL},
    {NULL, NULL},
};

static int read_reservations(const struct field *f, void *out)
{
	return field_read_map(f, reservation_fields, UNKNOWN_WARNS, "a mapping", out);
}

static const struct field_reader resource_fields[] = {
    {"limits", read_limits},
    {"reservations", read_reservations},
    {NULL, NULL},
};

static int read_resources(const struct field *f, void *out)
{
	return field_read_map(f, resource_fields, UNKNOWN_WARNS, "a mapping", out);
}

/* ---- how many, and where ---- */

static int read_replicas(const struct field *f, void *out)
{
	int64_t n = 1;
	int r = field_int(f, 0, INT64_MAX, &n);
	((struct config_service *)out)->no_instances |= n == 0;
	if (r == 0 && n > 1)
		field_warn(f, "one instance is run, not %lld", (long long)n);
	return r;
}

static int read_mode(const struct field *f, void *out)
{
	static const char *const words[] = {"replicated", "global", "replicated-job", "global-job", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0 && i > 0)
		field_warn(f, "one instance is run, as for replicated");
	return r;
}

/* ---- stopping and starting again ---- */

static int signal_number(const char *text)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {{"HUP", SIGHUP},     {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"ABRT", SIGABRT}, {"KILL", SIGKILL},
	               {"USR1", SIGUSR1},   {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM},
	               {"CONT", SIGCONT},   {"STOP", SIGSTOP}, {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},
	               {"WINCH", SIGWINCH}, {"PWR", SIGPWR}};
	char *end;
	if (!strncmp(text, "SIG", 3))
		text += 3;
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		if (!strcmp(text, signals[i].name))
			return signals[i].number;
	int base = 0;
	if (!strncmp(text, "RTMIN+", 6)) { /* systemd's */
		base = SIGRTMIN;
		text += 6;
	}
	if (!isdigit((unsigned char)*text))
		return 0;
	long number = strtol(text, &end, 10);
	return *end || number > SIGRTMAX - base || base + number < 1 ? 0 : (int)(base + number);
}

static int read_stop_signal(const struct field *f, void *out)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	((struct config_service *)out)->stop_signal = signal_number(text);
	return signal_number(text) ? 0 : field_error(f, "expected a signal like SIGTERM or 15, got '%.40s'", text);
}

static int read_stop_grace_period(const struct field *f, void *out)
{
	return field_duration(f, &((struct config_service *)out)->stop_grace_ms);
}

static int read_restart(const struct field *f, void *out)
{
	static const char what[] = "no, always, on-failure, on-failure:N or unless-stopped";
	static const struct {
		const char *word;
		enum restart_policy policy;
	} policies[] = {{"no", RESTART_NO},
	                {"on-failure", RESTART_ON_FAILURE},
	                {"always", RESTART_ALWAYS},
	                {"unless-stopped", RESTART_UNLESS_STOPPED}};
	struct config_service *s = out;
	cleanup_free char *text = NULL;
	unsigned most = 0;
	size_t i = 0;
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, what);
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	char *colon = strchr(text, ':');
	if (colon && !strncmp(text, "on-failure:", 11)) {
		size_t digits = strspn(colon + 1, "0123456789");
		if (!digits || digits > 6 || colon[1 + digits])
			return field_expected(f, what);
		most = (unsigned)strtoul(colon + 1, NULL, 10);
		*colon = '\0';
	}
	while (i < sizeof policies / sizeof *policies && strcmp(policies[i].word, text))
		i++;
	if (i == sizeof policies / sizeof *policies)
		return field_expected(f, what);
	if (!s->restart_of_deploy) {
		s->restart = policies[i].policy;
		s->restart_max = most;
	}
	return 0;
}

/* ---- deploy ---- */

static int read_restart_condition(const struct field *f, void *out)
{
	static const char *const words[] = {"none", "on-failure", "any", NULL};
	static const enum restart_policy policies[] = {RESTART_NO, RESTART_ON_FAILURE, RESTART_UNLESS_STOPPED};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config_service *)out)->restart = policies[i];
	return r;
}

static int read_restart_attempts(const struct field *f, void *out)
{
	int64_t n = 0;
	int r = field_int(f, 0, 999999, &n);
	if (r == 0)
		((struct config_service *)out)->restart_max = (unsigned)n;
	return r;
}

static const struct field_reader restart_policy_fields[] = {
    {"condition", read_restart_condition},
    {"max_attempts", read_restart_attempts},
    {"delay", NULL},
    {"window", NULL},
    {NULL, NULL},
};

/* It wins over `restart`, as in docker compose. */
static int read_restart_policy(const struct field *f, void *out)
{
	struct config_service *s = out;
	s->restart = RESTART_UNLESS_STOPPED;
	s->restart_max = 0;
	s->restart_of_deploy = true;
	return field_read_map(f, restart_policy_fields, UNKNOWN_WARNS, "a mapping", out);
}

static const struct field_reader deploy_fields[] = {
    {"resources", read_resources},
    {"mode", read_mode},
    {"replicas", read_replicas},
    {"labels", field_ignore}, /* of a swarm's service, not of its containers */
    {"placement", NULL},
    {"restart_policy", read_restart_policy},
    {"update_config", NULL},
    {"rollback_config", NULL},
    {"endpoint_mode", NULL},
    {NULL, NULL},
};

static int read_deploy(const struct field *f, void *out)
{
	return field_read_map(f, deploy_fields, UNKNOWN_WARNS, "a mapping", out);
}

/* ---- depends_on ---- */

static int read_condition(const struct field *f, void *out)
{
	static const char *const words[] = {[DEPENDS_STARTED] = "service_started",
	                                    [DEPENDS_HEALTHY] = "service_healthy",
	                                    [DEPENDS_COMPLETED] = "service_completed_successfully",
	                                    NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config_dependency *)out)->condition = (enum depends_condition)i;
	return r;
}

static int read_required(const struct field *f, void *out)
{
	return field_bool(f, &((struct config_dependency *)out)->required);
}

static int read_with(const struct field *f, void *out)
{
	return field_bool(f, &((struct config_dependency *)out)->restart);
}

static const struct field_reader dependency_fields[] = {
    {"condition", read_condition},
    {"required", read_required},
    {"restart", read_with},
    {NULL, NULL},
};

/* steals `name` */
static int add_dependency(const struct field *f, struct config_service *s, char *name, bool has_fields)
{
	struct config_dependency d = {name, DEPENDS_STARTED, true, false};
	int r = has_fields && !field_is_null(f)
	            ? field_read_map(f, dependency_fields, UNKNOWN_WARNS, "a mapping with condition", &d)
	            : 0;
	if (r < 0) {
		free(name);
		return r;
	}
	array_grow(s->depends_on, s->n_depends_on);
	s->depends_on[s->n_depends_on++] = d;
	return 0;
}

static int read_depends_on(const struct field *f, void *out)
{
	if (f->node->type != YAML_MAP && f->node->type != YAML_LIST)
		return field_expected(f, "a list of services, or a mapping");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		char *name = NULL;
		if (child.key)
			name = xstrdup(child.key);
		else
			r = field_string(&child, &name);
		if (r == 0)
			r = add_dependency(&child, out, name, child.key != NULL);
	}
	return r;
}

/* ---- links: a dependency, and a name for it that, on our one network, all see ---- */

static bool is_dependency(const struct config_service *s, const char *name)
{
	for (size_t i = 0; i < s->n_depends_on; i++)
		if (!strcmp(s->depends_on[i].service, name))
			return true;
	return false;
}

static int add_links(const struct field *service, struct config_service *s)
{
	struct field list;
	cleanup_strv char **links = NULL;
	if (!field_find(service, "links", &list) || field_is_null(&list))
		return 0;
	int r = field_strings(&list, &links);
	for (char **link = links; r == 0 && link && *link; link++) {
		cleanup_free char *name = xstrndup(*link, strcspn(*link, ":"));
		if (!is_dependency(s, name))
			r = add_dependency(&list, s, move_ptr(name), false);
	}
	return r;
}

/* Whoever is in another's network, sees its processes or has its volumes needs it. */
static int add_joined(const struct field *service, struct config_service *s)
{
	const char *const modes[] = {s->container.network, s->container.pid, s->container.ipc};
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof modes / sizeof *modes; i++)
		if (modes[i] && !strncmp(modes[i], "service:", 8) && !is_dependency(s, modes[i] + 8))
			r = add_dependency(service, s, xstrdup(modes[i] + 8), false);
	for (char **from = s->container.volumes_from; r == 0 && from && *from; from++) {
		cleanup_free char *name = xstrndup(*from, strcspn(*from, ":"));
		if (strncmp(*from, "container:", 10) && !is_dependency(s, name))
			r = add_dependency(service, s, move_ptr(name), false);
	}
	return r;
}

static struct config_service *find_service(struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (!strcmp(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}

static int name_linked(const struct field *link, struct config *c)
{
	cleanup_free char *text = NULL;
	int r = field_text(link, &text);
	if (r < 0)
		return r;
	char *colon = strchr(text, ':');
	if (colon)
		*colon = '\0';
	struct config_service *to = find_service(c, text);
	if (!to) {
		r = field_error(link, "there is no service '%s'", text);
		const char *near = nearest_service(c, text);
		if (near)
			error_hint(link->reader->err, "did you mean %s?", near);
		return r;
	}
	if (colon && colon[1] && strcmp(colon + 1, to->name) && !strv_contains(to->aliases, colon + 1))
		strv_push(&to->aliases, xstrdup(colon + 1));
	return 0;
}

static int name_all_linked(const struct field *services, struct config *c)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < services->node->count; i++) {
		struct field service = field_child(services, i), list;
		if (!strncmp(service.key, "x-", 2) || !field_find(&service, "links", &list))
			continue;
		for (size_t k = 0; r == 0 && k < list.node->count; k++) {
			struct field link = field_child(&list, k);
			r = name_linked(&link, c);
		}
	}
	return r;
}

/* ---- the table ---- */

static const struct field_reader service_fields[] = {
    {"image", read_image},
    {"build", read_build},
    {"command", read_command},
    {"entrypoint", read_entrypoint},
    {"environment", read_environment},
    {"env_file", read_env_file},
    {"ports", read_ports},
    {"expose", read_expose},
    {"volumes", read_volumes},
    {"tmpfs", read_tmpfs},
    {"healthcheck", read_healthcheck},
    {"depends_on", read_depends_on},
    {"profiles", read_profiles},
    {"working_dir", read_working_dir},
    {"container_name", read_container_name},
    {"networks", read_networks},
    {"mem_limit", read_memory},
    {"cpus", read_cpus},
    {"pids_limit", read_pids},
    {"deploy", read_deploy},
    {"stop_signal", read_stop_signal},
    {"stop_grace_period", read_stop_grace_period},
    {"restart", read_restart},
    {"x-aether", read_service_aether},
    {"attach", NULL},
    {"configs", read_configs},
    {"cpu_count", NULL},
    {"cpu_percent", NULL},
    {"cpu_rt_period", NULL},
    {"cpu_rt_runtime", NULL},
    {"credential_spec", NULL},
    {"develop", NULL},
    {"extends", NULL},
    {"isolation", NULL},
    {"links", field_ignore}, /* add_links */
    {"models", NULL},
    {"provider", NULL},
    {"pull_refresh_after", NULL},
    {"scale", read_replicas},
    {"secrets", read_secrets},
    {"use_api_socket", NULL},
    {NULL, NULL, container_fields},
};

/* A service's name becomes the name of a file (`services/NAME`) and of variables. */
static int check_name(const struct field *f)
{
	size_t len = strlen(f->key);
	bool ok = len && len <= SERVICE_NAME_MAX && f->key[0] != '.';
	for (const char *c = f->key; ok && *c; c++)
		ok = isalnum((unsigned char)*c) || *c == '_' || *c == '.' || *c == '-';
	return ok ? 0 : field_key_error(f, "expected a name of letters, digits, '_', '.' and '-' for the service");
}

static int read_service(const struct field *f, struct config *c)
{
	struct loading *l = loading_of(f);
	int r = check_name(f);
	if (r < 0)
		return r;
	array_grow(c->services, c->n_services);
	struct config_service *s = &c->services[c->n_services++];
	*s = (struct config_service){
	    .name = xstrdup(f->key), .container = CONTAINER_OPTIONS_INIT, .stop_grace_ms = -1, .file = f->key_file, .line = f->key_line, .column = f->key_column};
	r = field_read_map(f, service_fields, UNKNOWN_WARNS, "a mapping with image, build or x-aether", s);
	if (r == 0)
		r = add_links(f, s);
	if (r == 0)
		r = add_joined(f, s);
	if (r < 0)
		return r;
	cleanup_keyvals struct keyvals own = s->environment;
	s->environment = l->env_files;
	l->env_files = (struct keyvals)KEYVALS_INIT;
	keyvals_copy(&s->environment, &own);
	r = approve_service(f, s);
	keyvals_release(&l->strange_env);
	return r;
}

/* The same text under another name, with data and numbers of its own. It is the original that is approved, and warned of. */
static int copy_service(struct loading *l, const struct field *name, const char *from, const char *to)
{
	struct config *c = l->config;
	struct field root = field_root(&l->reader, l->root), services, original, named = *name;
	size_t approvals = c->n_approvals, warnings = c->n_warnings;
	named.key = to;
	int r = check_name(&named);
	if (r < 0 || !field_find(&root, "services", &services) || !field_find(&services, from, &original))
		return r;
	r = read_service(&original, c);
	config_forget_since(c, approvals, warnings);
	if (r < 0)
		return r;
	struct config_service *s = &c->services[c->n_services - 1];
	free(s->name);
	s->name = xstrdup(to);
	s->is_copy = true;
	free(move_ptr(s->container_name));
	strv_free(move_ptr(s->aliases));
	strv_free(move_ptr(s->network_aliases));
	free(move_ptr(s->container.hostname));
	free(move_ptr(s->container.mac_address));
	for (size_t i = 0; i < s->n_ports; i++)
		s->ports[i].published = 0;
	for (size_t i = 0; i < s->n_volumes; i++)
		if (s->volumes[i].type == CONFIG_VOLUME_NAMED) {
			s->volumes[i].type = CONFIG_VOLUME_ANONYMOUS;
			free(move_ptr(s->volumes[i].source));
		}
	return 0;
}

/* ---- all of them ---- */

int read_services(const struct field *f, void *out)
{
	struct config *c = out;
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping of services");
	if (f->node->count > SERVICES_MAX)
		return field_error(f, "more than %d services", SERVICES_MAX);
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		if (strncmp(child.key, "x-", 2))
			r = read_service(&child, c);
	}
	if (r == 0)
		r = name_all_linked(f, c);
	if (r == 0)
		r = check_services(f, c);
	if (r == 0)
		r = env_files_copies(loading_of(f), copy_service);
	if (r == 0)
		build_share(c);
	return r < 0 ? r : check_circles(f, c);
}
