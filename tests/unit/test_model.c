/* A configuration, a recipe and leases become what a backend is given. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/beside_compose.h"
#include "provisioner/model.h"

static char *scratch, *recipe_dir;
static struct recipes *recipes;
static struct store *store;

/* "sh" is everywhere. */
static const char fake[] =
    "images: [fakedb]\n"
    "port: 1234\n"
    "defaults:\n"
    "  user: '{{env.FAKE_USER ?? \"admin\"}}'\n"
    "  password: '{{env.FAKE_PASSWORD ?? secret}}'\n"
    "url: 'fake://{{user}}:{{password|urlencode}}@{{host}}:{{port}}/'\n"
    "variables: { FAKE_URL: '{{url}}', FAKE_USER: '{{user}}' }\n"
    "ready: { tcp: { send: 'hi', expect: ['ho'] } }\n"
    "stop_signal: SIGINT\n"
    "data: /var/lib/fake\n"
    "container: { env: { FAKE_PASSWORD: '{{password}}' } }\n"
    "process:\n"
    "  program: sh\n"
    "  package: dash\n"
    "  env: { PATH: '/bin', WHO: '{{user}}' }\n"
    "  init:\n"
    "    - run: ['{{bin}}/sh', '-c', 'make {{data}}']\n"
    "      stdin: '{{password}}'\n"
    "  command: ['{{bin}}/sh', '--port', '{{port}}', '--data', '{{data}}', '--run', '{{run}}']\n";

struct workspace {
	struct identity id;
	int root_fd;
};

static unsigned count;

static void workspace_new(struct workspace *w, bool main, const char *compose)
{
	char *root = xasprintf("%s/w%u", scratch, count++);
	assert_int_equal(mkdir(root, 0755), 0);
	w->id = (struct identity){
	    .kind = WORKSPACE_GIT, .root = root, .repository = scratch, .main_root = main ? root : scratch};
	w->id.workspace = (char *)"w";
	w->id.namespace_ = xasprintf("aether-0-w%u", count);
	w->id.socket_dir = xasprintf("%s/s", scratch);
	w->id.state_dir = xasprintf("%s/ns/w%u", scratch, count);
	w->id.shared_dir = scratch;
	w->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(file_write_atomic(w->root_fd, "compose.yaml", compose, strlen(compose), 0644), 0);
	const struct store_environment e = {.namespace_ = w->id.namespace_,
	                                    .root = root,
	                                    .repository = scratch,
	                                    .workspace = w->id.workspace,
	                                    .control_dir = scratch,
	                                    .state_dir = w->id.state_dir,
	                                    .generation = 1,
	                                    .desired = (char *)"absent",
	                                    .uid = (uid_t)-1};
	assert_int_equal(store_environment_put(store, &e, false, NULL), 0);
}

static void workspace_release(struct workspace *w)
{
	close(w->root_fd);
	free(w->id.root);
	free(w->id.namespace_);
	free(w->id.socket_dir);
	free(w->id.state_dir);
}

static struct model *load_with(const struct workspace *w, bool plan, const char *user_text, const char *backend)
{
	const struct model_params params = {.id = &w->id,
	                                    .root_fd = w->root_fd,
	                                    .recipes = recipes,
	                                    .store = store,
	                                    .user_text = user_text,
	                                    .backend = backend,
	                                    .generation = 3,
	                                    .uid = (uid_t)-1,
	                                    .plan = plan};
	struct model *m = NULL;
	struct error err = ERROR_INIT;
	if (model_load(&params, &m, &err) < 0)
		fail_msg("model_load: %s", err.message);
	return m;
}

static struct model *load(const struct workspace *w, bool plan, const char *user_text)
{
	return load_with(w, plan, user_text, NULL);
}

#define PROCESS "x-aether: { backend: process }\n"

static char *joined_with(char *const *words, char between)
{
	struct buffer out = BUFFER_INIT;
	for (size_t i = 0; words && words[i]; i++)
		buffer_printf(&out, "%.*s%s", i > 0, &between, words[i]);
	return buffer_detach(&out);
}

static char *joined(char *const *argv)
{
	return joined_with(argv, ' ');
}

/* A container's image wants to be told what a process is given: the same password is in the URL. */
static void an_image_is_told(void **state)
{
	static const struct {
		const char *service, *password; /* NULL: one that is made */
		bool told;
	} cases[] = {
	    {"", NULL, true},
	    {"environment: { FAKE_PASSWORD: }", NULL, true},
	    {"environment: { FAKE_PASSWORD: '', OTHER: x }", NULL, true},
	    {"environment: { FAKE_PASSWORD: dev }", "dev", false},
	    {"environment: { FAKE_PASSWORD_FILE: /run/secrets/word }, secrets: [word]", "from-a-file", false},
	    {"environment: { FAKE_PASSWORD_FILE: /pw }, secrets: [{ source: word, target: /pw }]", "from-a-file", false},
	    {"environment: { FAKE_PASSWORD_FILE: /elsewhere }", NULL, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct workspace w;
		cleanup_free char *text = xasprintf("services:\n  db: { image: fakedb, %s }\nsecrets: { word: { file: ./word.txt } }\n%s", cases[i].service,
		                                    "x-aether: { backend: 'unix:///nowhere.sock' }\n");
		workspace_new(&w, false, text);
		assert_int_equal(file_write_atomic(w.root_fd, "word.txt", "from-a-file\n\n", 13, 0600), 0);
		struct model *m = load(&w, true, "");
		struct model_service *db = model_service(m, "db");
		const char *password = keyvals_get(&db->variables, "password"), *told = keyvals_get(db->spec.env, "FAKE_PASSWORD");
		if (cases[i].password)
			assert_string_equal(password, cases[i].password);
		else
			assert_int_equal(strlen(password), 24);
		assert_non_null(strstr(db->url, password));
		assert_int_equal(db->told.count, cases[i].told);
		if (cases[i].told)
			assert_string_equal(told, password);
		if (strstr(cases[i].service, "OTHER"))
			assert_string_equal(keyvals_get(db->spec.env, "OTHER"), "x");
		model_free(m);
		workspace_release(&w);
	}
}

static void a_recipe_becomes_a_process(void **state)
{
	struct workspace w;
	workspace_new(&w, false, "services:\n  db: { image: 'fakedb:7', environment: { FAKE_PASSWORD: 'p w' } }\n" PROCESS);
	struct model *m = load(&w, true, "");
	struct model_service *db = model_service(m, "db");
	uint16_t port = model_external_port(db, 1234); /* the recipe's port, though the file publishes none */
	assert_in_range(port, PORT_RANGE_FIRST, PORT_RANGE_FIRST + PORT_RANGE_COUNT - 1);
	cleanup_free char *url = xasprintf("fake://admin:p%%20w@127.0.0.1:%u/", port);
	assert_string_equal(db->url, url);
	assert_false(error_is_set(&db->unsupported));

	const struct process_spec *p = db->spec.process;
	assert_non_null(p);
	cleanup_free char *data = xasprintf("%s/data/3/db", w.id.state_dir);
	assert_string_equal(p->data_dir, data);
	cleanup_free char *run = xasprintf("%s/db", w.id.socket_dir);
	assert_string_equal(p->run_dir, run);
	cleanup_free char *command = joined(p->command);
	cleanup_free char *expected = xasprintf("%s/sh --port %u --data %s --run %s", db->program_dir, port, data, run);
	assert_string_equal(command, expected);
	assert_string_equal(keyvals_get(p->env, "WHO"), "admin");
	assert_int_equal(p->env->count, 2);                  /* a clean environment */
	assert_string_equal(p->init[0][2], "make {{data}}"); /* the backend's to fill in */
	assert_string_equal(p->init_stdin[0], "p w");
	assert_null(p->init[1]);
	assert_int_equal(db->spec.stop_signal, SIGINT);
	assert_int_equal(db->ready.kind, PROBE_TCP);
	assert_string_equal(db->ready.send, "hi");

	cleanup_envset struct envset set;
	model_environment(m, "", "FAKE_USER=mine\n", &set);
	assert_string_equal(envset_find(&set, "FAKE_URL")->value, url);
	assert_string_equal(envset_find(&set, "DB_URL")->value, url);
	assert_string_equal(envset_find(&set, "FAKE_USER")->value, "mine"); /* a layer has set it */
	model_free(m);
	workspace_release(&w);
}

/* Among containers a service has its name and its own port; what the user runs is where he is. */
static void containers_have_their_peers_by_name(void **state)
{
	static const char user[] = "MINE=fake://u:p@localhost:9999/x?y=1\nBY_NAME=cache:6379\nAPP_URL=http://localhost:3000/\n"
	                           "REMOTE=redis://far.example:6379/\nWEB=http://localhost:8080/\nDB_HOST=db\n";
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n  db: { image: fakedb, ports: ['9999:1234'], environment: { FAKE_PASSWORD: p } }\n"
	              "  cache: { image: other, ports: [6379] }\n  web: { build: ., ports: [8080] }\n"
	              "x-aether: { backend: docker, ports: { PORT: 3000 }, env: { X: '{{services.cache.host}}:{{services.cache.ports.6379}}', "
	              "Y: '{{services.db.url}}', Z: '{{ports.PORT}}' } }\n");
	struct model *m = load(&w, true, user);
	cleanup_envset struct envset set, host;
	model_container_environment(m, "", user, &set);
	model_environment(m, "", user, &host);
	const struct {
		const char *key, *value;
	} want[] = {{"MINE", "fake://u:p@db:1234/x?y=1"},
	            {"BY_NAME", "cache:6379"},
	            {"REMOTE", "redis://far.example:6379/"},
	            {"FAKE_URL", "fake://admin:p@db:1234/"},
	            {"DB_URL", "fake://admin:p@db:1234/"},
	            {"DB_HOST", "db"},
	            {"DB_PORT", "1234"},
	            {"CACHE_URL", "redis://cache:6379"},
	            {"X", "cache:6379"},
	            {"Y", "fake://admin:p@db:1234/"}};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		assert_non_null(envset_find(&set, want[i].key));
		assert_string_equal(envset_find(&set, want[i].key)->value, want[i].value);
	}
	static const char *const same[] = {"PORT", "Z", "APP_URL", "WEB", "WEB_URL", "WEB_PORT", "AETHER_NAMESPACE"};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		assert_string_equal(envset_find(&set, same[i])->value, envset_find(&host, same[i])->value);
	assert_string_not_equal(envset_find(&host, "MINE")->value, envset_find(&set, "MINE")->value);
	cleanup_free char *network = model_network(m, &w.id);
	assert_string_equal(network, w.id.namespace_);

	model_unplan(m);
	cleanup_envset struct envset none;
	model_container_environment(m, "", user, &none);
	assert_null(envset_find(&none, "DB_URL"));
	assert_string_equal(envset_find(&none, "MINE")->value, "fake://u:p@localhost:9999/x?y=1");
	model_free(m);
	workspace_release(&w);
}

