/* fs/version.h: the records that outlive a server. A "server" here is one struct versions; the next one over the same
 * memory is its heir. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/version.h"

struct fixture {
	struct shared *shared;
	struct versions *v;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int fd = memfd_create("shared", MFD_CLOEXEC);
	assert_return_code(ftruncate(fd, (off_t)SHARED_SIZE), errno);
	f->shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	assert_ptr_not_equal(f->shared, MAP_FAILED);
	close(fd);
	f->v = versions_new(f->shared);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	versions_free(f->v);
	munmap(f->shared, SHARED_SIZE);
	free(f);
	return 0;
}

static void inherit(struct fixture *f)
{
	versions_free(f->v);
	f->v = versions_new(f->shared);
}

static struct shared_version *publish(struct fixture *f, uint64_t file, const char *text)
{
	struct shared_version *version = NULL;
	assert_int_equal(version_publish(f->v, file, text, strlen(text), 1000, &version), 0);
	return version;
}

static void the_same_bytes_are_the_same_inode(void **state)
{
	struct fixture *f = *state;
	struct shared_version *a = publish(f, 1, "A=1\n");
	version_ref(a);
	uint64_t ino = a->ino;
	assert_ptr_equal(publish(f, 1, "A=1\n"), a);
	struct shared_version *b = publish(f, 1, "A=22\n");
	assert_int_not_equal(b->ino, ino);
	assert_ptr_equal(version_current(f->v, 1), b);
	/* what the kernel still refers to is as it was */
	assert_ptr_equal(version_by_ino(f->v, ino), a);
	assert_int_equal(a->bytes.size, 4);
	assert_memory_equal(version_bytes(f->v, a), "A=1\n", 4);
	assert_int_equal(a->state, VERSION_RETIRED);
	version_forget(f->v, a, 1);
	assert_null(version_by_ino(f->v, ino));
}

static void files_do_not_share_versions(void **state)
{
	struct fixture *f = *state;
	assert_ptr_not_equal(publish(f, 1, "x"), publish(f, 2, "x"));
	/* keys whose chains are the same */
	assert_ptr_not_equal(publish(f, 3, "x"), publish(f, 3 + 512, "x"));
	assert_memory_equal(version_bytes(f->v, version_current(f->v, 3)), "x", 1);
}

static void retired_without_a_lookup_is_freed(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = publish(f, 1, "a")->ino;
	publish(f, 1, "b");
	assert_null(version_by_ino(f->v, ino));
	version_retire(f->v, version_current(f->v, 1));
	assert_null(version_current(f->v, 1));
	version_retire(f->v, NULL);
}

static void forgetting_too_often_does_no_harm(void **state)
{
	struct fixture *f = *state;
	struct shared_version *a = publish(f, 1, "a");
	version_ref(a);
	version_forget(f->v, a, 7);
	assert_ptr_equal(version_current(f->v, 1), a);
	assert_int_equal(a->nlookup, 0);
}

static void a_thousand_changes_of_what_is_held_stay_bounded(void **state)
{
	struct fixture *f = *state;
	char text[32];
	struct shared_version *first = publish(f, 1, "first");
	version_ref(first);
	struct shared_handle *h;
	assert_int_equal(handle_open(f->v, 1, first->ino, &h), 0);
	for (int i = 0; i < 3 * SHARED_VERSION_MAX; i++) {
		snprintf(text, sizeof text, "%d", i);
		version_ref(publish(f, 1, text)); /* the kernel never forgets */
	}
	/* the oldest gave way, but not the one that is open */
	assert_ptr_equal(version_by_ino(f->v, h->ino), first);
	assert_memory_equal(version_bytes(f->v, first), "first", 5);
	assert_memory_equal(version_bytes(f->v, version_current(f->v, 1)), text, strlen(text));
}

static void a_full_area_is_said(void **state)
{
	struct fixture *f = *state;
	size_t len = (size_t)SHARED_VERSION_SLOTS * SHARED_VERSION_SLOT;
	char *big = calloc(1, len + 1);
	struct shared_version *version = NULL;
	assert_int_equal(version_publish(f->v, 1, big, len + 1, 0, &version), -ENOSPC);
	assert_int_equal(version_publish(f->v, 1, big, len, 0, &version), 0);
	assert_int_equal(version_publish(f->v, 2, "x", 1, 0, &version), -ENOSPC);
	version_retire(f->v, version_current(f->v, 1));
	assert_int_equal(version_publish(f->v, 2, "x", 1, 0, &version), 0);
	free(big);
}

