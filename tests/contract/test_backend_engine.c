// engines: docker? podman?
// once
/* What every backend promises, over real container engines. */
#include "tests/contract/backend_suite.h"

/* Said as cmocka would say it of a test. */
static void say_missing(const char *name, const char *variable)
{
	const char *why = getenv(variable);
	printf("skip: %s: %s\n[  SKIPPED ] %s\n", name, why ? why : "no engine is named in the environment", name);
}

int main(void)
{
	static const struct {
		const char *name, *socket, *missing, *host;
	} engines[] = {{"docker", "DOCKER_SOCKET", "NO_DOCKER", "DOCKER_HOST"}, {"podman", "PODMAN_SOCKET", "NO_PODMAN", "CONTAINER_HOST"}};
	const char *names[3] = {NULL};
	size_t n = 0;
	for (size_t i = 0; i < 2; i++) {
		const char *socket = getenv(engines[i].socket);
		cleanup_free char *host = xasprintf("unix://%s", socket ? socket : "");
		if (!socket) {
			say_missing(engines[i].name, engines[i].missing);
			continue;
		}
		setenv(engines[i].host, host, 1);
		names[n++] = engines[i].name;
	}
	return run_suite(names);
}
