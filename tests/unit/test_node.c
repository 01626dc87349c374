/* fs/node and fs/names: records in shared memory, what a server makes of them when it begins, and that nothing of them is lost. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "fs/names.h"
#include "fs/node.h"

struct world {
	struct shared *shared;
	struct nodes *nodes;
	uint64_t next_ino;
};

static const struct stat root_stat = {.st_dev = 1, .st_ino = 2, .st_mode = S_IFDIR | 0755};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	w->shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	w->next_ino = 100;
	*state = w;
	return w->shared == MAP_FAILED || nodes_new(w->shared, &root_stat, &w->nodes, NULL);
}

static int teardown(void **state)
{
	struct world *w = *state;
	nodes_free(w->nodes);
	munmap(w->shared, SHARED_SIZE);
	free(w);
	return 0;
}

/* As if it were killed and the next one began. */
static void restart(struct world *w)
{
	nodes_free(w->nodes);
	assert_int_equal(nodes_new(w->shared, &root_stat, &w->nodes, NULL), 0);
}

static struct stat file_of(uint64_t ino, mode_t type, nlink_t links)
{
	return (struct stat){.st_dev = 1, .st_ino = ino, .st_mode = type | 0644, .st_nlink = links};
}

/* A lookup that finds the inode; its node id. */
static uint64_t found(struct world *w, uint64_t parent, const char *name, uint64_t ino, mode_t type, nlink_t links)
{
	uint32_t index = NODE_NONE;
	struct stat st = file_of(ino, type, links);
	assert_int_equal(node_enter(w->nodes, parent, name, &st, nodes_moves(w->nodes), &index), 0);
	return node_id(w->nodes, index);
}

static uint64_t new_dir(struct world *w, uint64_t parent, const char *name)
{
	return found(w, parent, name, w->next_ino++, S_IFDIR, 2);
}

static uint64_t new_file(struct world *w, uint64_t parent, const char *name)
{
	return found(w, parent, name, w->next_ino++, S_IFREG, 1);
}

static void forget(struct world *w, uint64_t id, uint64_t count)
{
	uint32_t index = node_index(w->nodes, id);
	assert_int_not_equal(index, NODE_NONE);
	node_forget(w->nodes, index, count);
}

static void assert_path(struct world *w, uint64_t id, const char *path)
{
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	uint32_t index = node_index(w->nodes, id);
	assert_int_not_equal(index, NODE_NONE);
	assert_int_equal(node_place(w->nodes, index, &place), 0);
	assert_string_equal(place.path, path);
	assert_int_equal(place.fd, -1);
}

static void assert_gone(struct world *w, uint64_t id)
{
	assert_int_equal(node_index(w->nodes, id), NODE_NONE);
}

static void unname(struct world *w, uint64_t id, uint64_t parent, const char *name)
{
	nodes_lock(w->nodes);
	node_unname(w->nodes, node_index(w->nodes, id), node_index(w->nodes, parent), name);
	nodes_unlock(w->nodes);
}

static struct node_rename rename_of(struct world *w, uint64_t id, uint64_t p1, const char *n1, uint64_t p2, const char *n2, uint64_t other)
{
	return (struct node_rename){.index = node_index(w->nodes, id), .parent = {node_index(w->nodes, p1), node_index(w->nodes, p2)},
	                            .name = {n1, n2}, .other = other ? node_index(w->nodes, other) : NODE_NONE, .exchange = other != 0};
}

static void paths_are_made_of_names(void **state)
{
	struct world *w = *state;
	uint64_t a = new_dir(w, NODE_ROOT, "a"), b = new_dir(w, a, "b"), f = new_file(w, b, "f");
	assert_path(w, NODE_ROOT, ".");
	assert_path(w, a, "a");
	assert_path(w, f, "a/b/f");
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	assert_int_equal(node_place_child(w->nodes, node_index(w->nodes, b), "new", &place), 0);
	assert_string_equal(place.path, "a/b/new");
	assert_int_equal(node_place_child(w->nodes, NODE_ROOT, "new", &place), 0);
	assert_string_equal(place.path, "new");
}

