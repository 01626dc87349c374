#include "fs/removal.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "fs/keeper.h"
#include "fs/unlinked.h"
#include "provisioner/trash.h"

#define AREA "removal"
#define WITNESS_AFTER 256 /* names read to find one that is likely to go late */
#define DETACH_TRIES 3
#define STAT_MAX 4096     /* bytes of /proc/PID/stat */

enum { UNANSWERED = -1, DETACHED, FAILED };

struct removal {
	struct removal_params p;
	struct shared_removal *shared;
	_Atomic bool env_shown; /* the lines' file has been in a listing since it is there */
	pthread_mutex_t witness_lock;
	char witness[256]; /* a listed name that was there: as long as it is, the root is not empty. Saves reading a large one at each unlink */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int answer;
};

struct removal *removal_new(const struct removal_params *params)
{
	struct removal *r = xcalloc(1, sizeof *r);
	pthread_condattr_t monotonic;
	r->p = *params;
	r->shared = &params->shared->removal;
	r->env_shown = !faccessat(params->root_fd, params->id->env_name, F_OK, AT_SYMLINK_NOFOLLOW);
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->witness_lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return r;
}

/* ---- who took what ---- */

/* Field 22 of proc_pid_stat(5), behind a command that may hold anything; 0: it is gone. */
static uint64_t process_began(pid_t pid)
{
	char path[64];
	unsigned long long began = 0;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (file_read(AT_FDCWD, path, STAT_MAX, &text))
		return 0;
	const char *rest = strrchr(buffer_str(&text), ')');
	if (rest)
		sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &began);
	return began;
}

static struct shared_remover *find(struct removal *r, pid_t tgid, uint64_t began)
{
	for (int i = 0; i < SHARED_REMOVERS; i++) {
		struct shared_remover *m = &r->shared->removers[i];
		if (atomic_load(&m->what) && m->tgid == tgid && m->began == began)
			return m;
	}
	return NULL;
}

/* With too many of them the earliest is forgotten. */
static void note(struct removal *r, struct shared_remover *m, pid_t tgid, uint64_t began, uint32_t what)
{
	if (!m) {
		m = &r->shared->removers[r->shared->next++ % SHARED_REMOVERS];
		atomic_store(&m->what, 0);
		m->tgid = tgid;
		m->began = began;
	}
	atomic_fetch_or(&m->what, what);
}

static bool is_anybody_noted(const struct removal *r)
{
	for (int i = 0; i < SHARED_REMOVERS; i++)
		if (atomic_load(&r->shared->removers[i].what) & REMOVAL_REPOSITORY)
			return true;
	return false;
}

static uint32_t bit_of(const struct removal *r, const char *name)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} names[] = {{".git", REMOVAL_REPOSITORY}, {".jj", REMOVAL_REPOSITORY}, {".aether", REMOVAL_AETHER}};
	for (size_t i = 0; name[0] == '.' && i < sizeof names / sizeof names[0]; i++)
		if (!strcmp(names[i].name, name))
			return names[i].bit;
	return strcmp(r->p.id->env_name, name) ? 0 : REMOVAL_ENV;
}

/* ---- is that all? ---- */

void removal_env_shown(struct removal *r)
{
	atomic_store(&r->env_shown, true);
}

/* What was written over .env is put beneath a moment after it was closed, and the kernel goes on with the listing it has until it is told: a process
 * that began before that, or found it in no listing, has deleted all that it saw. */
static bool env_is_unseen(struct removal *r, uint64_t began)
{
	struct stat st;
	struct timespec wall, boot;
	if (fstatat(r->p.root_fd, r->p.id->env_name, &st, AT_SYMLINK_NOFOLLOW)) {
		atomic_store(&r->env_shown, false);
		return true;
	}
	if (!atomic_load(&r->env_shown))
		return true;
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	double age = (double)(wall.tv_sec - st.st_ctim.tv_sec) + (double)(wall.tv_nsec - st.st_ctim.tv_nsec) / 1e9;
	double lasts = (double)boot.tv_sec + (double)boot.tv_nsec / 1e9 - (double)began / (double)sysconf(_SC_CLK_TCK);
	return age <= lasts;
}