static void containers_beside_processes_have_the_hosts(void **state)
{
	struct workspace w;
	workspace_new(&w, false, "services:\n  db: { image: fakedb }\n" PROCESS);
	struct model *m = load(&w, true, "");
	cleanup_envset struct envset set, host;
	model_container_environment(m, "", "", &set);
	model_environment(m, "", "", &host);
	assert_int_equal(set.count, host.count);
	assert_string_equal(envset_find(&set, "DB_URL")->value, envset_find(&host, "DB_URL")->value);
	assert_null(model_network(m, &w.id));
	model_free(m);
	workspace_release(&w);
}

static bool warns(const struct model *m, const char *text)
{
	for (char **warning = m->warnings; warning && *warning; warning++)
		if (strstr(*warning, text))
			return true;
	return false;
}

static bool warns_of_subnet(const struct model *m, const struct workspace *w, const char *text)
{
	cleanup_strv char **warnings = model_subnet_warnings(m, &w->id);
	for (char **warning = warnings; warning && *warning; warning++)
		if (strstr(*warning, text))
			return true;
	return false;
}

static const struct volume_spec *mounted(const struct model *m, const char *service, const char *target)
{
	const struct service_spec *spec = &model_service(m, service)->spec;
	for (size_t i = 0; i < spec->n_volumes; i++)
		if (!strcmp(spec->volumes[i].target, target))
			return &spec->volumes[i];
	fail_msg("nothing is mounted at %s", target);
	return NULL;
}

static void network_modes_decide_who_has_ports(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n  web: { image: a, ports: ['80:8080'] }\n  in: { image: a, network_mode: 'service:web', pid: 'service:web', expose: [9000] }\n"
	              "  out: { image: a, network_mode: host, expose: [7000], environment: { WEB: 'http://web:8080' } }\n"
	              "networks: { x: { internal: true, driver: bridge } }\n"
	              "x-aether: { backend: docker }\n");
	struct model *m = load(&w, true, "");
	const struct model_service *web = model_service(m, "web"), *in = model_service(m, "in"), *out = model_service(m, "out");
	assert_int_equal(in->n_ports, 0);
	assert_int_equal(in->config->n_depends_on, 1);
	assert_int_equal(model_external_port(out, 7000), 7000);
	cleanup_free char *url = xasprintf("http://127.0.0.1:%u", model_external_port(web, 8080));
	assert_string_equal(keyvals_get(out->spec.env, "WEB"), url);
	assert_true(warns(m, "out: network_mode host"));
	assert_true(warns(m, "networks.x: internal"));
	assert_false(warns(m, "driver"));
	cleanup_free char *before = xstrdup(in->spec.config_hash), *same = xstrdup(out->spec.config_hash);
	model_free(m);

	const char *changed = "services:\n  web: { image: b, ports: ['80:8080'] }\n  in: { image: a, network_mode: 'service:web', pid: 'service:web', expose: [9000] }\n"
	                      "  out: { image: a, network_mode: host, expose: [7000], environment: { WEB: 'http://web:8080' } }\n"
	                      "x-aether: { backend: docker }\n";
	assert_int_equal(file_write_atomic(w.root_fd, "compose.yaml", changed, strlen(changed), 0644), 0);
	m = load(&w, true, "");
	assert_string_not_equal(model_service(m, "in")->spec.config_hash, before); /* it goes where the other one goes */
	assert_string_equal(model_service(m, "out")->spec.config_hash, same);
	model_free(m);
	workspace_release(&w);
}