static void a_path_may_be_longer_than_any_buffer(void **state)
{
	struct world *w = *state;
	char name[256];
	memset(name, 'n', 255);
	name[255] = '\0';
	uint64_t at = NODE_ROOT;
	for (int i = 0; i < 100; i++)
		at = new_dir(w, at, name);
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	assert_int_equal(node_place_child(w->nodes, node_index(w->nodes, at), "x", &place), 0);
	assert_int_equal(strlen(place.path), 100 * 256 + 1);
	assert_string_equal(place.path + 100 * 256 - 2, "n/x");
}

static void references_are_counted_exactly(void **state)
{
	struct world *w = *state;
	uint64_t f = new_file(w, NODE_ROOT, "f");
	for (int i = 0; i < 9; i++)
		assert_true(found(w, NODE_ROOT, "f", 100, S_IFREG, 1) == f);
	forget(w, f, 9);
	assert_path(w, f, "f");
	forget(w, f, 1);
	assert_gone(w, f);
	uint64_t again = new_file(w, NODE_ROOT, "g");
	assert_int_equal((uint32_t)again, (uint32_t)f); /* the index, of another generation */
	assert_gone(w, f);
}

/* The kernel may forget a directory before what is in it. */
static void a_directory_stays_for_its_children(void **state)
{
	struct world *w = *state;
	uint64_t a = new_dir(w, NODE_ROOT, "a"), b = new_dir(w, a, "b"), f = new_file(w, b, "f");
	forget(w, a, 1);
	forget(w, b, 1);
	assert_path(w, f, "a/b/f");
	assert_int_equal(nodes_live(w->nodes), 3);
	restart(w);
	assert_path(w, f, "a/b/f");
	forget(w, f, 1);
	assert_int_equal(nodes_live(w->nodes), 0);
	assert_gone(w, a);
}

static void more_nodes_than_the_first_table_holds(void **state)
{
	struct world *w = *state;
	enum { MANY = 50000 };
	uint64_t *ids = calloc(MANY, sizeof(*ids)), dir = new_dir(w, NODE_ROOT, "d");
	char name[32];
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "file-%d", i);
		ids[i] = found(w, dir, name, 1000 + (uint64_t)i, S_IFREG, 1);
	}
	uint64_t began = now_monotonic_ms();
	restart(w);
	print_message("rebuilt %d nodes in %llu ms\n", MANY, (unsigned long long)(now_monotonic_ms() - began));
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(node_find(w->nodes, 1, 1000 + (uint64_t)i), (uint32_t)ids[i]);
		snprintf(name, sizeof(name), "d/file-%d", i);
		assert_path(w, ids[i], name);
	}
	for (int i = 0; i < MANY; i++)
		forget(w, ids[i], 1);
	assert_int_equal(nodes_live(w->nodes), 1);
	uint32_t high = w->shared->node_count;
	uint64_t used = w->shared->name_used;
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "other%d", i);
		ids[i] = found(w, dir, name, 900000 + (uint64_t)i, S_IFREG, 1);
	}
	assert_int_equal(w->shared->node_count, high); /* used again, both */
	assert_int_equal(w->shared->name_used, used);
	free(ids);
}

