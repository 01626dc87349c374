/* What http.c and http_upgrade.c share (http_endpoint.c). */
#ifndef BACKENDS_HTTP_PRIVATE_H
#define BACKENDS_HTTP_PRIVATE_H

#include "backends/http.h"
#include "backends/http_curl.h"

#define HTTP_CONNECT_TIMEOUT_MS 5000 /* a Unix socket whose queue is full waits, too */

/* Where the server is and how it is known; `params->url` may be NULL. */
void http_set_endpoint(CURL *easy, const struct http_params *params, const char *path);
/* Nobody could be connected to, or the connection broke. */
int http_explain(const struct http_params *params, CURL *easy, CURLcode code, const char *reason, struct error *err);

#endif