static void volumes_are_others_or_as_they_are_said(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n  a: { image: x, volumes: ['theirs:/t', 'made:/m', 'plain:/p', './in/../own:/o', '~/h:/h', './only-main:/f:ro', './dir:/d', '../up:/u', 'rel:/r'] }\n"
	              "  db: { image: fakedb, volumes: ['theirs:/var/lib/fake'] }\n"
	              "volumes:\n  theirs: { external: true, name: real }\n  made: { driver_opts: { type: none, o: bind, device: /srv/x } }\n  rel: { driver_opts: { type: none, o: 'ro,bind', device: ./up } }\n  plain:\n"
	              "x-aether: { backend: docker }\n");
	cleanup_free char *only = xasprintf("%s/only-main", scratch), *dir = xasprintf("%s/dir", scratch);
	assert_int_equal(file_write_atomic(AT_FDCWD, only, "x", 1, 0644), 0);
	assert_int_equal(mkdir(dir, 0755), 0);
	setenv("HOME", "/home/me", 1);
	struct model *m = load(&w, true, "");
	assert_int_equal(mounted(m, "a", "/t")->kind, VOLUME_EXTERNAL);
	assert_string_equal(mounted(m, "a", "/t")->source, "real");
	assert_string_equal(keyvals_get(mounted(m, "a", "/m")->driver_opts, "device"), "/srv/x");
	assert_true(warns(m, "volumes.made: its data is where"));
	cleanup_free char *loads = xasprintf("%s/up", w.id.root);
	assert_string_equal(keyvals_get(mounted(m, "a", "/r")->driver_opts, "device"), loads);
	assert_false(warns(m, "volumes.rel"));
	assert_non_null(strstr(mounted(m, "a", "/m")->source, "/+volumes/made+"));
	assert_non_null(strstr(mounted(m, "a", "/p")->source, "/+volumes/plain"));
	cleanup_free char *own = xasprintf("%s/own", w.id.root), *here = xasprintf("%s/dir", w.id.root), *up = xasprintf("%s/up", scratch);
	assert_string_equal(mounted(m, "a", "/o")->source, own);
	assert_string_equal(mounted(m, "a", "/h")->source, "/home/me/h");
	assert_string_equal(mounted(m, "a", "/f")->source, only); /* nobody tracks it */
	assert_true(warns(m, "a: ./only-main is not in this workspace"));
	assert_string_equal(mounted(m, "a", "/d")->source, here); /* to be written to */
	assert_string_equal(mounted(m, "a", "/u")->source, up);
	assert_int_equal(mounted(m, "db", "/var/lib/fake")->kind, VOLUME_ANONYMOUS); /* ten databases on one directory destroy it */
	assert_true(warns(m, "db: the data lies in"));
	model_free(m);
	unlink(only);
	rmdir(dir);
	workspace_release(&w);
}

static void what_is_generated_is_stable(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n  db: { image: fakedb }\nx-aether: { backend: process, ports: { PORT: 3000 } }\n");
	struct model *one = load(&w, true, ""), *two = load(&w, true, "X=1\n");
	assert_string_equal(one->services[0].url, two->services[0].url); /* port and secret */
	assert_string_equal(one->services[0].spec.config_hash, two->services[0].spec.config_hash);
	assert_string_equal(one->signature, two->signature);
	assert_string_equal(keyvals_get(&one->app_ports, "PORT"), keyvals_get(&two->app_ports, "PORT"));
	assert_true(strlen(keyvals_get(&one->services[0].variables, "password")) >= 20);
	model_free(two);

	const char *changed = "services:\n  db: { image: fakedb, environment: { FAKE_USER: other } }\n" PROCESS;
	assert_int_equal(file_write_atomic(w.root_fd, "compose.yaml", changed, strlen(changed), 0644), 0);
	two = load(&w, true, "");
	assert_string_not_equal(one->services[0].spec.config_hash, two->services[0].spec.config_hash);
	assert_string_not_equal(one->signature, two->signature);
	model_free(one);
	model_free(two);
	workspace_release(&w);
}

static void equal_templates_have_one_key(void **state)
{
	const char *const composes[] = {
	    "services:\n  db: { image: fakedb, environment: { FAKE_PASSWORD: one } }\n" PROCESS,
	    "services:\n  other: { image: fakedb, environment: { FAKE_PASSWORD: one }, ports: ['99:1234'] }\n" PROCESS,
	    "services:\n  db: { image: fakedb, environment: { FAKE_PASSWORD: two } }\n" PROCESS};
	char keys[3][128];
	for (size_t i = 0; i < 3; i++) {
		struct workspace w;
		workspace_new(&w, false, composes[i]);
		struct model *m = load(&w, true, "");
		snprintf(keys[i], sizeof keys[i], "%s", m->services[0].spec.process->template_key);
		assert_null(strchr(keys[i], '/'));
		model_free(m);
		workspace_release(&w);
	}
	assert_string_equal(keys[0], keys[1]);
	assert_string_not_equal(keys[0], keys[2]);
}

static void nothing_is_made_for_what_nobody_asked_for(void **state)
{
	struct workspace w;
	workspace_new(
	    &w, false,
	    "services:\n  db: { image: fakedb }\nx-aether: { backend: process, env: { U: '{{services.db.url}}' } }\n");
	struct model *m = load(&w, false, "");
	assert_int_equal(model_external_port(&m->services[0], 0), 0);
	assert_null(m->services[0].url);
	assert_int_equal(m->env.count, 0);
	assert_string_equal(keyvals_get(&m->services[0].variables, "password"), "");
	struct keyvals out = KEYVALS_INIT;
	model_generated(m, &out, &out);
	assert_null(keyvals_get(&out, "DB_PORT"));
	keyvals_release(&out);
	model_free(m);
	workspace_release(&w);
}

static void a_published_number_is_the_main_checkouts_alone(void **state)
{
	struct workspace main_one, other;
	const char *compose = "services:\n  db: { image: fakedb, ports: ['41234:1234'] }\n" PROCESS;
	workspace_new(&main_one, true, compose);
	workspace_new(&other, false, compose);
	struct model *a = load(&main_one, true, ""), *b = load(&other, true, "");
	assert_int_equal(model_external_port(&a->services[0], 1234), 41234);
	assert_int_not_equal(model_external_port(&b->services[0], 1234), 41234);
	model_free(a);
	model_free(b);
	workspace_release(&main_one);
	workspace_release(&other);
}

static int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, size) | listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&a, &size);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static void a_strict_number_is_had_or_refused(void **state)
{
	struct workspace one, two;
	uint16_t taken;
	int fd = listen_somewhere(&taken);
	cleanup_free char *compose = xasprintf("services:\n"
	                                       "  db: { image: fakedb, ports: ['41235:1234', '9999'] }\n"
	                                       "  other: { image: fakedb, ports: ['%u:1234'] }\n"
	                                       "x-aether: { backend: process, host_ports: strict }\n",
	                                       taken);
	workspace_new(&one, false, compose);
	workspace_new(&two, false, compose);
	struct model *a = load(&one, true, ""), *b = load(&two, true, "");
	assert_int_equal(model_external_port(&a->services[0], 1234), 41235);
	assert_true(model_external_port(&a->services[0], 9999) != 0); /* any will do */
	assert_false(error_is_set(&a->services[0].unsupported));
	assert_int_equal(model_external_port(&b->services[0], 1234), 0);
	assert_null(b->services[0].url);
	assert_true(model_is_refused(&b->services[0]));
	assert_non_null(strstr(b->services[0].unsupported.message, one.id.root));
	cleanup_free char *self = xasprintf("test_model (pid %d) uses it", (int)getpid());
	assert_true(model_is_refused(&a->services[1]));
	assert_non_null(strstr(a->services[1].unsupported.message, self));
	model_free(a);
	model_free(b);
	close(fd);
	assert_int_equal(store_ports_release(store, one.id.namespace_, NULL), 0);
	b = load(&two, true, "");
	assert_int_equal(model_external_port(&b->services[0], 1234), 41235);
	assert_int_equal(model_external_port(&b->services[1], 1234), taken);
	assert_int_equal(strv_len(b->warnings), 0);
	model_free(b);
	workspace_release(&one);
	workspace_release(&two);
}

static void readiness_is_asked_in_this_order(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  own: { image: fakedb, healthcheck: { test: 'true' }, x-aether: { ready: { log: 'up' } } }\n"
	              "  recipe: { image: fakedb, ports: ['80'], healthcheck: { test: 'true' } }\n"
	              "  health: { healthcheck: { test: ['CMD', 'check'] }, x-aether: { command: ./run }, ports: ['80'] }\n"
	              "  port: { x-aether: { command: ./run }, ports: ['53/udp', '80'] }\n"
	              "  none: { x-aether: { command: ./run } }\n" PROCESS);
	struct model *m = load(&w, true, "");
	assert_int_equal(m->services[0].ready.kind, PROBE_LOG);
	assert_int_equal(m->services[1].ready.kind, PROBE_TCP);
	assert_string_equal(m->services[1].ready.send, "hi");
	assert_int_equal(m->services[1].ready.port, 1234);
	assert_int_equal(m->services[2].ready.kind, PROBE_EXEC);
	assert_int_equal(m->services[3].ready.kind, PROBE_TCP);
	assert_int_equal(m->services[3].ready.port, 80);
	assert_int_equal(m->services[4].ready.kind, PROBE_NONE);
	assert_true(m->services[4].one_shot);
	assert_false(m->services[3].one_shot);
	assert_false(trust_is_given(&m->trust));
	model_free(m);
	workspace_release(&w);
}