static void several_names_of_one_file(void **state)
{
	struct world *w = *state;
	uint64_t d = new_dir(w, NODE_ROOT, "d");
	uint64_t f = found(w, NODE_ROOT, "one", 50, S_IFREG, 3);
	assert_true(found(w, d, "two", 50, S_IFREG, 3) == f);
	assert_true(found(w, NODE_ROOT, "three", 50, S_IFREG, 3) == f);
	restart(w);
	assert_false(node_is_last_name(w->nodes, (uint32_t)f, NODE_ROOT, "one"));
	unname(w, f, NODE_ROOT, "one");
	assert_int_not_equal(node_index(w->nodes, f), NODE_NONE);
	forget(w, d, 1); /* "d/two" is still a name */
	unname(w, f, NODE_ROOT, "three");
	assert_path(w, f, "d/two");
	assert_true(node_is_last_name(w->nodes, (uint32_t)f, (uint32_t)d, "two"));
	unname(w, f, d, "two");
	assert_gone(w, d);
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	assert_int_equal(node_place(w->nodes, (uint32_t)f, &place), -ESTALE);
	assert_int_equal(node_record(w->nodes, (uint32_t)f)->unlinked, NODE_UNLINKED);
	assert_true(found(w, NODE_ROOT, "four", 50, S_IFREG, 1) == f); /* a name that was not known */
	assert_path(w, f, "four");
	assert_int_equal(node_record(w->nodes, (uint32_t)f)->unlinked, NODE_NAMED);
	forget(w, f, 4);
	assert_int_equal(nodes_live(w->nodes), 0);
}

static void names_beyond_the_bound_replace_the_first(void **state)
{
	struct world *w = *state;
	char name[32];
	uint64_t f = 0;
	for (int i = 0; i < NODE_NAMES_MAX + 10; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		f = found(w, NODE_ROOT, name, 50, S_IFREG, 1000);
	}
	assert_path(w, f, name);
	forget(w, f, NODE_NAMES_MAX + 10);
	assert_int_equal(nodes_live(w->nodes), 0);
	assert_int_equal(node_record(w->nodes, NODE_ROOT)->state, NODE_LIVE);
}

static void renames_take_everything_along(void **state)
{
	struct world *w = *state;
	uint64_t a = new_dir(w, NODE_ROOT, "a"), b = new_dir(w, a, "b"), f = new_file(w, b, "f"), c = new_dir(w, NODE_ROOT, "c");
	struct node_rename r = rename_of(w, b, a, "b", c, "z", 0);
	assert_int_equal(node_rename_begin(w->nodes, &r), 0);
	node_rename_end(w->nodes, true);
	assert_path(w, f, "c/z/f");
	r = rename_of(w, b, c, "z", NODE_ROOT, "y", 0);
	assert_int_equal(node_rename_begin(w->nodes, &r), 0);
	node_rename_end(w->nodes, false);
	assert_path(w, f, "c/z/f");
	r = rename_of(w, b, c, "z", NODE_ROOT, "a", a);
	assert_int_equal(node_rename_begin(w->nodes, &r), 0);
	node_rename_end(w->nodes, true);
	assert_path(w, f, "a/f");
	assert_path(w, a, "c/z");
	assert_false(node_rename_left(w->nodes, &r));
	forget(w, f, 1), forget(w, b, 1), forget(w, a, 1), forget(w, c, 1);
	assert_int_equal(nodes_live(w->nodes), 0);
}

/* A server that dies within one leaves it to the next to find out which of the two it was. */
static void a_rename_under_way_is_found(void **state)
{
	struct world *w = *state;
	for (int done = 0; done < 2; done++) {
		uint64_t a = new_dir(w, NODE_ROOT, "a"), f = new_file(w, a, "f"), g = new_file(w, NODE_ROOT, "g");
		struct node_rename r = rename_of(w, f, a, "f", NODE_ROOT, "g", g), left;
		assert_int_equal(node_rename_begin(w->nodes, &r), 0);
		restart(w);
		assert_true(node_rename_left(w->nodes, &left));
		assert_int_equal(left.index, (uint32_t)f);
		assert_int_equal(left.other, (uint32_t)g);
		assert_string_equal(left.name[0], "f");
		assert_string_equal(left.name[1], "g");
		assert_int_equal(left.parent[0], (uint32_t)a);
		node_rename_end(w->nodes, done);
		assert_path(w, f, done ? "g" : "a/f");
		assert_path(w, g, done ? "a/f" : "g");
		restart(w);
		assert_path(w, f, done ? "g" : "a/f");
		forget(w, f, 1), forget(w, g, 1), forget(w, a, 1);
		assert_int_equal(nodes_live(w->nodes), 0);
	}
}

