/* libarchive's names, leading to the library as it is loaded by who first sends the context of a build (base/library.h: with libxml2 and ICU, which
 * it wants, it is half a millisecond). https://github.com/libarchive/libarchive/wiki/ManPageArchiveWrite3 */
#ifndef BACKENDS_LIBARCHIVE_H
#define BACKENDS_LIBARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#include "base/error.h"

#define LIBARCHIVE_FUNCTIONS(X)                                                                                        \
	X(errno) X(entry_new) X(entry_free) X(entry_set_pathname) X(entry_set_mode) X(entry_set_mtime) X(entry_set_size) X(entry_set_symlink) \
	X(write_new) X(write_free) X(write_close) X(write_set_format_pax_restricted) X(write_open_fd) X(write_header) X(write_data)

struct libarchive {
#define X(name) __typeof__(archive_##name) *name##_;
	LIBARCHIVE_FUNCTIONS(X)
#undef X
};

extern struct libarchive libarchive; /* empty before the first success of: */
int libarchive_load(struct error *err); /* any thread; may be called again */

#define archive_errno libarchive.errno_
#define archive_entry_new libarchive.entry_new_
#define archive_entry_free libarchive.entry_free_
#define archive_entry_set_pathname libarchive.entry_set_pathname_
#define archive_entry_set_mode libarchive.entry_set_mode_
#define archive_entry_set_mtime libarchive.entry_set_mtime_
#define archive_entry_set_size libarchive.entry_set_size_
#define archive_entry_set_symlink libarchive.entry_set_symlink_
#define archive_write_new libarchive.write_new_
#define archive_write_free libarchive.write_free_
#define archive_write_close libarchive.write_close_
#define archive_write_set_format_pax_restricted libarchive.write_set_format_pax_restricted_
#define archive_write_open_fd libarchive.write_open_fd_
#define archive_write_header libarchive.write_header_
#define archive_write_data libarchive.write_data_

#endif