/* A container's check may find what nobody else does. */
static void what_a_check_has_found_is_reached_too(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  checked: { image: fakedb, healthcheck: { test: 'true' } }\n"
	              "  named: { image: fakedb, ports: ['80', '1234'], healthcheck: { test: 'true' } }\n"
	              "  other: { image: fakedb, ports: ['4321'], healthcheck: { test: 'true' } }\n"
	              "  own: { image: fakedb, x-aether: { ready: { log: 'up' } } }\n"
	              "  disabled: { image: fakedb, healthcheck: { disable: true } }\n"
	              "  second: { image: fakedb, ports: ['80', '1234'] }\n"
	              "  elsewhere: { image: fakedb, ports: ['4321'] }\n"
	              "x-aether: { backend: 'unix:///nowhere.sock' }\n");
	struct model *m = load(&w, true, "");
	static const struct {
		enum probe_kind ready, reached;
		uint16_t port;
	} expected[] = {{PROBE_EXEC, PROBE_TCP}, {PROBE_EXEC, PROBE_TCP}, {PROBE_EXEC, PROBE_NONE}, {PROBE_LOG, PROBE_NONE}, {PROBE_TCP, PROBE_NONE, 1234}, {PROBE_TCP, PROBE_NONE, 1234}, {PROBE_TCP, PROBE_NONE}};
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		assert_int_equal(m->services[i].ready.kind, expected[i].ready);
		assert_int_equal(m->services[i].reached.kind, expected[i].reached);
		assert_int_equal(m->services[i].ready.port, expected[i].port);
		assert_int_equal(m->services[i].reached.port, expected[i].reached == PROBE_NONE ? 0 : 1234);
	}
	model_free(m);
	workspace_release(&w);
}

static void an_engine_that_cannot_be_used_is_said(void **state)
{
	static const char *const values[][2] = {{"DOCKER_HOST", "ssh://me@nowhere"}, {"DOCKER_CONTEXT", "of-yesterday"}};
	struct workspace w;
	workspace_new(&w, false, "services: { db: { image: fakedb } }\nx-aether: { backend: auto }\n");
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		setenv(values[i][0], values[i][1], 1);
		const char *chosen = NULL;
		for (int again = 0; again < 2; again++) { /* also when it has been decided */
			struct model *m = load_with(&w, false, "", chosen);
			cleanup_free char *warnings = joined(m->warnings);
			assert_non_null(strstr(warnings, "backend auto: "));
			assert_non_null(strstr(warnings, values[i][1]));
			chosen = strcmp(m->backend, "podman") ? "process" : "podman";
			assert_string_equal(m->backend, chosen);
			model_free(m);
		}
		unsetenv(values[i][0]);
	}
	workspace_release(&w);
}

static void a_client_of_a_database_is_none(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  migrate: { image: fakedb, command: fake-client -h db, depends_on: [db] }\n"
	              "  second: { image: fakedb }\n"
	              "  db: { image: fakedb, ports: ['1234'], environment: { FAKE_USER: me } }\n"
	              "x-aether: { backend: 'unix:///nowhere.sock' }\n");
	struct model *m = load(&w, true, "");
	const struct model_service *migrate = &m->services[0];
	cleanup_keyvals struct keyvals out = KEYVALS_INIT;
	assert_null(migrate->recipe);
	assert_int_equal(migrate->n_ports, 0);
	assert_int_equal(migrate->spec.n_ports, 0);
	assert_int_equal(migrate->spec.env->count, 0);
	assert_true(migrate->one_shot);
	model_generated(m, &out, &out);
	assert_false(keyvals_has(&out, "MIGRATE_URL"));
	assert_true(keyvals_has(&out, "SECOND_URL"));
	assert_string_equal(keyvals_get(&out, "FAKE_URL"), m->services[2].url); /* it publishes one */
	assert_string_equal(keyvals_get(&out, "FAKE_USER"), "me");
	model_free(m);
	workspace_release(&w);

	workspace_new(&w, false, "services:\n  migrate: { image: fakedb, command: fake-client -h db }\n" PROCESS);
	m = load(&w, true, "");
	assert_int_equal(m->services[0].unsupported.code, ERROR_IMAGE_NOT_FOUND);
	assert_false(model_is_refused(&m->services[0]));
	model_free(m);
	workspace_release(&w);
}

static void a_command_gets_what_env_gives(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  db: { image: fakedb }\n"
	              "  web: { environment: { MODE: dev }, ports: ['80'], x-aether: { command: ['./run', '$$PORT', 'a "
	              "b'], env: { EXTRA: '1' } } }\n"
	              "x-aether: { backend: process, env: { LINK: 'x{{services.db.ports.1234}}' } }\n");
	struct model *m = load(&w, true, "MINE=2\n");
	const struct model_service *web = model_service(m, "web");
	const struct keyvals *env = web->spec.process->env;
	char port[8], link[16];
	snprintf(port, sizeof port, "%u", model_external_port(web, 80));
	snprintf(link, sizeof link, "x%u", model_external_port(model_service(m, "db"), 1234));
	assert_string_equal(keyvals_get(env, "PORT"), port);
	assert_string_equal(keyvals_get(env, "MODE"), "dev");
	assert_string_equal(keyvals_get(env, "EXTRA"), "1");
	assert_string_equal(keyvals_get(env, "MINE"), "2");
	assert_string_equal(keyvals_get(env, "LINK"), link);
	assert_string_equal(keyvals_get(env, "DB_URL"), model_service(m, "db")->url);
	assert_non_null(keyvals_get(env, "PATH"));
	cleanup_free char *program = xasprintf("%s/./run", w.id.root);
	assert_string_equal(web->spec.process->command[0], program);
	assert_string_equal(web->spec.process->command[1], port);
	assert_string_equal(web->spec.process->command[2], "a b");
	assert_string_equal(web->spec.process->directory, w.id.root);
	model_free(m);
	workspace_release(&w);
}

static void a_commands_peers_are_where_they_are(void **state)
{
	struct workspace w;
	const char *compose = "services:\n"
	                      "  db: { image: fakedb, hostname: database }\n"
	                      "  web:\n"
	                      "    environment:\n"
	                      "      A: 'fake://u:p$$x@db:1234/x?y=db'\n"
	                      "      B: database:1234\n"
	                      "      DB_HOST: db\n"
	                      "      FAR: 'fake://db.example:1234/'\n"
	                      "      NAME: db\n"
	                      "    x-aether: { command: ./run, env: { RAW: 'db:1234' } }\n"
	                      "x-aether: { backend: process, rewrite: ";
	for (int on = 0; on < 2; on++) {
		cleanup_free char *text = xasprintf("%s%s }\n", compose, on ? "on" : "off");
		workspace_new(&w, false, text);
		struct model *m = load(&w, true, "");
		const struct keyvals *env = model_service(m, "web")->spec.process->env;
		uint16_t port = model_external_port(model_service(m, "db"), 1234);
		cleanup_free char *a = xasprintf("fake://u:p$x@127.0.0.1:%u/x?y=db", port), *b = xasprintf("127.0.0.1:%u", port),
		                  *number = xasprintf("%u", port);
		assert_string_equal(keyvals_get(env, "A"), on ? a : "fake://u:p$x@db:1234/x?y=db");
		assert_string_equal(keyvals_get(env, "B"), on ? b : "database:1234");
		assert_string_equal(keyvals_get(env, "DB_HOST"), on ? "127.0.0.1" : "db");
		assert_string_equal(keyvals_get(env, "DB_PORT"), number);
		assert_string_equal(keyvals_get(env, "FAR"), "fake://db.example:1234/");
		assert_string_equal(keyvals_get(env, "NAME"), "db");
		assert_string_equal(keyvals_get(env, "RAW"), "db:1234");
		model_free(m);
		workspace_release(&w);
	}
}