static void an_heir_finds_everything(void **state)
{
	struct fixture *f = *state;
	struct shared_version *old = publish(f, 1, "old");
	version_ref(old);
	struct shared_handle *h;
	assert_int_equal(handle_open(f->v, 1, old->ino, &h), 0);
	handle_answered(h);
	uint64_t fh = handle_fh(f->v, h), ino = old->ino;
	publish(f, 1, "new");
	assert_int_equal(blob_write(f->v, &h->text, 0, "typed", 5, 100), 0);
	struct shared_scratch *s;
	assert_int_equal(scratch_create(f->v, ".env.swp", 0600, 5, &s), 0);
	assert_int_equal(scratch_write(f->v, s, 0, "swap", 4), 0);
	assert_int_equal(scratch_rename(f->v, s, "renamed"), 0);

	inherit(f);
	h = handle_get(f->v, fh);
	assert_non_null(h);
	assert_int_equal(h->ino, ino);
	assert_memory_equal(version_bytes(f->v, version_by_ino(f->v, ino)), "old", 3);
	assert_memory_equal(version_bytes(f->v, version_current(f->v, 1)), "new", 3);
	assert_memory_equal(blob_bytes(f->v, &h->text), "typed", 5);
	assert_memory_equal(blob_bytes(f->v, &scratch_by_name(f->v, "renamed")->text), "swap", 4);
	/* and gives nobody's bytes away */
	for (int i = 0; i < 100; i++)
		publish(f, 100 + (uint64_t)i, "filler");
	assert_memory_equal(version_bytes(f->v, version_by_ino(f->v, ino)), "old", 3);
	assert_memory_equal(blob_bytes(f->v, &h->text), "typed", 5);
	assert_memory_equal(blob_bytes(f->v, &scratch_by_name(f->v, "renamed")->text), "swap", 4);
	assert_true(publish(f, 1, "newer")->ino > ino);
}

static void a_death_between_publishing_and_retiring_leaves_one(void **state)
{
	struct fixture *f = *state;
	struct shared_version *old = publish(f, 1, "old");
	version_ref(old);
	struct shared_version *new = publish(f, 1, "new");
	atomic_store(&old->state, VERSION_LIVE);
	inherit(f);
	assert_ptr_equal(version_current(f->v, 1), new);
	assert_int_equal(old->state, VERSION_RETIRED);
}

static void a_handle_number_is_never_another_handle(void **state)
{
	struct fixture *f = *state;
	struct shared_handle *a, *b;
	assert_int_equal(handle_open(f->v, 1, 20, &a), 0);
	uint64_t fh = handle_fh(f->v, a);
	assert_ptr_equal(handle_get(f->v, fh), a);
	handle_close(f->v, a);
	assert_null(handle_get(f->v, fh));
	assert_int_equal(handle_open(f->v, 1, 21, &b), 0);
	assert_ptr_equal(a, b); /* its place is used again */
	assert_null(handle_get(f->v, fh));
	assert_null(handle_get(f->v, UINT64_MAX));
}

static void handles_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct shared_handle *h;
	for (int i = 0; i < SHARED_HANDLE_MAX; i++)
		assert_int_equal(handle_open(f->v, 1, 20, &h), 0);
	assert_int_equal(handle_open(f->v, 1, 20, &h), -ENFILE);
}

static void an_open_that_was_being_answered_is_found_again(void **state)
{
	struct fixture *f = *state;
	struct shared_handle *answered, *answering;
	assert_int_equal(handle_open(f->v, 1, 20, &answered), 0);
	answered->tid = 7;
	handle_answered(answered);
	assert_int_equal(handle_open(f->v, 1, 20, &answering), 0);
	answering->tid = 7;
	inherit(f);
	assert_ptr_equal(handle_answering(f->v, 7, 20), answering);
	assert_null(handle_answering(f->v, 8, 20));
	assert_null(handle_answering(f->v, 7, 21));
}

