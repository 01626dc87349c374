/* What is mounted, from the kernel's own table (/proc/self/mountinfo, Documentation/filesystems/proc.rst section 3.5). */
#ifndef PROVISIONER_MOUNTS_H
#define PROVISIONER_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mount {
	char *point; /* absolute, unescaped */
	char *type;  /* "fuse.aetherfs", "fuse.aetherfs-control" */
	char *source;
	dev_t device;
	bool shared; /* allow_other: users other than the one who mounted it may look in */
};

struct mounts {
	struct mount *items; /* in the kernel's order: a later one covers an earlier one of the same point */
	size_t count;
};

#define MOUNTS_INIT {NULL, 0}

int mounts_read(struct mounts *ret); /* a negative errno when /proc cannot be read */
/* From here on this process reads the table again only after a change: a machine with many containers has a long one. Then by one thread alone. */
void mounts_keep(void);
void mounts_release(struct mounts *m);
#define cleanup_mounts __attribute__((cleanup(mounts_release)))

enum mount_kind { MOUNT_FOREIGN, MOUNT_OVERLAY, MOUNT_CONTROL };
enum mount_kind mount_kind(const struct mount *m);
/* borrowed: the topmost mount at `point` when it is ours; NULL otherwise */
const struct mount *mounts_ours_at(const struct mounts *m, const char *point);
/* The same in one call, for one point. */
bool is_mounted_by_us(const char *point);

/* Does a request to it fail because nobody serves it any more (ENOTCONN)? */
bool mount_is_dead(const char *point);

#define MOUNT_ANSWER_MS 3000
/* Does its server give no answer in that time? A mount is asked once in the life of this process, and only by who has to do with it: others'
 * cost nobody the time. Whoever would wait for it (realpath(3), stat(2) of it or below it) looks here first. Main thread. */
bool mount_is_hung(const char *point);
/* new: the mount that hangs and that a path, absolute and without `.` and `..`, leads into, links aside; NULL: none */
char *mounts_hung_above(const char *path);
bool mounts_any_hung(char *const *points); /* asked at once; of those that are mounts of ours */

/* Waits until nothing of ours is mounted at `point`. 0, or -ETIMEDOUT. */
int mounts_wait_gone(const char *point, unsigned timeout_ms);

#endif