/* The root without what `gone` says that this process deleted and what nobody sees. witness_lock held. */
static bool look_whether_empty(struct removal *r, uint32_t gone)
{
	struct stat st;
	if (r->witness[0] && !fstatat(r->p.root_fd, r->witness, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	r->witness[0] = '\0';
	cleanup_close int fd = openat(r->p.root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return false;
	move_fd(&fd);
	unsigned count = 0;
	for (struct dirent *d; count < WITNESS_AFTER && (d = readdir(dir));) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || !strcmp(d->d_name, ".aether") ||
		    (!strcmp(d->d_name, r->p.id->env_name) && gone & REMOVAL_ENV))
			continue;
		count++;
		if (!strcmp(d->d_name, r->p.id->env_name)) /* it stays beneath when it is deleted, so it tells nothing */
			continue;
		snprintf(r->witness, sizeof r->witness, "%s", d->d_name);
	}
	return count == 0;
}

static bool is_empty(struct removal *r, uint32_t gone)
{
	pthread_mutex_lock(&r->witness_lock);
	bool empty = look_whether_empty(r, gone);
	pthread_mutex_unlock(&r->witness_lock);
	return empty;
}

/* ---- the end ---- */

static bool ask_keeper(struct removal *r, const struct timespec *until)
{
	struct keeper_message m = {.type = KEEPER_DETACH};
	pthread_mutex_lock(&r->lock);
	r->answer = UNANSWERED;
	int failed = send(r->p.keeper_socket, &m, offsetof(struct keeper_message, text), MSG_NOSIGNAL) < 0;
	while (!failed && r->answer == UNANSWERED)
		failed = pthread_cond_timedwait(&r->changed, &r->lock, until);
	bool detached = r->answer == DETACHED;
	pthread_mutex_unlock(&r->lock);
	return detached;
}

/* The answer may be one to a server before this, whose death was in the way. */
static bool detach(struct removal *r)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += REMOVAL_DETACH_MS / 1000;
	for (int i = 0; i < DETACH_TRIES; i++)
		if (ask_keeper(r, &until))
			return true;
	return false;
}

void removal_detached(struct removal *r, bool failed)
{
	pthread_mutex_lock(&r->lock);
	r->answer = failed ? FAILED : DETACHED;
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* What is left beneath is not to be seen, and would keep the directory. `.aether` is of a time without the overlay. */
static void clear_hidden(struct removal *r)
{
	cleanup_error struct error err = ERROR_INIT;
	if (trash_env_aside(r->p.id, r->p.root_fd, &err))
		log_error(AREA, "%s", err.message);
	int failed = tree_remove(r->p.root_fd, ".aether");
	if (failed)
		log_error(AREA, ".aether: %s", strerror(-failed));
}

/* Said to the next server first: it is asked for the same name again, when we die meanwhile. */
static void begin(struct removal *r, pid_t tgid)
{
	atomic_store(&r->shared->tgid, tgid);
	atomic_store(&r->shared->begun, 1);
	if (!detach(r)) {
		atomic_store(&r->shared->begun, 0);
		log_error(AREA, "the workspace is empty and was to be removed, but its mount could not be taken away");
		return;
	}
	clear_hidden(r);
	r->p.begun(r->p.arg, tgid);
}

bool removal_has_begun(const struct removal *r, pid_t *ret_tgid)
{
	*ret_tgid = atomic_load(&r->shared->tgid);
	return atomic_load(&r->shared->begun);
}

/* ---- names ---- */

void removal_name_made(struct removal *r, const char *name, pid_t tid)
{
	if (bit_of(r, name) != REMOVAL_REPOSITORY)
		return;
	pid_t tgid = thread_group(tid);
	uint64_t began = process_began(tgid);
	if (began)
		note(r, find(r, tgid, began), tgid, began, REMOVAL_MADE);
}

void removal_name_gone(struct removal *r, const char *name, pid_t tid)
{
	const uint32_t virtual = r->p.shared->options & MOUNT_LISTED ? REMOVAL_ENV | REMOVAL_AETHER : 0;
	uint32_t bit = bit_of(r, name);
	if (r->p.keeper_socket < 0 || (!bit && !is_anybody_noted(r)))
		return;
	pid_t tgid = thread_group(tid);
	uint64_t began = process_began(tgid);
	struct shared_remover *m = began ? find(r, tgid, began) : NULL;
	uint32_t what = (m ? atomic_load(&m->what) : 0) | bit;
	if (!began || what & REMOVAL_MADE)
		return;
	if (bit)
		note(r, m, tgid, began, bit);
	if (what & REMOVAL_REPOSITORY && (what & virtual) == virtual && is_empty(r, env_is_unseen(r, began) ? what | REMOVAL_ENV : what))
		begin(r, tgid);
}