static void a_blob_grows_and_keeps_its_bytes(void **state)
{
	struct fixture *f = *state;
	struct shared_handle *h;
	assert_int_equal(handle_open(f->v, 1, 20, &h), 0);
	publish(f, 1, "in the way");
	assert_int_equal(blob_write(f->v, &h->text, 0, "begin", 5, 1 << 20), 0);
	publish(f, 2, "in the way of growth");
	assert_int_equal(blob_write(f->v, &h->text, 100000, "end", 3, 1 << 20), 0);
	assert_int_equal(h->text.size, 100003);
	const char *bytes = blob_bytes(f->v, &h->text);
	assert_memory_equal(bytes, "begin\0\0\0", 8);
	assert_memory_equal(bytes + 99999, "\0end", 4);
	assert_memory_equal(version_bytes(f->v, version_current(f->v, 2)), "in the way of growth", 20);
	assert_int_equal(blob_resize(f->v, &h->text, 2, 1 << 20), 0);
	assert_int_equal(blob_resize(f->v, &h->text, 6, 1 << 20), 0);
	assert_memory_equal(blob_bytes(f->v, &h->text), "be\0\0\0\0", 6);
	assert_int_equal(blob_write(f->v, &h->text, 1 << 20, "x", 1, 1 << 20), -EFBIG);
	assert_int_equal(blob_write(f->v, &h->text, UINT64_MAX, "xx", 2, 1 << 20), -EFBIG);
}

static void scratch_files_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct shared_scratch *s = NULL, *other = NULL;
	char name[300];
	for (int i = 0; i < SHARED_SCRATCH_MAX; i++) {
		snprintf(name, sizeof name, "file%d", i);
		assert_int_equal(scratch_create(f->v, name, 0600, 0, &s), 0);
	}
	assert_int_equal(scratch_create(f->v, "one more", 0600, 0, &s), -ENOSPC);
	assert_int_equal(scratch_create(f->v, "file0", 0600, 0, &s), -EEXIST);
	s = scratch_by_name(f->v, "file0");
	other = scratch_by_name(f->v, "file1");
	assert_int_equal(scratch_resize(f->v, s, SCRATCH_BYTES_MAX - 10), 0);
	assert_int_equal(scratch_write(f->v, other, 0, "0123456789", 10), 0);
	assert_int_equal(scratch_write(f->v, other, 10, "x", 1), -ENOSPC);
	assert_int_equal(scratch_resize(f->v, s, 0), 0);
	assert_int_equal(scratch_write(f->v, other, 10, "x", 1), 0);
	memset(name, 'n', sizeof name);
	name[256] = 0;
	scratch_unlink(f->v, s);
	assert_int_equal(scratch_create(f->v, name, 0600, 0, &s), -ENAMETOOLONG);
	assert_int_equal(scratch_rename(f->v, other, name), -ENAMETOOLONG);
	assert_int_equal(scratch_create(f->v, "one more", 0600, 0, &s), 0);
}

static void a_scratch_file_takes_the_place_of_another(void **state)
{
	struct fixture *f = *state;
	struct shared_scratch *a, *b;
	assert_int_equal(scratch_create(f->v, "a", 0600, 0, &a), 0);
	assert_int_equal(scratch_create(f->v, "b", 0600, 0, &b), 0);
	struct shared_handle *h;
	atomic_fetch_add(&b->nlookup, 1);
	assert_int_equal(handle_open(f->v, 0, b->ino, &h), 0);
	scratch_write(f->v, a, 0, "A", 1);
	scratch_write(f->v, b, 0, "B", 1);
	assert_int_equal(scratch_rename(f->v, a, "b"), 0);
	assert_ptr_equal(scratch_by_name(f->v, "b"), a);
	assert_null(scratch_by_name(f->v, "a"));
	assert_null(scratch_name(b));
	assert_memory_equal(blob_bytes(f->v, &b->text), "B", 1);
	handle_close(f->v, h);
	scratch_closed(f->v, b);
	assert_int_equal(b->text.place, 0);
	scratch_forget(f->v, b, 1);
	assert_int_equal(b->state, SCRATCH_FREE);
	assert_int_equal(scratch_rename(f->v, a, "b"), 0);
	assert_int_equal(scratch_rename(f->v, a, "c"), 0);
	assert_ptr_equal(scratch_by_name(f->v, "c"), a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_same_bytes_are_the_same_inode),
		T(files_do_not_share_versions),
		T(retired_without_a_lookup_is_freed),
		T(forgetting_too_often_does_no_harm),
		T(a_thousand_changes_of_what_is_held_stay_bounded),
		T(a_full_area_is_said),
		T(an_heir_finds_everything),
		T(a_death_between_publishing_and_retiring_leaves_one),
		T(a_handle_number_is_never_another_handle),
		T(handles_are_bounded),
		T(an_open_that_was_being_answered_is_found_again),
		T(a_blob_grows_and_keeps_its_bytes),
		T(scratch_files_are_bounded),
		T(a_scratch_file_takes_the_place_of_another),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