static void volumes_lie_in_the_generation(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  db: { image: fakedb, volumes: ['data:/var/lib/fake', './seed:/seed:ro', '/cache'] }\n"
	              "  bound: { image: fakedb, volumes: ['./here:/var/lib/fake'] }\n"
	              "volumes: { data: {} }\n" PROCESS);
	struct model *m = load(&w, true, "");
	const struct service_spec *db = &model_service(m, "db")->spec;
	cleanup_free char *named = xasprintf("%s/data/3/" SPEC_VOLUMES "/data", w.id.state_dir);
	cleanup_free char *anonymous = xasprintf("%s/data/3/" SPEC_VOLUMES "/db.cache", w.id.state_dir);
	cleanup_free char *seed = xasprintf("%s/seed", w.id.root);
	assert_int_equal(db->n_volumes, 3);
	assert_string_equal(db->volumes[0].source, named);
	assert_string_equal(db->process->data_dir, named); /* where the image keeps its data */
	assert_string_equal(db->volumes[1].source, seed);
	assert_true(db->volumes[1].read_only);
	assert_string_equal(db->volumes[2].source, anonymous);
	cleanup_free char *own = xasprintf("%s/data/3/bound", w.id.state_dir);
	assert_string_equal(model_service(m, "bound")->spec.process->data_dir, own); /* never a directory of the user's */
	cleanup_free char *warnings = joined(m->warnings);
	assert_non_null(strstr(warnings, "bound"));
	model_free(m);
	workspace_release(&w);
}

static const struct volume_spec *volume_at(const struct model *m, const char *service)
{
	return &model_service(m, service)->spec.volumes[0];
}

/* What POST /containers/create gets of the service. new */
static json_t *created(const struct model *m, const char *service, unsigned api)
{
	const struct engine e = {.namespace_ = (char *)"ns", .workspace_root = (char *)"/w", .api = api};
	struct engine_plan *p = engine_plan_new(&e, &model_service(m, service)->spec);
	engine_options_settle(&e, p->create);
	json_t *create = json_incref(p->create);
	engine_plan_free(p);
	return create;
}

static void assert_json(json_t *value, const char *expected)
{
	cleanup_free char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	assert_string_equal(text ? text : "", expected);
}

static void what_only_a_container_has_reaches_it(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  a:\n"
	              "    image: x\n"
	              "    logging: { driver: local, options: { max-size: 1m, max-file: 3 } }\n"
	              "    annotations: { com.example: 'yes' }\n"
	              "    mac_address: 02:42:ac:11:65:43\n"
	              "    labels: { own: above }\n"
	              "    label_file: [one.labels, ./two.labels]\n"
	              "    blkio_config:\n"
	              "      weight: 300\n"
	              "      weight_device: [{ path: /dev/sda, weight: 400 }]\n"
	              "      device_read_bps: [{ path: /dev/sda, rate: 1mb }]\n"
	              "      device_write_iops: [{ path: /dev/sda, rate: 30 }]\n"
	              "    post_start: [{ command: sh -c 'a b', user: root, environment: { A: 1 } }, { command: [x], privileged: true, working_dir: /d }]\n"
	              "    pre_stop: [{ command: [last] }]\n"
	              "  plain: { image: x, logging: { options: { tag: t } } }\n"
	              "  none: { image: x }\n"
	              "  lacks: { image: x, label_file: absent }\n"
	              "x-aether: { backend: docker }\n");
	assert_int_equal(file_write_atomic(w.root_fd, "one.labels", "one=1\nown=beneath\n", 18, 0644), 0);
	assert_int_equal(file_write_atomic(w.root_fd, "two.labels", "one=2\n", 6, 0644), 0);
	struct model *m = load(&w, true, "");
	json_t *a = created(m, "a", 41), *newer = created(m, "a", 44), *plain = created(m, "plain", 41), *none = created(m, "none", 41);
	json_t *host = json_object_get(a, "HostConfig"), *labels = json_object_get(a, "Labels"), *bare = json_object_get(none, "HostConfig");
	assert_json(json_object_get(host, "LogConfig"), "{\"Config\":{\"max-file\":\"3\",\"max-size\":\"1m\"},\"Type\":\"local\"}");
	assert_json(json_object_get(json_object_get(plain, "HostConfig"), "LogConfig"), "{\"Config\":{\"tag\":\"t\"},\"Type\":\"\"}");
	assert_json(json_object_get(host, "Annotations"), "{\"com.example\":\"yes\"}");
	assert_json(json_object_get(labels, "one"), "\"2\"");
	assert_json(json_object_get(labels, "own"), "\"above\"");
	assert_json(json_object_get(host, "BlkioWeight"), "300");
	assert_json(json_object_get(host, "BlkioWeightDevice"), "[{\"Path\":\"/dev/sda\",\"Weight\":400}]");
	assert_json(json_object_get(host, "BlkioDeviceReadBps"), "[{\"Path\":\"/dev/sda\",\"Rate\":1048576}]");
	assert_json(json_object_get(host, "BlkioDeviceWriteIOps"), "[{\"Path\":\"/dev/sda\",\"Rate\":30}]");
	assert_json(json_object_get(a, "MacAddress"), "\"02:42:ac:11:65:43\"");
	cleanup_free char *hooks = joined(model_service(m, "a")->spec.container->post_start);
	assert_string_equal(hooks, "{\"AttachStderr\":true,\"AttachStdout\":true,\"Cmd\":[\"sh\",\"-c\",\"a b\"],\"Env\":[\"A=1\"],\"Privileged\":false,\"User\":\"root\"} "
	                           "{\"AttachStderr\":true,\"AttachStdout\":true,\"Cmd\":[\"x\"],\"Env\":[],\"Privileged\":true,\"WorkingDir\":\"/d\"}");
	assert_json(json_object_get(labels, "aether.pre-stop"),
	            "\"[{\\\"AttachStderr\\\":true,\\\"AttachStdout\\\":true,\\\"Cmd\\\":[\\\"last\\\"],\\\"Env\\\":[],\\\"Privileged\\\":false}]\"");
	assert_null(json_object_get(newer, "MacAddress"));
	assert_json(json_object_get(json_object_get(json_object_get(json_object_get(newer, "NetworkingConfig"), "EndpointsConfig"), "ns"), "MacAddress"), "\"02:42:ac:11:65:43\"");
	assert_null(json_object_get(bare, "LogConfig"));
	assert_null(json_object_get(bare, "Annotations"));
	assert_null(json_object_get(none, "MacAddress"));
	assert_non_null(strstr(model_service(m, "lacks")->unsupported.message, "absent"));
	assert_int_equal(strv_len(m->warnings), 0);
	json_decref(a);
	json_decref(newer);
	json_decref(plain);
	json_decref(none);
	model_free(m);
	workspace_release(&w);
}

static void hear(void *arg, enum diagnostic_level level, const char *service, const char *field, const char *text, const char *hint)
{
	char **said = arg, *before = *said;
	*said = xasprintf("%s%s: %s; ", before ? before : "", field, text);
	free(before);
}