static void what_moved_since_the_stat_is_looked_at_again(void **state)
{
	struct world *w = *state;
	uint64_t f = new_file(w, NODE_ROOT, "f");
	uint32_t before = nodes_moves(w->nodes), index;
	struct stat st = file_of(100, S_IFREG, 1);
	struct node_rename r = rename_of(w, f, NODE_ROOT, "f", NODE_ROOT, "g", 0);
	assert_int_equal(node_rename_begin(w->nodes, &r), 0);
	node_rename_end(w->nodes, true);
	assert_int_equal(node_enter(w->nodes, NODE_ROOT, "f", &st, before, &index), -EAGAIN);
	assert_path(w, f, "g");
	assert_int_equal(node_record(w->nodes, (uint32_t)f)->nlookup, 1);
}

static void an_inode_of_another_type_is_another_node(void **state)
{
	struct world *w = *state;
	uint64_t f = found(w, NODE_ROOT, "f", 50, S_IFREG, 1), d = found(w, NODE_ROOT, "f", 50, S_IFDIR, 2);
	assert_true(f != d);
	assert_int_equal(node_find(w->nodes, 1, 50), (uint32_t)d);
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	assert_int_equal(node_place(w->nodes, (uint32_t)f, &place), -ESTALE);
	forget(w, f, 1);
	assert_path(w, d, "f");
}

/* Records that say a directory is in itself would make every path endless. */
static void a_directory_is_never_below_itself(void **state)
{
	struct world *w = *state;
	uint64_t a = found(w, NODE_ROOT, "a", 50, S_IFDIR, 2), b = found(w, a, "b", 51, S_IFDIR, 2);
	uint64_t moved = found(w, b, "a", 50, S_IFDIR, 2); /* through another door */
	assert_true(moved != a);
	assert_int_equal(node_find(w->nodes, 1, 50), (uint32_t)moved);
}

static void a_descriptor_is_dropped_with_its_node(void **state)
{
	struct world *w = *state;
	uint64_t f = new_file(w, NODE_ROOT, "f"), g = new_file(w, NODE_ROOT, "g");
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), got;
	uint32_t index;
	node_set_fd(w->nodes, (uint32_t)f, fd);
	unname(w, f, NODE_ROOT, "f");
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	assert_int_equal(node_place(w->nodes, (uint32_t)f, &place), 0);
	assert_int_equal(place.fd, fd);
	assert_string_equal(place.path, "");
	assert_false(nodes_dropped(w->nodes));
	forget(w, g, 1);
	assert_false(nodes_dropped(w->nodes));
	forget(w, f, 1);
	assert_true(nodes_dropped(w->nodes));
	assert_int_not_equal((uint32_t)new_file(w, NODE_ROOT, "h"), (uint32_t)f); /* not before the keeper was told */
	assert_int_not_equal((uint32_t)new_file(w, NODE_ROOT, "i"), (uint32_t)f);
	assert_true(node_next_dropped(w->nodes, &index, &got));
	assert_int_equal(got, fd);
	assert_int_equal(index, (uint32_t)f);
	node_dropped(w->nodes, index);
	assert_false(node_next_dropped(w->nodes, &index, &got));
	assert_int_equal((uint32_t)new_file(w, NODE_ROOT, "j"), (uint32_t)f);
	close(fd);
}

