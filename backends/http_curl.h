/* libcurl's names, leading to the library as it is loaded by who first asks an engine. Linked, it and what it wants in turn (some 30 libraries,
 * Kerberos and LDAP among them) would cost every process that asks none 3.5 ms of its start: `ajj up` without a change takes little more in all. */
#ifndef BACKENDS_HTTP_CURL_H
#define BACKENDS_HTTP_CURL_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/error.h"

#define LIBCURL_FUNCTIONS(X)                                                                                           \
	X(global_init) X(slist_append) X(slist_free_all)                                                                    \
	X(easy_init) X(easy_cleanup) X(easy_setopt) X(easy_getinfo) X(easy_perform) X(easy_strerror) X(easy_send) X(easy_recv)                        \
	X(multi_init) X(multi_cleanup) X(multi_setopt) X(multi_add_handle) X(multi_remove_handle) X(multi_assign)           \
	X(multi_info_read) X(multi_socket_action)

struct libcurl {
#define X(name) __typeof__(curl_##name) *name;
	LIBCURL_FUNCTIONS(X)
#undef X
};

extern struct libcurl libcurl; /* empty before the first success of: */
int http_curl_load(struct error *err); /* any thread; may be called again */

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt
#define curl_slist_append libcurl.slist_append
#define curl_slist_free_all libcurl.slist_free_all
#define curl_easy_init libcurl.easy_init
#define curl_easy_cleanup libcurl.easy_cleanup
#define curl_easy_setopt libcurl.easy_setopt
#define curl_easy_getinfo libcurl.easy_getinfo
#define curl_easy_perform libcurl.easy_perform
#define curl_easy_strerror libcurl.easy_strerror
#define curl_easy_send libcurl.easy_send
#define curl_easy_recv libcurl.easy_recv
#define curl_multi_init libcurl.multi_init
#define curl_multi_cleanup libcurl.multi_cleanup
#define curl_multi_setopt libcurl.multi_setopt
#define curl_multi_add_handle libcurl.multi_add_handle
#define curl_multi_remove_handle libcurl.multi_remove_handle
#define curl_multi_assign libcurl.multi_assign
#define curl_multi_info_read libcurl.multi_info_read
#define curl_multi_socket_action libcurl.multi_socket_action

#endif