static void mounts_are_as_they_are_said(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  a:\n"
	              "    image: x\n"
	              "    volumes:\n"
	              "      - { type: tmpfs, target: /still, read_only: true }\n"
	              "      - { type: tmpfs, target: /small, read_only: true, tmpfs: { size: 1m } }\n"
	              "      - { type: tmpfs, target: /t }\n"
	              "      - { type: bind, source: /etc, target: /here, bind: { create_host_path: false, selinux: z } }\n"
	              "      - { type: bind, source: /usr, target: /there, read_only: true, bind: { create_host_path: false } }\n"
	              "      - { type: volume, target: /v, volume: { labels: { mine: 'yes' } } }\n"
	              "x-aether: { backend: docker }\n");
	struct model *m = load(&w, true, "");
	json_t *a = created(m, "a", 41), *host = json_object_get(a, "HostConfig");
	assert_json(json_object_get(host, "Tmpfs"), "{\"/small\":\"size=1048576,ro\",\"/still\":\"ro\",\"/t\":\"\"}");
	assert_json(json_object_get(host, "Binds"), "[\"/etc:/here:rw,z\"]");
	assert_int_equal(json_array_size(json_object_get(host, "Mounts")), 2);
	assert_string_equal(keyvals_get(mounted(m, "a", "/v")->labels, "mine"), "yes");
	assert_int_equal(strv_len(m->warnings), 0);
	json_decref(a);
	model_free(m);
	workspace_release(&w);
}

/* Who has no network of its own has no address on it, and Podman is told of the drivers that it has. */
static void what_an_engine_would_refuse_it_is_not_told(void **state)
{
	struct workspace w;
	workspace_new(&w, false, "services: { a: { image: x, network_mode: host, mac_address: 02:42:ac:11:65:43, logging: { driver: syslog } }, b: { image: x, logging: { driver: none }, annotations: { a: b } } }\n"
	                         "x-aether: { backend: docker }\n");
	struct model *m = load(&w, true, "");
	struct engine podman = {.namespace_ = (char *)"ns", .workspace_root = (char *)"/w", .api = 41, .podman = true};
	json_t *docker = created(m, "a", 41);
	struct engine_plan *a = engine_plan_new(&podman, &model_service(m, "a")->spec), *b = engine_plan_new(&podman, &model_service(m, "b")->spec);
	engine_options_settle(&podman, a->create);
	engine_options_settle(&podman, b->create);
	char *said = NULL;
	engine_check_options(&podman, &model_service(m, "a")->spec, hear, &said);
	engine_check_options(&podman, &model_service(m, "b")->spec, hear, &said);
	assert_string_equal(said, "logging: Podman has no driver syslog, and logs as it does by itself; annotations: not used, for that takes Docker 24; ");
	free(said);
	assert_null(json_object_get(docker, "MacAddress"));
	assert_non_null(json_object_get(json_object_get(docker, "HostConfig"), "LogConfig"));
	assert_null(json_object_get(json_object_get(a->create, "HostConfig"), "LogConfig"));
	assert_non_null(json_object_get(json_object_get(b->create, "HostConfig"), "LogConfig"));
	engine_plan_free(a);
	engine_plan_free(b);
	json_decref(docker);
	model_free(m);
	workspace_release(&w);
}

static const char two_networks[] =
    "services:\n"
    "  web: { image: x, networks: { front: { ipv4_address: 172.28.0.5, aliases: [www] }, back: { ipv4_address: 10.9.0.5 } } }\n"
    "  db: { image: x, networks: { back: { mac_address: 02:42:ac:11:65:43 }, theirs: {} } }\n"
    "  proxy: { image: x, networks: { theirs: { ipv4_address: 10.1.2.3, mac_address: 02:42:ac:11:65:44 } } }\n"
    "networks:\n"
    "  front:\n"
    "    ipam: { config: [{ subnet: 'fd00::/64' }, { subnet: 172.28.0.0/16, gateway: 172.28.0.1, ip_range: 172.28.5.0/24 }] }\n"
    "    driver_opts: { com.docker.network.driver.mtu: 1400, one: a, com.docker.network.bridge.name: br-shop }\n"
    "    labels: { of: front, first: 'yes' }\n"
    "  back:\n"
    "    ipam: { config: [{ subnet: 10.9.0.0/24 }] }\n"
    "    driver_opts: { com.docker.network.driver.mtu: 1400, one: b, com.docker.network.bridge.name: br-shop }\n"
    "    labels: [of=back, second=yes]\n"
    "  theirs: { external: true }\n"
    "x-aether: { backend: docker }\n";

/* All of them are one network: of what they say of it, what fits together. */
static void the_network_is_as_the_files_own_ones(void **state)
{
	for (int main = 0; main < 2; main++) {
		struct workspace w;
		workspace_new(&w, main, two_networks);
		struct model *m = load(&w, true, "");
		json_t *network = json_loads(model_service(m, "db")->spec.network, 0, NULL), *created_db = created(m, "db", 41);
		assert_json(json_object_get(network, "Labels"), "{\"first\":\"yes\",\"of\":\"front\",\"second\":\"yes\"}");
		assert_json(json_object_get(network, "Options"), main ? "{\"com.docker.network.bridge.name\":\"br-shop\",\"com.docker.network.driver.mtu\":\"1400\"}" : "{\"com.docker.network.driver.mtu\":\"1400\"}");
		assert_json(json_object_get(network, "Subnet"), "\"172.28.0.0/16\"");
		assert_json(json_object_get(network, "Gateway"), "\"172.28.0.1\"");
		assert_json(json_object_get(network, "IPRange"), "\"172.28.5.0/24\"");
		assert_json(json_object_get(network, "Exact"), main ? "true" : "false");
		assert_string_equal(model_service(m, "web")->spec.container->ipv4_address, "172.28.0.5");
		assert_null(model_service(m, "proxy")->spec.container->ipv4_address);
		assert_null(model_service(m, "proxy")->spec.container->mac_address);
		assert_json(json_object_get(created_db, "MacAddress"), "\"02:42:ac:11:65:43\"");
		assert_true(warns(m, "networks.front: ipam (fd00::/64), driver_opts.one"));
		assert_true(warns(m, "networks.back: driver_opts.one"));
		assert_true(warns(m, "web: networks: ipv4_address"));
		assert_true(warns(m, "proxy: networks: mac_address, ipv4_address"));
		assert_int_equal(warns_of_subnet(m, &w, "networks.front: the subnet 172.28.0.0/16 is the main checkout's; here it is one that the engine chooses"), !main);
		json_decref(created_db);
		json_decref(network);
		model_free(m);
		workspace_release(&w);
	}
}

