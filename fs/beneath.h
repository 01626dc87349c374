/* Who came before the mount: a shell or editor that stood in the directory, or holds a file of it open, sees and changes what lies beneath, and
 * nobody tells the kernel. Looked for in /proc; of other users' processes only root sees it. Never asks the mount anything. */
#ifndef FS_BENEATH_H
#define FS_BENEATH_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

/* Does any process stand beneath (its working directory)? A readlink a process. */
bool beneath_stands_anybody(int root_fd, const char *root);

struct beneath_params {
	uv_loop_t *loop;
	int root_fd;      /* borrowed */
	const char *root; /* borrowed */
	bool standing;    /* as beneath_stands_anybody said; nobody comes to stand there later */
	void (*left)(void *arg);                              /* the last one who stood there is gone; once */
	void (*may_write)(void *arg, dev_t device, ino_t inode); /* somebody holds this file open for writing; once a second */
	void *arg;
};

struct beneath;
/* Loop thread, but for the one walk through all descriptors of all processes. */
struct beneath *beneath_new(const struct beneath_params *params);
void beneath_stop(struct beneath *b);

#endif
