/* What a killed Postgres leaves outside of its directories: System V shared memory, which is the whole machine's and lives until
 * somebody removes it. One that starts again on the same data clears it away itself (it must find it there: that is how it
 * knows a second server), so this is for data that goes to the trash. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define LOCK_FILE_MAX 4096
#define LOCK_FILE_SHMEM_LINE 7 /* LOCK_FILE_LINE_SHMEM_KEY of Postgres's miscadmin.h: "key id" */
#define SHMEM_MAGIC 679834894  /* PGShmemMagic of storage/pg_shmem.h */

/* The beginning of PGShmemHeader. */
struct postgres_header {
	int32_t magic;
	pid_t creator;
	size_t total, free;
	uint32_t dsm_control; /* POSIX shared memory of that number holds the list of dynamic segments */
};

/* -1: the file names none */
static int segment_of(const char *text)
{
	unsigned long key;
	int id;
	for (int line = 1; line < LOCK_FILE_SHMEM_LINE && text; line++)
		text = (text = strchr(text, '\n')) ? text + 1 : NULL;
	return text && sscanf(text, "%lu %d", &key, &id) == 2 ? id : -1;
}

static void dynamic_control_remove(uint32_t number, uid_t owner)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/dev/shm/PostgreSQL.%" PRIu32, number);
	if (number && !lstat(path, &st) && S_ISREG(st.st_mode) && st.st_uid == owner)
		unlink(path);
}

void process_shared_memory_remove(const char *data_dir)
{
	struct stat st;
	struct shmid_ds segment;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_close int dir = open(data_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstatat(dir, "postmaster.pid", &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode) ||
	    file_read(dir, "postmaster.pid", LOCK_FILE_MAX, &text))
		return;
	/* its own, and nobody's now: a number may be another's by the time we look */
	int id = segment_of(buffer_str(&text));
	if (id < 0 || shmctl(id, IPC_STAT, &segment) || segment.shm_nattch || segment.shm_perm.uid != st.st_uid ||
	    segment.shm_segsz < sizeof(struct postgres_header))
		return;
	const struct postgres_header *header = shmat(id, NULL, SHM_RDONLY);
	if (header == (void *)-1)
		return;
	bool is_postgres = header->magic == SHMEM_MAGIC;
	if (is_postgres)
		dynamic_control_remove(header->dsm_control, st.st_uid);
	shmdt(header);
	if (is_postgres)
		shmctl(id, IPC_RMID, NULL);
}