/* What docker compose is told is what the engine has made, whatever it was asked for. */
static void docker_compose_is_told_where_services_are(void **state)
{
	static const struct {
		bool main;
		const char *made; /* NULL: nothing yet */
		const char *pool, *web;
	} cases[] = {
	    {true, NULL, "[{\"gateway\":\"172.28.0.1\",\"ip_range\":\"172.28.5.0/24\",\"subnet\":\"172.28.0.0/16\"}]", "{\"ipv4_address\":\"172.28.0.5\"}"},
	    {false, NULL, "", "null"},
	    {false, "192.168.16.0/20", "[{\"gateway\":\"192.168.16.1\",\"ip_range\":\"192.168.21.0/24\",\"subnet\":\"192.168.16.0/20\"}]", "{\"ipv4_address\":\"192.168.16.5\"}"},
	    {true, "10.89.3.0/24", "[{\"gateway\":\"10.89.3.1\",\"subnet\":\"10.89.3.0/24\"}]", "{\"ipv4_address\":\"10.89.3.5\"}"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct workspace w;
		workspace_new(&w, cases[i].main, two_networks);
		cleanup_free char *path = xasprintf("%s/" BACKEND_SUBNET, w.id.state_dir);
		assert_int_equal(dir_make(AT_FDCWD, w.id.state_dir, 0700), 0);
		if (cases[i].made)
			assert_int_equal(file_write_atomic(AT_FDCWD, path, cases[i].made, strlen(cases[i].made), 0600), 0);
		struct model *m = load(&w, true, "");
		json_t *shape = json_loads("{\"services\":{\"web\":{\"networks\":{\"default\":null}},\"db\":{\"networks\":{\"default\":null}}},\"networks\":{\"default\":{\"name\":\"n\",\"ipam\":{}}}}", 0, NULL);
		beside_compose_network(shape, m->config, w.id.state_dir);
		json_t *services = json_object_get(shape, "services"), *network = json_object_get(json_object_get(shape, "networks"), "default");
		assert_json(json_object_get(json_object_get(network, "ipam"), "config"), cases[i].pool);
		assert_json(json_object_get(json_object_get(json_object_get(services, "web"), "networks"), "default"), cases[i].web);
		assert_json(json_object_get(json_object_get(services, "db"), "mac_address"), "\"02:42:ac:11:65:43\"");
		assert_json(json_object_get(json_object_get(network, "labels"), "second"), "\"yes\"");
		assert_json(json_object_get(json_object_get(network, "driver_opts"), "com.docker.network.driver.mtu"), "\"1400\"");
		assert_int_equal(warns_of_subnet(m, &w, "web: its address is"), cases[i].made != NULL);
		json_decref(shape);
		model_free(m);
		workspace_release(&w);
	}
}

/* Each of them is another container; who has none of them is the same as before they were known. */
static void what_came_later_counts_where_it_is_used(void **state)
{
	static const char *const options[] = {"logging: { driver: none }", "logging: { options: { none: '' } }", "annotations: { none: '' }", "mac_address: none", "blkio_config: { weight: 1 }",
	                                     "post_start: [{ command: a }]", "pre_stop: [{ command: a }]", "networks: { default: { ipv4_address: none } }", "external_links: [a]"};
	struct container_options o = CONTAINER_OPTIONS_INIT;
	uint64_t seen[12] = {container_options_hash(HASH_INIT, &o)};
	assert_true(seen[0] == 0x60b75cffb8905467); /* as of containers that are there */
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		cleanup_free char *compose = xasprintf("services: { a: { image: x, %s } }\nnetworks: { default: { ipam: { config: [{ subnet: 10.0.0.0/8 }] } } }\nx-aether: { backend: docker }\n", options[i]);
		struct workspace w;
		workspace_new(&w, false, compose);
		struct model *m = load(&w, true, "");
		seen[i + 1] = container_options_hash(HASH_INIT, model_service(m, "a")->spec.container);
		for (size_t k = 0; k <= i; k++)
			if (seen[k] == seen[i + 1])
				fail_msg("%s", options[i]);
		model_free(m);
		workspace_release(&w);
	}
}

/* Whatever way it is written, no process gets a directory of the user's to keep its data in, and nothing is warned of twice. */
static void bound_data_lies_in_our_state(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  short: { image: fakedb, volumes: ['./data:/var/lib/fake/'] }\n"
	              "  parent: { image: fakedb, volumes: ['./data:/var/lib'] }\n"
	              "  absolute: { image: fakedb, volumes: ['/srv/data:/var/lib/fake'] }\n"
	              "  long: { image: fakedb, volumes: [{ type: bind, source: ./data, target: /var/lib/fake }] }\n"
	              "  memory: { image: fakedb, tmpfs: /var/lib/fake }\n"
	              "  beside: { image: fakedb, volumes: ['./data:/var/lib/faker'] }\n" PROCESS);
	struct model *m = load(&w, true, "");
	cleanup_free char *warnings = joined(m->warnings);
	for (size_t i = 0; i < 5; i++) {
		const char *service = m->config->services[i].name;
		cleanup_free char *own = xasprintf("%s/data/3/%s", w.id.state_dir, service);
		cleanup_free char *says = xasprintf("%s: the data lies", service);
		assert_string_equal(model_service(m, service)->spec.process->data_dir, own);
		assert_int_equal(volume_at(m, service)->kind, VOLUME_ANONYMOUS);
		assert_string_equal(volume_at(m, service)->source, own);
		assert_int_equal(strstr(warnings, says) != NULL, i < 4);
	}
	assert_int_equal(volume_at(m, "beside")->kind, VOLUME_BIND);
	model_free(m);
	workspace_release(&w);
}

/* On a network that all workspaces share the file's names are the main checkout's. */
static void names_on_networks_of_others_are_the_main_checkouts(void **state)
{
	for (int main = 0; main < 2; main++) {
		struct workspace w;
		workspace_new(&w, main,
		              "services:\n"
		              "  web: { image: x, hostname: h, external_links: [c], networks: { proxy: { aliases: [site, shop] }, prox: { aliases: [near] }, inner: { aliases: [own] } } }\n"
		              "  apart: { image: x, networks: [inner], external_links: [c] }\n"
		              "networks: { proxy: { external: true, name: the-proxy }, prox: { external: true }, inner: {}, unused: { external: true } }\n"
		              "x-aether: { backend: docker }\n");
		struct model *m = load(&w, true, "");
		const struct container_options *o = model_service(m, "web")->spec.container;
		cleanup_free char *networks = joined(o->networks), *there = joined_with(o->network_names, '|');
		cleanup_free char *here = joined(model_service(m, "web")->spec.aliases);
		assert_string_equal(networks, "the-proxy prox");
		assert_string_equal(there, main ? "the-proxy web|the-proxy site|the-proxy shop|prox web|prox near" : "");
		assert_string_equal(here, "h site shop near own");
		assert_null(model_service(m, "apart")->spec.container->networks);
		assert_int_equal(warns(m, "networks.proxy: it is external, and on it the file's names are those of the main checkout's"), !main);
		assert_false(warns(m, "networks.unused"));
		assert_true(warns(m, "apart: external_links: not used"));
		assert_false(warns(m, "web: external_links"));
		model_free(m);
		workspace_release(&w);
	}
}

static void what_others_made_is_warned_of(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "name: app\n"
	              "services:\n"
	              "  db: { image: fakedb, container_name: app-db, volumes: ['d:/var/lib/fake'], networks: { n: { aliases: [pg] } } }\n"
	              "volumes: { d: { external: true }, own: {} }\n"
	              "networks: { n: { external: true }, inner: {} }\n" PROCESS);
	struct model *m = load(&w, true, "");
	assert_int_equal(strv_len(m->warnings), 2);
	assert_non_null(strstr(m->warnings[0], "volumes.d: it is external"));
	assert_non_null(strstr(m->warnings[1], "networks.n: it is external"));
	cleanup_envset struct envset set;
	model_environment(m, "", "A=fake://pg:1234/x\nB=fake://app-db:1234/x\n", &set);
	cleanup_free char *url = xasprintf("fake://127.0.0.1:%u/x", model_external_port(&m->services[0], 1234));
	assert_string_equal(envset_find(&set, "A")->value, url);
	assert_string_equal(envset_find(&set, "B")->value, url);
	model_free(m);
	workspace_release(&w);
}

static void what_cannot_run_says_why(void **state)
{
	struct workspace w;
	workspace_new(&w, false, "services:\n  odd: { image: 'example/odd:1', ports: ['3306:3306'] }\n  app: { build: ., ports: ['8080'] }\n" PROCESS);
	struct model *m = load(&w, true, "");
	assert_int_equal(m->services[0].unsupported.code, ERROR_IMAGE_NOT_FOUND);
	assert_non_null(strstr(m->services[0].unsupported.message, "example/odd:1"));
	assert_non_null(m->services[0].unsupported.hint);
	assert_int_equal(m->services[1].unsupported.code, ERROR_IMAGE_NOT_FOUND);
	assert_null(m->services[0].spec.process);
	/* what nobody runs has no variables; what is built is run by the user; a line of the user's never leads to another workspace's */
	cleanup_envset struct envset set;
	model_environment(m, "", "MINE=mysql://odd:3306/x\n", &set);
	assert_null(envset_find(&set, "ODD_URL"));
	assert_null(envset_find(&set, "ODD_HOST"));
	assert_null(envset_find(&set, "ODD_PORT"));
	assert_non_null(envset_find(&set, "APP_PORT"));
	assert_string_equal(envset_find(&set, "MINE")->service, "odd");
	model_free(m);
	workspace_release(&w);
}

