/* `.env` of a large project: 200 variables of the user's in two layers, ten services, a hundred generated ones. What a read after a change
 * of any layer costs beside the file system: laying them over each other, rewriting, and the text. */
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/envfile.h"
#include "provisioner/envset.h"
#include "samples.h"

#define ROUNDS 1000
#define SERVICES 10
#define VARIABLES 200

struct project {
	struct buffer main, own;
	struct keyvals offered, imposed;
	struct rewrite_port ports[SERVICES];
	struct rewrite_target targets[SERVICES];
	char names[SERVICES][16];
	struct rewrite_map map;
};

/* A third of them URLs of services, a third plain, the rest references, ports, hosts, and a remote database. */
static void add_variable(struct buffer *out, int i)
{
	int s = i % SERVICES;
	switch (i % 6) {
	case 0:
		buffer_printf(out, "URL_%d=postgresql+asyncpg://user:p%%40ss@service%d:%d/app?sslmode=disable&x=${PLAIN_1}\n", i, s, 5000 + s);
		break;
	case 1:
		buffer_printf(out, "PLAIN_%d=\"some value, with blanks and a number %d\"\n", i, i);
		break;
	case 2:
		buffer_printf(out, "S%d_PORT=%d\n", i, 5000 + s);
		break;
	case 3:
		buffer_printf(out, "S%d_HOST=service%d\n", i, s);
		break;
	case 4:
		buffer_printf(out, "LIST_%d=http://localhost:%d/,http://127.0.0.1:%d/health\n", i, 5000 + s, 5000 + (s + 1) % SERVICES);
		break;
	default:
		buffer_printf(out, "REMOTE_%d=postgres://db.example.com:5432/production\n", i);
	}
}

static void make(struct project *p)
{
	for (int s = 0; s < SERVICES; s++) {
		char key[32], value[64];
		snprintf(p->names[s], sizeof p->names[s], "service%d", s);
		p->ports[s] = (struct rewrite_port){(uint16_t)(5000 + s), (uint16_t)(5000 + s), (uint16_t)(21000 + s)};
		p->targets[s] = (struct rewrite_target){.service = p->names[s], .names = {p->names[s], NULL}, .ports = &p->ports[s], .n_ports = 1};
		for (int n = 0; n < 10; n++) {
			snprintf(key, sizeof key, "SERVICE%d_VALUE_%d", s, n);
			snprintf(value, sizeof value, "postgresql://127.0.0.1:%d/%d", 21000 + s, n);
			keyvals_set(&p->offered, key, value);
		}
	}
	p->map = (struct rewrite_map){p->targets, SERVICES, "127.0.0.1"};
	keyvals_set(&p->imposed, "AETHER_WORKSPACE", "bench");
	for (int i = 0; i < VARIABLES; i++)
		add_variable(i < VARIABLES / 2 ? &p->main : &p->own, i);
}

int main(void)
{
	static struct project p;
	static double layered[ROUNDS], rendered[ROUNDS];
	size_t length = 0, rewritten = 0;
	make(&p);
	const struct envset_params params = {buffer_str(&p.main), buffer_str(&p.own), &p.offered, &p.imposed, &p.map};
	for (int i = 0; i < ROUNDS; i++) {
		cleanup_envset struct envset set;
		cleanup_buffer struct buffer text = BUFFER_INIT;
		double began = samples_now_ms();
		envset_make(&params, &set);
		double middle = samples_now_ms();
		if (envfile_render(buffer_str(&p.own), &set, &text, NULL, NULL) < 0)
			return 1;
		rendered[i] = samples_now_ms() - middle;
		layered[i] = middle - began;
		length = text.len;
		rewritten = 0;
		for (size_t k = 0; k < set.count; k++)
			rewritten += set.items[k].service != NULL;
	}
	samples_print("200 variables: layered and rewritten", layered, ROUNDS);
	samples_print("  the text of .env", rendered, ROUNDS);
	printf("%zu of them rewritten; .env has %zu bytes\n", rewritten, length);
	keyvals_release(&p.offered);
	keyvals_release(&p.imposed);
	buffer_release(&p.main);
	buffer_release(&p.own);
	return 0;
}