static void random_life_with_restarts(void **state)
{
	struct world *w = *state;
	enum { FILES = 400, STEPS = 40000 };
	struct { uint64_t id, parent; unsigned refs; char name[40]; } files[FILES] = {0};
	uint64_t dirs[8];
	char name[40];
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "dir%d", i);
		dirs[i] = new_dir(w, i ? dirs[(i - 1) / 2] : NODE_ROOT, name);
	}
	srandom(1);
	for (int step = 0; step < STEPS; step++) {
		int i = (int)(random() % FILES), what = (int)(random() % 4);
		uint64_t dir = dirs[random() % 8], ino = 5000 + (uint64_t)i;
		if (what < 2 && files[i].refs == 0) {
			files[i].parent = dir;
			snprintf(files[i].name, sizeof(files[i].name), "%.*s%d", (int)(random() % 30), "abcdefghijklmnopqrstuvwxyzabcdefgh", i);
			files[i].id = found(w, dir, files[i].name, ino, S_IFREG, 1);
			files[i].refs = 1;
		} else if (what == 0) {
			assert_true(found(w, files[i].parent, files[i].name, ino, S_IFREG, 1) == files[i].id);
			files[i].refs++;
		} else if (what == 1 || (what == 2 && files[i].refs > 0)) {
			snprintf(name, sizeof(name), "r%ld-%d", random() % 100000, i);
			struct node_rename r = rename_of(w, files[i].id, files[i].parent, files[i].name, dir, name, 0);
			assert_int_equal(node_rename_begin(w->nodes, &r), 0);
			node_rename_end(w->nodes, true);
			files[i].parent = dir;
			strcpy(files[i].name, name);
		} else if (what == 3 && files[i].refs > 0) {
			forget(w, files[i].id, files[i].refs);
			files[i].refs = 0;
		}
		if (step % 4000 == 0)
			restart(w);
	}
	for (int i = 0; i < FILES; i++)
		if (files[i].refs)
			forget(w, files[i].id, files[i].refs);
	assert_int_equal(nodes_live(w->nodes), 8);
	assert_true(w->shared->name_used < 64 << 10);
	assert_true(w->shared->node_count < FILES + 100);
}

static void names_are_used_again(void **state)
{
	struct world *w = *state;
	struct names n;
	names_init(&n, w->shared);
	uint64_t first = names_put(&n, "first"), second = names_put(&n, "second name of some length, forty bytes");
	assert_string_equal(names_get(&n, second), "second name of some length, forty bytes");
	names_drop(&n, second);
	assert_int_equal(names_put(&n, "x"), second); /* a piece of it */
	uint64_t rest = names_put(&n, "0123456789abcdef0");
	assert_int_equal(rest, second + NAMES_GRAIN);
	assert_string_equal(names_get(&n, first), "first");
	uint64_t used = w->shared->name_used;
	names_rebuild(&n);
	names_mark(&n, first);
	names_mark(&n, rest);
	names_rebuilt(&n);
	assert_int_equal(names_put(&n, "y"), second);
	assert_int_equal(w->shared->name_used, used);
	char longest[NAMES_LENGTH_MAX + 2];
	memset(longest, 'l', sizeof(longest));
	longest[NAMES_LENGTH_MAX + 1] = '\0';
	assert_int_equal(names_put(&n, longest), 0);
	longest[NAMES_LENGTH_MAX] = '\0';
	uint64_t at = names_put(&n, longest);
	assert_string_equal(names_get(&n, at), longest);
	n.limit = w->shared->name_used;
	assert_int_equal(names_put(&n, longest), 0); /* full */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(paths_are_made_of_names, setup, teardown),
		cmocka_unit_test_setup_teardown(a_path_may_be_longer_than_any_buffer, setup, teardown),
		cmocka_unit_test_setup_teardown(references_are_counted_exactly, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_stays_for_its_children, setup, teardown),
		cmocka_unit_test_setup_teardown(more_nodes_than_the_first_table_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(several_names_of_one_file, setup, teardown),
		cmocka_unit_test_setup_teardown(names_beyond_the_bound_replace_the_first, setup, teardown),
		cmocka_unit_test_setup_teardown(renames_take_everything_along, setup, teardown),
		cmocka_unit_test_setup_teardown(a_rename_under_way_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(what_moved_since_the_stat_is_looked_at_again, setup, teardown),
		cmocka_unit_test_setup_teardown(an_inode_of_another_type_is_another_node, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_is_never_below_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(a_descriptor_is_dropped_with_its_node, setup, teardown),
		cmocka_unit_test_setup_teardown(random_life_with_restarts, setup, teardown),
		cmocka_unit_test_setup_teardown(names_are_used_again, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