/* A fresh workspace lacks what is not tracked; whose env_file that is fails when it is asked for, and no other. */
static void a_missing_env_file_is_one_services_fault(void **state)
{
	struct workspace w;
	workspace_new(&w, false,
	              "services:\n"
	              "  app: { build: ., env_file: ./apps/api/.env }\n"
	              "  own: { image: fakedb, env_file: [{ path: gone.env, required: false }, other.env] }\n"
	              "  db: { image: fakedb }\n" PROCESS);
	struct model *m = load(&w, true, "");
	assert_int_equal(m->services[0].unsupported.code, ERROR_IMAGE_NOT_FOUND); /* it could not run anyway */
	assert_false(model_is_refused(&m->services[0]));
	assert_true(model_is_refused(&m->services[1]));
	assert_string_equal(m->services[1].unsupported.message,
	                    "compose.yaml:3:73: services.own.env_file[1]: other.env: No such file or directory");
	assert_non_null(m->services[1].unsupported.hint);
	assert_false(error_is_set(&m->services[2].unsupported));
	model_free(m);
	workspace_release(&w);
}

static void broken_ones_name_their_fault(void **state)
{
	static const struct {
		const char *compose;
		enum error_code code;
		const char *says;
	} cases[] = {
	    {"services:\n  a: { image: fakedb, depends_on: [b] }\n  b: { image: fakedb, depends_on: [a] }\n",
	     ERROR_CONFIG_INVALID, "circle"},
	    {"services: { a: { image: fakedb } }\nx-aether: { backend: hovercraft }\n", ERROR_CONFIG_INVALID, "hovercraft"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct workspace w;
		struct model *m;
		struct error err = ERROR_INIT;
		workspace_new(&w, false, cases[i].compose);
		const struct model_params params = {.id = &w.id,
		                                    .root_fd = w.root_fd,
		                                    .recipes = recipes,
		                                    .store = store,
		                                    .user_text = "",
		                                    .generation = 1,
		                                    .uid = (uid_t)-1,
		                                    .plan = true};
		assert_true(model_load(&params, &m, &err) < 0);
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(strstr(err.message, cases[i].says));
		error_release(&err);
		workspace_release(&w);
	}
}

/* The next process does not ask again, unless the file is another one. */
static void versions_are_remembered(void **state)
{
	cleanup_free char *bin = xasprintf("%s/bin", scratch), *program = xasprintf("%s/versioned", bin);
	cleanup_free char *asked = xasprintf("%s/asked", scratch), *file = xasprintf("%s/programs", scratch);
	cleanup_free char *dir = xasprintf("%s/versioned", scratch), *recipe = xasprintf("%s/v.yaml", dir);
	cleanup_free char *script = xasprintf("#!/bin/sh\necho x >>%s\necho v=7.2\n", asked);
	cleanup_free char *text =
	    xasprintf("images: [v]\nport: 1\nprocess:\n  program: versioned\n  paths: ['%s']\n  package: v\n"
	              "  version: { pattern: 'v=([0-9]+)', arguments: ['-v'] }\n  command: ['{{bin}}/versioned']\n",
	              bin);
	assert_int_equal(mkdir(bin, 0755) | mkdir(dir, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, program, script, strlen(script), 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, recipe, text, strlen(text), 0644), 0);
	for (int i = 0; i < 4; i++) {
		char *const list[] = {dir, NULL};
		struct recipes *rs = NULL;
		struct stat st;
		char *found, *major;
		assert_int_equal(recipes_load(list, &rs, NULL), 0);
		recipes_remember(rs, file);
		if (i == 2) /* upgraded */
			assert_int_equal(file_write_atomic(AT_FDCWD, program, script, strlen(script), 0755), 0);
		assert_int_equal(recipe_find_program(rs, recipe_by_name(rs, "v"), "7", &found, &major, NULL), 0);
		assert_string_equal(major, "7");
		assert_int_equal(stat(asked, &st), 0);
		assert_int_equal(st.st_size, i < 2 ? 2 : 4);
		free(found);
		free(major);
		recipes_free(rs);
	}
}

static void sockets_have_short_paths(void **state)
{
	const struct identity id = {.socket_dir = (char *)"/run/user/1000/aether/s-12345678"};
	cleanup_free char *plain = model_run_dir(&id, "db");
	cleanup_free char *long_one =
	    model_run_dir(&id, "a-service-with-a-name-that-is-far-too-long-for-the-path-of-a-unix-socket");
	assert_string_equal(plain, "/run/user/1000/aether/s-12345678/db");
	assert_true(strlen(long_one) + strlen("/.s.PGSQL.29999") < 107);
}

static int group_setup(void **state)
{
	scratch = xasprintf("%s/model.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(scratch));
	recipe_dir = xasprintf("%s/recipes", scratch);
	assert_int_equal(mkdir(recipe_dir, 0755), 0);
	cleanup_free char *file = xasprintf("%s/fake.yaml", recipe_dir);
	assert_int_equal(file_write_atomic(AT_FDCWD, file, fake, strlen(fake), 0644), 0);
	char *const list[] = {recipe_dir, NULL};
	struct error err = ERROR_INIT;
	if (recipes_load(list, &recipes, &err) < 0)
		fail_msg("recipes: %s", err.message);
	assert_int_equal(store_open(scratch, &store, NULL), 0);
	return 0;
}

static int group_teardown(void **state)
{
	recipes_free(recipes);
	store_close(store);
	tree_remove(AT_FDCWD, scratch);
	free(recipe_dir);
	free(scratch);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_recipe_becomes_a_process),
	    cmocka_unit_test(an_image_is_told),
	    cmocka_unit_test(what_is_generated_is_stable),
	    cmocka_unit_test(equal_templates_have_one_key),
	    cmocka_unit_test(nothing_is_made_for_what_nobody_asked_for),
	    cmocka_unit_test(a_published_number_is_the_main_checkouts_alone),
	    cmocka_unit_test(a_strict_number_is_had_or_refused),
	    cmocka_unit_test(readiness_is_asked_in_this_order),
	    cmocka_unit_test(what_a_check_has_found_is_reached_too),
	    cmocka_unit_test(an_engine_that_cannot_be_used_is_said),
	    cmocka_unit_test(a_client_of_a_database_is_none),
	    cmocka_unit_test(a_command_gets_what_env_gives),
	    cmocka_unit_test(a_commands_peers_are_where_they_are),
	    cmocka_unit_test(volumes_lie_in_the_generation),
	    cmocka_unit_test(bound_data_lies_in_our_state),
	    cmocka_unit_test(what_only_a_container_has_reaches_it),
	    cmocka_unit_test(mounts_are_as_they_are_said),
	    cmocka_unit_test(what_an_engine_would_refuse_it_is_not_told),
	    cmocka_unit_test(the_network_is_as_the_files_own_ones),
	    cmocka_unit_test(docker_compose_is_told_where_services_are),
	    cmocka_unit_test(what_came_later_counts_where_it_is_used),
	    cmocka_unit_test(names_on_networks_of_others_are_the_main_checkouts),
	    cmocka_unit_test(what_others_made_is_warned_of),
	    cmocka_unit_test(containers_have_their_peers_by_name),
	    cmocka_unit_test(containers_beside_processes_have_the_hosts),
	    cmocka_unit_test(network_modes_decide_who_has_ports),
	    cmocka_unit_test(volumes_are_others_or_as_they_are_said),
	    cmocka_unit_test(what_cannot_run_says_why),
	    cmocka_unit_test(a_missing_env_file_is_one_services_fault),
	    cmocka_unit_test(broken_ones_name_their_fault),
	    cmocka_unit_test(versions_are_remembered),
	    cmocka_unit_test(sockets_have_short_paths),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
