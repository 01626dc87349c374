/* The files beneath that an environment is made of: the user's own `.env` lines, and what tells that one of them has
 * changed. Never through a mount of our own: the workspace by its descriptor alone.
 */
#ifndef PROVISIONER_LAYERS_H
#define PROVISIONER_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "provisioner/identity.h"

/* The workspace's own lines: the real file beneath (`.env`, or as id->env_name says), through a link too (`ln -s ../main/.env .env` is the most common
 * set-up line; where the target is another mounted workspace's, its `.aether/env.own` is read: reading its `.env` would
 * start its services). A block that was generated is not among them. A file that is not there or cannot be read is empty. Worker thread, but for a regular file,
 * which any thread may read. */
void layers_user_text(const struct identity *id, int root_fd, struct buffer *out);

/* The same of any directory: `root` is its path, `root_fd` its descriptor. */
void layers_text_at(const char *root, int root_fd, const char *name, struct buffer *out);
/* One regular file of lines; nothing for anything else. */
void layers_read_lines(int dirfd, const char *path, struct buffer *out);

/* Where `.env` is tracked and the virtual file has another name: what lies there, and its stamp. A regular file alone: any thread. */
void layers_base_text(const struct identity *id, int root_fd, struct buffer *out);
uint64_t layers_base_stamp(const struct identity *id, int root_fd);

/* What tells one state of a file from another, mixed into `h`; a file that is not there has a stamp too. */
uint64_t layers_stamp(uint64_t h, int dirfd, const char *path, int flags);

/* A descriptor to replace the contents of the link's target; -EXDEV when that is the `.env` of another mounted
 * workspace, whose server could be waiting for this one. */
int layers_open_link(const struct identity *id, int root_fd);

/* A stamp (inode, size, time) of the real `.env`; *ret_is_link: it is a link, whose target the stamp knows nothing of.
 * Any thread. */
uint64_t layers_user_stamp(int root_fd, const char *name, bool *ret_is_link);
/* Is the real file beneath a copy of the link that a mount shows (`cp -a` of a mounted workspace)? It leads nowhere and holds nothing. */
bool layers_is_copied_link(int root_fd, const char *name);

/* A stamp of every file that the configuration is read from, or would be if it appeared; `files` (may be NULL)
 * are those that were: the configuration and its env_files. Worker thread: the main checkout may lie on a slow file system. */
uint64_t layers_config_stamp(const struct identity *id, int root_fd, char *const *files);

/* Of those that a configuration was made of and that lie in the workspace: stats beneath the mount, so on the loop, too. */
struct config;
uint64_t layers_files_stamp(const struct identity *id, int root_fd, const struct config *config);

/* The same of the files in the workspace alone: a few stats beneath the mount, so on the loop, too. */
uint64_t layers_root_stamp(int root_fd);

#endif
