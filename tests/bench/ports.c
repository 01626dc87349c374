/* Ten ports leased in one transaction, alone and by ten processes at once; and whether any number is ever out twice. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/store.h"
#include "samples.h"

#define PROCESSES 10
#define PORTS 10
#define ROUNDS 100 /* of each process: 10,000 leases and releases of a number in all */

struct shared {
	_Atomic int gate;
	_Atomic unsigned duplicates, failures;
	_Atomic int owner[65536]; /* 0: nobody */
	double lease_ms[PROCESSES * ROUNDS];
	double first_ms[PROCESSES]; /* of a process that begins: open the store, lease */
};

static struct shared *shared;

static void claim(const struct port_lease *leases)
{
	for (int i = 0; i < PORTS; i++)
		if (atomic_exchange(&shared->owner[leases[i].port], 1))
			atomic_fetch_add(&shared->duplicates, 1);
}

static void give_back(const struct port_lease *leases)
{
	for (int i = 0; i < PORTS; i++)
		atomic_store(&shared->owner[leases[i].port], 0);
}

static void work(const char *dir, int process, int rounds)
{
	char name[32], keys[PORTS][16];
	struct store *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	snprintf(name, sizeof name, "aether-%08x-bench", (unsigned)process);
	double begin = samples_now_ms();
	int r = store_open(dir, &s, &err);
	for (int round = 0; r == 0 && round < rounds; round++) {
		struct port_lease leases[PORTS];
		for (int i = 0; i < PORTS; i++) {
			snprintf(keys[i], sizeof keys[i], "%d/tcp", 5000 + i);
			leases[i] = (struct port_lease){"db", keys[i], 0, 0};
		}
		double start = samples_now_ms();
		r = store_ports_lease(s, name, leases, PORTS, &err);
		double end = samples_now_ms();
		shared->lease_ms[process * rounds + round] = end - start;
		if (round == 0)
			shared->first_ms[process] = end - begin;
		if (r)
			break;
		claim(leases);
		give_back(leases);
		r = store_ports_release(s, name, &err);
	}
	if (r) {
		fprintf(stderr, "Error: %s\n", err.message);
		atomic_fetch_add(&shared->failures, 1);
	}
	store_close(s);
}

static void at_once(const char *dir, int processes, int rounds)
{
	atomic_store(&shared->gate, 0);
	for (int i = 0; i < processes; i++)
		if (fork() == 0) {
			while (!atomic_load(&shared->gate))
				usleep(100);
			work(dir, i, rounds);
			_exit(0);
		}
	atomic_store(&shared->gate, 1);
	while (wait(NULL) > 0)
		;
}

int main(void)
{
	const char *dir = getenv("AETHER_STATE_DIR");
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!dir || shared == MAP_FAILED) {
		fprintf(stderr, "Error: AETHER_STATE_DIR must name a directory for the measurement\n");
		return 2;
	}
	work(dir, 0, 1); /* makes the database */
	at_once(dir, 1, ROUNDS);
	samples_print("ten ports, one transaction, alone", shared->lease_ms, ROUNDS);
	at_once(dir, PROCESSES, 1);
	samples_print("the same, ten processes that begin at once", shared->lease_ms, PROCESSES);
	samples_print("  with opening the store", shared->first_ms, PROCESSES);
	at_once(dir, PROCESSES, ROUNDS);
	samples_print("the same, ten processes all the time", shared->lease_ms, PROCESSES * ROUNDS);
	printf("%d leases and releases of a number: %u duplicates, %u failures\n", PROCESSES * ROUNDS * PORTS,
	       atomic_load(&shared->duplicates), atomic_load(&shared->failures));
	return atomic_load(&shared->duplicates) || atomic_load(&shared->failures);
}
