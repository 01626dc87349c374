/* The one error object of the program: {code, message, hint, details} with an errno.
 *
 * Functions that can fail return 0 (or a count) on success and a negative errno on failure, and take a
 * `struct error *` as their last argument, which may be NULL where the caller wants the errno alone. A function
 * fills it exactly once, on failure only. Libraries never print: the program at the top does.
 *
 * Ownership: the strings belong to the object; error_release() frees them and leaves it empty. Not thread-safe;
 * one object belongs to one call chain.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>

/* Codes are stable words that scripts compare with; each has the errno that a file operation reports for it. */
#define ERROR_CODES(X)                               \
	X(JJ_NOT_FOUND, ENOENT)                          \
	X(JJ_FAILED, EIO)                                \
	X(GIT_FAILED, EIO)                               \
	X(CONFIG_NOT_FOUND, EINVAL)                      \
	X(CONFIG_INVALID, EINVAL)                        \
	X(CONFIG_UNTRUSTED, EACCES)                      \
	X(PORT_ALLOCATION_FAILED, ENOSPC)                \
	X(BACKEND_UNREACHABLE, ECONNREFUSED)             \
	X(BACKEND_SPAWN_FAILED, EIO)                     \
	X(BACKEND_DEPROVISION_FAILED, EIO)               \
	X(IMAGE_NOT_FOUND, EINVAL)                       \
	X(IMAGE_AUTH, EACCES)                            \
	X(IMAGE_UNREACHABLE, EHOSTUNREACH)               \
	X(BUILD_FAILED, EIO)                             \
	X(PROGRAM_NOT_FOUND, EINVAL)                     \
	X(NOT_READY, ETIMEDOUT)                          \
	X(SERVICE_FAILED, EIO)                           \
	X(SERVICE_UNKNOWN, EINVAL)                       \
	X(DATA_UNFINISHED, EUCLEAN)                      \
	X(QUOTA_EXCEEDED, ENOSPC)                        \
	X(NO_SPACE, ENOSPC)                              \
	X(STORE_FAILED, EIO)                             \
	X(WORKSPACE_NOT_FOUND, ENOENT)                   \
	X(WORKSPACE_EXISTS, EEXIST)                      \
	X(NOT_A_REPOSITORY, ENOENT)                      \
	X(MOUNT_FAILED, EIO)                             \
	X(MOUNT_NO_NEW_PRIVS, EPERM)                     \
	X(NO_FUSE, ENODEV)                               \
	X(NOT_MOUNTED, ENOTCONN)                         \
	X(IN_USE, EBUSY)                                 \
	X(TRASH_NOT_FOUND, ENOENT)                       \
	X(USAGE, EINVAL)                                 \
	X(PERMISSION, EACCES)                            \
	X(CANCELED, EINTR)                               \
	X(NO_MEMORY, ENOMEM)                             \
	X(INTERNAL, EIO)

enum error_code {
	ERROR_NONE,
#define X(code, err) ERROR_##code,
	ERROR_CODES(X)
#undef X
};

/* What programs say of a full disk, strerror(ENOSPC); their exit status says nothing. */
#define ERROR_SAYS_NO_SPACE "No space left on device"

struct error {
	enum error_code code;
	int err;         /* positive errno; 0 when empty */
	char *message;   /* one line, names the thing; no trailing full stop needed */
	char *hint;      /* the next thing to type or do; may be NULL */
	json_t *details; /* object; may be NULL */
};

#define ERROR_INIT {ERROR_NONE, 0, NULL, NULL, NULL}

/* Sets the code, its errno and the message. Returns the negative errno, so `return error_set(err, ...)`.
 * `e` may be NULL. A message already there is replaced. */
int error_set(struct error *e, enum error_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same with an errno of the caller's choice (positive), whose strerror is appended as ": text". */
int error_set_errno(struct error *e, enum error_code code, int err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "prefix: " before the message. Returns -e->err. */
int error_prefix(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds or replaces the hint. Returns -e->err, so it can end a return statement; -EIO when `e` is NULL, so a caller that wants the
 * errno alone must keep what error_set returned. */
int error_hint(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds one member to details. steals `value`. */
void error_detail(struct error *e, const char *key, json_t *value);

bool error_is_set(const struct error *e);
const char *error_code_name(enum error_code code);         /* borrowed, static; "NONE" for 0 */
int error_code_errno(enum error_code code);                /* positive errno of the table */
/* What a file operation reports for it, positive: the table's, so that it tells the kind of failure. e->err may be a system call's, which
 * is only the reason ("cannot execute: Permission denied" is no EACCES of the file that was read). CANCELED keeps its own. */
int error_reported_errno(const struct error *e);
enum error_code error_code_from_name(const char *name);    /* ERROR_NONE when unknown */

/* new: {"code","message","hint"?,"details"?}. */
json_t *error_to_json(const struct error *e);
/* Fills `e` from such an object; unknown codes become INTERNAL. */
void error_from_json(struct error *e, const json_t *json);

void error_copy(struct error *to, const struct error *from); /* releases what `to` held */
void error_move(struct error *to, struct error *from);       /* the same; `from` is left empty */
void error_release(struct error *e);

#define cleanup_error __attribute__((cleanup(error_release)))

#endif
